//! One backend: reads messages, executes statements, goes on when its client is
//! gone, and fails in every way that PostgreSQL does.
//!
//! Invariant: as in PostgreSQL, what was received is processed whether or not
//! anyone can still hear the answer; COMMIT's record is durable before its reply.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::cluster::{Cluster, SessionRow, Txn, TxnId};
use super::wire::{self, Field, Said};
use crate::simulation::net::{Break, ServerEnd};
use crate::simulation::{World, fail, now_ms, world};

/// How long a row lock is waited for before somebody looks for a deadlock.
const DEADLOCK_AFTER: Duration = Duration::from_secs(1);
/// When a server gives up on a client behind a black hole.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// The session's time limits, as its client asked for at the start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) lock: Duration,
    statement: Duration,
    pub(super) idle_in_transaction: Duration,
}

pub(super) struct Session {
    pub(super) host: usize,
    pub(super) pid: i32,
    end: ServerEnd,
    pub(super) out: BytesMut,
    pub(super) prepared: BTreeMap<String, String>,
    bound: Option<(String, Vec<Field>)>,
    copying: Option<(String, BytesMut)>,
    pub(super) txn: Option<TxnId>,
    failed: bool,
    skipping: bool,
    pub(super) limits: Limits,
    /// When the statement in progress is cancelled.
    pub(super) statement_ends: Instant,
    terminate: Rc<Notify>,
}

impl Drop for Session {
    fn drop(&mut self) {
        let world = world();
        let mut cluster = world.cluster.borrow_mut();
        let host = &mut cluster.hosts[self.host];
        host.sessions.remove(&self.pid);
        if let Some(txn) = self.txn.take() {
            host.forget(txn);
        }
        cluster.changed.notify_waiters();
    }
}

/// Serves one connection until it ends.
pub(in crate::simulation) async fn serve(host: usize, mut end: ServerEnd) {
    let Some((_, startup)) = end.message(false).await else {
        return;
    };
    let Some(mut session) = Session::start(host, end, startup) else {
        return;
    };
    wire::authenticated(session.pid, &mut session.out);
    wire::ready(b'I', &mut session.out);
    if session.flush().await {
        session.run().await;
    }
}

impl Session {
    fn start(host: usize, end: ServerEnd, mut startup: BytesMut) -> Option<Self> {
        drop(startup.split_to(4));
        let mut parameters = BTreeMap::new();
        loop {
            let name = wire::text(&mut startup);
            if name.is_empty() {
                break;
            }
            parameters.insert(name, wire::text(&mut startup));
        }
        let ms = |name: &str| {
            let limit = parameters.get(name).and_then(|text| text.parse().ok());
            Duration::from_millis(limit.unwrap_or(3_600_000))
        };
        let limits = Limits {
            lock: ms("lock_timeout"),
            statement: ms("statement_timeout"),
            idle_in_transaction: ms("idle_in_transaction_session_timeout"),
        };
        let engine = parameters.get("user").cloned().unwrap_or_default();
        let world = world();
        let mut cluster = world.cluster.borrow_mut();
        if !cluster.hosts[host].up {
            return None;
        }
        let pid = cluster.next_pid();
        let terminate = Rc::new(Notify::new());
        let row = SessionRow {
            engine,
            idle_since_ms: None,
            cutter: end.cutter(),
            terminate: Rc::clone(&terminate),
        };
        cluster.hosts[host].sessions.insert(pid, row);
        Some(Self {
            host,
            pid,
            end,
            out: BytesMut::new(),
            prepared: BTreeMap::new(),
            bound: None,
            copying: None,
            txn: None,
            failed: false,
            skipping: false,
            limits,
            statement_ends: Instant::now(),
            terminate,
        })
    }

    async fn run(&mut self) {
        while let Some((kind, mut body)) = self.next().await {
            if self.loses_the_rest() {
                return;
            }
            if self.skipping && kind != b'S' {
                continue;
            }
            let world = world();
            let slow = world.config.database.statement_ms_max;
            let (stall, stall_ms) = world.config.database.stall;
            let mut takes = world.ms(0..slow + 1);
            if world.chance(stall) {
                takes += world.ms(1..stall_ms + 1);
            }
            drop(world);
            if !takes.is_zero() && matches!(kind, b'E' | b'Q' | b'c') {
                tokio::time::sleep(takes).await;
            }
            self.statement_ends = Instant::now() + self.limits.statement;
            let done = match kind {
                b'Q' => self.simple(body).await,
                b'P' => self.parse(body),
                b'B' => {
                    self.bound = Some(wire::bind(body));
                    wire::bare(b'2', &mut self.out);
                    Ok(())
                }
                b'E' => self.execute().await,
                b'C' => {
                    let mut body = body.split_off(1);
                    self.prepared.remove(&wire::text(&mut body));
                    wire::bare(b'3', &mut self.out);
                    Ok(())
                }
                b'd' => {
                    if let Some((_, data)) = &mut self.copying {
                        data.extend_from_slice(&body);
                    }
                    Ok(())
                }
                b'c' => self.copied().await,
                b'S' => {
                    self.skipping = false;
                    wire::ready(self.state(), &mut self.out);
                    if !self.flush().await {
                        return;
                    }
                    Ok(())
                }
                b'X' => return,
                other => {
                    fail(format!("the simulated database got a message {other}"));
                    return;
                }
            };
            if let Err(said) = done
                && !self.refuse(&said, kind == b'Q').await
            {
                return;
            }
        }
    }

    /// The next message; ends an idle transaction in time.
    async fn next(&mut self) -> Option<(u8, BytesMut)> {
        if !self.end.has_more() {
            self.idle(self.txn.map(|_| now_ms()));
        }
        let limit = match self.txn {
            Some(_) => self.limits.idle_in_transaction,
            None if self.end.client_gone() => KEEPALIVE,
            None => Duration::from_secs(86_400),
        };
        let terminate = Rc::clone(&self.terminate);
        let next = tokio::select! {
            biased;
            next = tokio::time::timeout(limit, self.end.message(true)) => next,
            () = terminate.notified() => {
                self.leave(&Said::fatal("57P01"));
                return None;
            }
        };
        self.idle(None);
        match next {
            Ok(next) => next,
            Err(_elapsed) => {
                self.leave(&Said::fatal("25P03"));
                None
            }
        }
    }

    fn idle(&self, since: Option<u64>) {
        let world = world();
        let mut cluster = world.cluster.borrow_mut();
        if let Some(row) = cluster.hosts[self.host].sessions.get_mut(&self.pid) {
            row.idle_since_ms = since;
        }
    }

    fn state(&self) -> u8 {
        match self.txn {
            None => b'I',
            Some(_) if self.failed => b'E',
            Some(_) => b'T',
        }
    }

    /// The connection breaks between two messages: the rest never arrives.
    fn loses_the_rest(&mut self) -> bool {
        let world = world();
        let lost = world.chance(world.config.network.cut_in);
        if lost {
            self.end.lose_unread();
            self.end.cut(world.pick(&BREAKS));
        }
        lost
    }

    /// Sends what a text statement answered.
    pub(super) async fn answer(&mut self) {
        self.flush().await;
    }

    /// Sends what is written; part of it, if the connection breaks here. False
    /// when nobody will ever ask again.
    async fn flush(&mut self) -> bool {
        let delay = {
            let world = world();
            world.ms(0..world.config.network.delay_ms_max + 1)
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let bytes = self.out.split();
        let world = world();
        if world.chance(world.config.network.cut_out) {
            let kept = world.index(bytes.len() + 1);
            self.end.write(&bytes[..kept]);
            self.end.cut(world.pick(&BREAKS));
        } else {
            self.end.write(&bytes);
        }
        true
    }

    /// Says why and ends.
    fn leave(&mut self, said: &Said) {
        wire::said(b'E', said, &mut self.out);
        let bytes = self.out.split();
        self.end.write(&bytes);
    }

    /// After a failed statement. False if the session is over.
    async fn refuse(&mut self, said: &Said, simple: bool) -> bool {
        if said.fatal {
            self.leave(said);
            return false;
        }
        wire::said(b'E', said, &mut self.out);
        self.copying = None;
        if self.txn.is_some() {
            self.failed = true;
        }
        if simple {
            wire::ready(self.state(), &mut self.out);
            return self.flush().await;
        }
        self.skipping = true;
        true
    }

    fn parse(&mut self, mut body: BytesMut) -> Result<(), Said> {
        let name = wire::text(&mut body);
        let sql = wire::text(&mut body);
        if self.prepared.insert(name, sql).is_some() {
            return Err(Said::error("42P05"));
        }
        wire::bare(b'1', &mut self.out);
        Ok(())
    }

    async fn execute(&mut self) -> Result<(), Said> {
        let (name, arguments) = self.bound.take().ok_or(Said::error("34000"))?;
        if !self.prepared.contains_key(&name) {
            return Err(Said::error("26000"));
        }
        if name == "commit" {
            return self.commit().await;
        }
        if self.failed {
            return Err(Said::error("25P02"));
        }
        if let Some(said) = injected() {
            return Err(said);
        }
        if name == "begin" {
            self.begin();
            wire::complete("BEGIN", &mut self.out);
            return Ok(());
        }
        if name.starts_with("copy_") {
            wire::copy_in(&mut self.out);
            self.copying = Some((name, BytesMut::new()));
            return Ok(());
        }
        self.statement(&name, &arguments).await
    }

    async fn copied(&mut self) -> Result<(), Said> {
        match self.copying.take() {
            Some((name, data)) => self.copy(&name, wire::copied(data)).await,
            None => Err(Said::error("08P01")),
        }
    }

    fn begin(&mut self) {
        let world = world();
        let mut cluster = world.cluster.borrow_mut();
        let txn = cluster.next_txn();
        let host = &mut cluster.hosts[self.host];
        let now_ms = world.unix_ms(host.clock_ahead_ms);
        let row = Txn {
            now_ms,
            pid: self.pid,
            ..Txn::default()
        };
        host.txns.insert(txn, row);
        self.txn = Some(txn);
    }

    pub(super) fn roll_back(&mut self) {
        self.failed = false;
        if let Some(txn) = self.txn.take() {
            self.with(|cluster, host| cluster.hosts[host].forget(txn));
        }
    }

    /// Looks at something.
    pub(super) fn see<T>(&self, look: impl FnOnce(&Cluster, usize) -> T) -> T {
        look(&world().cluster.borrow(), self.host)
    }

    /// Changes something that nobody waits for.
    pub(super) fn alter<T>(&self, act: impl FnOnce(&mut Cluster, usize) -> T) -> T {
        act(&mut world().cluster.borrow_mut(), self.host)
    }

    /// Changes something that others may wait for.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Cluster, usize) -> T) -> T {
        let world = world();
        let mut cluster = world.cluster.borrow_mut();
        let done = act(&mut cluster, self.host);
        cluster.changed.notify_waiters();
        done
    }

    async fn commit(&mut self) -> Result<(), Said> {
        let world = world();
        let breaks_up = world.chance(world.config.database.commit_rolls_back);
        drop(world);
        let Some(txn) = self.txn.filter(|_| !self.failed && !breaks_up) else {
            self.roll_back();
            wire::complete("ROLLBACK", &mut self.out);
            return Ok(());
        };
        if let Some(said) = injected() {
            self.roll_back();
            return Err(said);
        }
        let empty = self.see(|cluster, host| {
            let txns = &cluster.hosts[host].txns;
            txns.get(&txn).is_none_or(|txn| txn.writes.is_empty())
        });
        // Nothing written, nothing to wait for.
        if !empty {
            let lsn = self.alter(|cluster, host| {
                let lsn = cluster.hosts[host].log(txn);
                cluster.logged(host, lsn);
                lsn
            });
            self.harden(lsn).await;
        }
        self.txn = None;
        self.with(|cluster, host| cluster.hosts[host].forget(txn));
        wire::complete("COMMIT", &mut self.out);
        Ok(())
    }

    /// Flushes the log, then waits for the standby if there is one to wait for.
    /// From here on nothing takes the commit back; a cancelled wait only warns.
    async fn harden(&mut self, lsn: usize) {
        let flush = {
            let world = world();
            let flush_ms_max = world.config.database.flush_ms_max;
            world.ms(0..flush_ms_max + 1)
        };
        tokio::time::sleep(flush).await;
        self.with(|cluster, host| {
            let host = &mut cluster.hosts[host];
            host.flushed = host.flushed.max(lsn + 1);
        });
        // Somebody cancels what hangs: the wait ends, the commit stays.
        let cancelled = {
            let world = world();
            let cancels = world.chance(world.config.database.waits_cancelled);
            let patience = world.ms(0..50);
            cancels.then(|| Instant::now() + patience)
        };
        loop {
            let changed = {
                let world = world();
                let cluster = world.cluster.borrow();
                // A host that was replaced knows nothing of it: its standby is
                // gone, and it waits.
                let waits = if self.host == cluster.primary {
                    cluster.waits_for_standby
                } else {
                    cluster.synchronous
                };
                if !waits || cluster.is_replicated(self.host, lsn) {
                    return;
                }
                Rc::clone(&cluster.changed)
            };
            let changed = changed.notified();
            let ends = cancelled.unwrap_or(self.statement_ends);
            if tokio::time::timeout_at(ends, changed).await.is_err() {
                wire::said(b'N', &Said::error("01000"), &mut self.out);
                return;
            }
        }
    }
}

const BREAKS: [Break; 3] = [Break::End, Break::Reset, Break::BlackHole];

/// An error that comes out of the blue.
fn injected() -> Option<Said> {
    let world: Rc<World> = world();
    if !world.chance(world.config.database.errors) {
        return None;
    }
    Some(match world.pick(&[0, 1, 2, 3, 4, 5, 6, 7]) {
        0 => Said::error("40001"),
        1 => Said::error("40P01"),
        2 => Said::error("55P03"),
        3 => Said::error("57014"),
        4 => Said::error("53100"),
        5 => Said::fatal("57P01"),
        6 => Said::error("XX000"),
        _ => Said::error("08006"),
    })
}

/// Waits until something changes; says whether it did in time.
pub(super) async fn changed_before(changed: Rc<Notify>, limit: Instant) -> bool {
    tokio::time::timeout_at(limit, changed.notified())
        .await
        .is_ok()
}

/// Looks for a deadlock after so long.
pub(super) fn deadlock_check(since: Instant) -> Instant {
    since + DEADLOCK_AFTER
}
