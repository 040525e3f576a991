//! Two hosts: who is primary, what is in whose log, who holds which row.
//!
//! Owns: the logs, row locks, transactions in progress, crash, restart,
//! replication and promotion, as PostgreSQL does them:
//! - a transaction is durable on its host when its record is flushed, visible
//!   when it is applied, and with a synchronous standby the one waits between;
//! - a crash loses what is not flushed, and makes visible what is;
//! - a promotion goes on from what the standby received, on a new timeline.
//!
//! Invariant: a standby's log is a prefix of its primary's flushed one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use tokio::sync::Notify;
use uuid::Uuid;

use super::tables::{AccountRow, Record, Tables};
use crate::simulation::executor::Group;
use crate::simulation::net::{Break, Cutter};

pub(super) type TxnId = u64;

/// What a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::simulation) enum Role {
    Primary,
    Standby,
}

/// A row lock: who has it and who came next.
#[derive(Debug, Default)]
pub(super) struct RowLock {
    pub(super) holder: Option<TxnId>,
    pub(super) waiters: VecDeque<TxnId>,
}

/// A transaction in progress.
#[derive(Debug, Default)]
pub(super) struct Txn {
    pub(super) now_ms: i64,
    pub(super) writes: Record,
    pub(super) waits_for: Option<TxnId>,
    /// Which session it is of.
    pub(super) pid: i32,
    /// Its record's place in the log, once it has one.
    pub(super) lsn: Option<usize>,
}

/// A session, as `pg_stat_activity` shows it.
pub(super) struct SessionRow {
    pub(super) engine: String,
    /// Since when it waits for its client inside a transaction.
    pub(super) idle_since_ms: Option<u64>,
    pub(super) cutter: Cutter,
    pub(super) terminate: Rc<Notify>,
}

/// One server.
pub(in crate::simulation) struct Host {
    pub(in crate::simulation) up: bool,
    pub(in crate::simulation) role: Role,
    pub(in crate::simulation) timeline: u32,
    pub(in crate::simulation) group: Group,
    pub(in crate::simulation) log: Vec<Rc<Record>>,
    /// So many records are safe from a crash.
    pub(in crate::simulation) flushed: usize,
    /// Where in the log each id is.
    places: BTreeMap<Uuid, usize>,
    /// In the log and not visible yet.
    unapplied: BTreeSet<usize>,
    pub(in crate::simulation) tables: Tables,
    pub(super) locks: BTreeMap<i64, RowLock>,
    pub(super) txns: BTreeMap<TxnId, Txn>,
    pub(super) sessions: BTreeMap<i32, SessionRow>,
    /// Its clock against the world's.
    pub(in crate::simulation) clock_ahead_ms: i64,
    /// New connections get no answer.
    pub(in crate::simulation) unreachable: bool,
}

impl Host {
    /// Ends a transaction without effect, unless its record is in the log
    /// already: then nothing but a crash can take it back.
    pub(super) fn forget(&mut self, txn: TxnId) {
        let Some(ended) = self.txns.remove(&txn) else {
            return;
        };
        if let Some(lsn) = ended.lsn
            && self.unapplied.remove(&lsn)
            && let Some(record) = self.log.get(lsn)
            && let Err(broken) = self.tables.apply(record, crate::simulation::now_ms())
        {
            crate::simulation::fail(broken);
        }
        self.release(txn);
    }

    fn release(&mut self, txn: TxnId) {
        for lock in self.locks.values_mut() {
            lock.waiters.retain(|waiter| *waiter != txn);
            if lock.holder == Some(txn) {
                lock.holder = None;
            }
        }
        self.locks
            .retain(|_, lock| lock.holder.is_some() || !lock.waiters.is_empty());
    }

    /// Writes the transaction's record into the log, not yet flushed.
    pub(super) fn log(&mut self, txn: TxnId) -> usize {
        let lsn = self.log.len();
        let mut record = Record::default();
        if let Some(txn) = self.txns.get_mut(&txn) {
            record = std::mem::take(&mut txn.writes);
            txn.lsn = Some(lsn);
        }
        for id in record.ids() {
            self.places.insert(id, lsn);
        }
        self.log.push(Rc::new(record));
        self.unapplied.insert(lsn);
        lsn
    }

    /// What it believed to have in memory is gone; its processes are the caller's
    /// to end.
    fn crash(&mut self) {
        self.up = false;
        self.sessions.clear();
        self.txns.clear();
        self.locks.clear();
        self.log.truncate(self.flushed);
        self.places.retain(|_, lsn| *lsn < self.flushed);
        let unapplied = std::mem::take(&mut self.unapplied);
        for lsn in unapplied.range(..self.flushed) {
            if let Err(broken) = self
                .tables
                .apply(&self.log[*lsn], crate::simulation::now_ms())
            {
                crate::simulation::fail(broken);
            }
        }
    }
}

/// Both servers and what lies between them.
pub(in crate::simulation) struct Cluster {
    pub(in crate::simulation) hosts: [Host; 2],
    /// The one that counts; another that believes so is fenced or forgotten.
    pub(in crate::simulation) primary: usize,
    /// Whether the durability asked for needs the standby.
    pub(in crate::simulation) synchronous: bool,
    /// Whether the primary waits for the standby now.
    pub(in crate::simulation) waits_for_standby: bool,
    /// Ids whose record only a lost or fenced host has.
    pub(in crate::simulation) lost: BTreeSet<Uuid>,
    /// Whether the standby's receiver is paused.
    pub(in crate::simulation) lagging: bool,
    initial: BTreeMap<i64, AccountRow>,
    last_txn: TxnId,
    last_pid: i32,
    last_commit_id: i64,
    last_group: u64,
    /// Something changed that a waiting session looks for.
    pub(super) changed: Rc<Notify>,
}

/// Groups of hosts count from here.
const HOST_GROUPS: u64 = 1 << 32;

impl Cluster {
    pub(in crate::simulation) fn new(
        initial: BTreeMap<i64, AccountRow>,
        synchronous: bool,
    ) -> Self {
        let host = |role, group| Host {
            up: true,
            role,
            timeline: 1,
            group: Group(group),
            log: Vec::new(),
            flushed: 0,
            places: BTreeMap::new(),
            unapplied: BTreeSet::new(),
            tables: Tables::new(initial.clone()),
            locks: BTreeMap::new(),
            txns: BTreeMap::new(),
            sessions: BTreeMap::new(),
            clock_ahead_ms: 0,
            unreachable: false,
        };
        Self {
            hosts: [
                host(Role::Primary, HOST_GROUPS),
                host(Role::Standby, HOST_GROUPS + 1),
            ],
            primary: 0,
            synchronous,
            waits_for_standby: synchronous,
            lost: BTreeSet::new(),
            lagging: false,
            initial,
            last_txn: 0,
            last_pid: 0,
            last_commit_id: 0,
            last_group: HOST_GROUPS + 1,
            changed: Rc::new(Notify::new()),
        }
    }

    pub(super) fn next_txn(&mut self) -> TxnId {
        self.last_txn += 1;
        self.last_txn
    }

    pub(super) fn next_pid(&mut self) -> i32 {
        self.last_pid += 1;
        self.last_pid
    }

    pub(super) fn next_commit_id(&mut self) -> i64 {
        self.last_commit_id += 1;
        self.last_commit_id
    }

    fn fresh_group(&mut self) -> Group {
        self.last_group += 1;
        Group(self.last_group)
    }

    pub(in crate::simulation) fn standby(&self) -> usize {
        1 - self.primary
    }

    pub(in crate::simulation) fn tables(&self) -> &Tables {
        &self.hosts[self.primary].tables
    }

    /// Whether the standby has the host's log up to there.
    pub(super) fn is_replicated(&self, host: usize, lsn: usize) -> bool {
        let standby = &self.hosts[self.standby()];
        host == self.primary && standby.role == Role::Standby && lsn < standby.log.len()
    }

    /// Whether an answer about this id may be given: its record will be there
    /// after whatever the durability asked for must survive.
    pub(in crate::simulation) fn is_durable(&self, id: Uuid) -> bool {
        let primary = &self.hosts[self.primary];
        match primary.places.get(&id) {
            Some(lsn) => {
                *lsn < primary.flushed
                    && (!self.waits_for_standby || self.is_replicated(self.primary, *lsn))
            }
            // Acknowledged by a host that is out of office: what asynchronous
            // replication cannot rule out.
            None => !self.synchronous && self.lost.contains(&id),
        }
    }

    /// A record was written by a host; if it is not the one that counts, whatever
    /// it says is lost.
    pub(super) fn logged(&mut self, host: usize, lsn: usize) {
        if host != self.primary {
            let ids: Vec<Uuid> = self.hosts[host].log[lsn].ids().collect();
            self.lost.extend(ids);
        }
    }

    /// The power fails, or the kernel kills it. The processes to end, once
    /// nobody holds the cluster.
    #[must_use]
    pub(in crate::simulation) fn crash(&mut self, host: usize) -> Group {
        self.hosts[host].crash();
        self.changed.notify_waiters();
        self.hosts[host].group
    }

    pub(in crate::simulation) fn restart(&mut self, host: usize) {
        let group = self.fresh_group();
        let host = &mut self.hosts[host];
        host.group = group;
        host.up = true;
        host.unreachable = false;
        self.changed.notify_waiters();
    }

    /// Sends some of what is flushed to the standby.
    pub(in crate::simulation) fn replicate(&mut self, records_max: usize) {
        let (primary, standby) = (self.primary, self.standby());
        if !self.hosts[primary].up || !self.hosts[standby].up || self.lagging {
            return;
        }
        if self.hosts[standby].role != Role::Standby {
            return;
        }
        let (from, to) = (self.hosts[standby].log.len(), self.hosts[primary].flushed);
        let to = to.min(from + records_max);
        if from < to {
            let records: Vec<_> = self.hosts[primary].log[from..to].to_vec();
            let standby = &mut self.hosts[standby];
            standby.log.extend(records);
            standby.flushed = standby.log.len();
            self.changed.notify_waiters();
        }
    }

    /// Whether a promotion now would keep the durability that was asked for.
    pub(in crate::simulation) fn may_promote(&self) -> bool {
        let standby = &self.hosts[self.standby()];
        standby.up && standby.role == Role::Standby && (!self.synchronous || self.waits_for_standby)
    }

    /// Makes the standby the primary. The old one goes on believing what it
    /// believes until somebody tells it otherwise.
    pub(in crate::simulation) fn promote(&mut self) {
        let old = self.primary;
        let new = self.standby();
        let received = self.hosts[new].log.len();
        let tail: Vec<Uuid> = self.hosts[old].log[received..]
            .iter()
            .flat_map(|record| record.ids().collect::<Vec<_>>())
            .collect();
        self.lost.extend(tail);
        let mut tables = Tables::new(self.initial.clone());
        let now_ms = crate::simulation::now_ms();
        let timeline = self.hosts[old].timeline + 1;
        let host = &mut self.hosts[new];
        for (lsn, record) in host.log.iter().enumerate() {
            for id in record.ids() {
                host.places.insert(id, lsn);
            }
            if let Err(broken) = tables.apply(record, now_ms) {
                crate::simulation::fail(broken);
            }
        }
        host.tables = tables;
        host.role = Role::Primary;
        host.timeline = timeline;
        host.unreachable = false;
        self.primary = new;
        // Until the old one comes back as a standby there is none to wait for.
        self.waits_for_standby = false;
        self.changed.notify_waiters();
    }

    /// The host that is not primary comes (back) as a standby, from a copy. Its
    /// old processes, to be ended once nobody holds the cluster.
    #[must_use]
    pub(in crate::simulation) fn rejoin(&mut self) -> Group {
        let standby = self.standby();
        self.hosts[standby].crash();
        let old_group = self.hosts[standby].group;
        let group = self.fresh_group();
        let primary = &self.hosts[self.primary];
        let (timeline, log) = (primary.timeline, primary.log[..primary.flushed].to_vec());
        let initial = self.initial.clone();
        let host = &mut self.hosts[standby];
        host.group = group;
        host.up = true;
        host.unreachable = false;
        host.role = Role::Standby;
        host.timeline = timeline;
        host.flushed = log.len();
        host.log = log;
        host.places.clear();
        host.unapplied.clear();
        host.tables = Tables::new(initial);
        self.waits_for_standby = self.synchronous;
        self.changed.notify_waiters();
        old_group
    }

    /// The standby has caught up: whoever commits waits for it again.
    pub(in crate::simulation) fn trust_standby(&mut self) {
        let (primary, standby) = (&self.hosts[self.primary], &self.hosts[self.standby()]);
        if standby.role == Role::Standby && standby.up && standby.log.len() == primary.flushed {
            self.waits_for_standby = self.synchronous;
        }
    }

    /// The standby is gone for so long that nobody waits for it any more.
    pub(in crate::simulation) fn give_up_standby(&mut self) {
        self.waits_for_standby = false;
        self.changed.notify_waiters();
    }

    /// Breaks every connection to a host, one way or the other.
    pub(in crate::simulation) fn cut_all(&self, host: usize, how: Break) {
        for session in self.hosts[host].sessions.values() {
            session.cutter.cut(how);
        }
    }

    /// Connections to a host that are not over.
    pub(in crate::simulation) fn connections(&self, host: usize) -> Vec<Cutter> {
        let sessions = self.hosts[host].sessions.values();
        sessions
            .map(|session| session.cutter.clone())
            .filter(|cutter| !cutter.is_over())
            .collect()
    }
}
