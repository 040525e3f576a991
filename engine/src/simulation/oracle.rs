//! Knows everything, and checks every promise of the design against it.
//!
//! Owns: what was asked, what was answered, and what must follow from it.
//! Never: looks into an engine; it sees what clients and the database see.
//!
//! Promise by promise: conservation, versions without gaps and no overdraft are
//! checked by `database::tables` at each commit; the rest here.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::engines::{Engine, seen};
use super::executor::Group;
use super::{fail, now_ms, world};
use crate::admission::Refused;
use crate::cache::BalanceAnswer;
use crate::domain::{AccountId, Outcome, TransferRequest};

/// A transfer that somebody wants, whatever the number of attempts.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) request: TransferRequest,
    pub(super) amount_minor: i64,
    /// It, or another of its group, cannot be stored.
    pub(super) poisoned: bool,
    /// Attempts that may have had an effect.
    open: u64,
    completed: Option<Uuid>,
    rejected: Option<Uuid>,
}

#[derive(Clone, Copy, Debug)]
struct Floor {
    version: i64,
    timeline: u32,
}

#[derive(Debug, Default)]
pub(super) struct Oracle {
    wanted: Vec<Wanted>,
    /// Per engine and account, the newest version that it acknowledged, or its
    /// predecessor at that address before it began.
    floors: BTreeMap<(Group, i64), Floor>,
    /// What each key led to.
    keys: BTreeMap<Uuid, (usize, Uuid)>,
    /// When the primary last became another one.
    pub(super) failed_over_ms: Option<u64>,
    pub(super) seen: BTreeMap<&'static str, u64>,
    pub(super) ended_ms: u64,
}

/// What a call for a balance may be told, from before it began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    account: i64,
    floor: Option<Floor>,
    visible: i64,
    timeline: u32,
}

impl Oracle {
    /// The number by which a transfer goes from now on: its reference.
    pub(super) fn want(&mut self, request: TransferRequest, amount_minor: i64) -> usize {
        self.wanted.push(Wanted {
            request,
            amount_minor,
            poisoned: false,
            open: 0,
            completed: None,
            rejected: None,
        });
        self.wanted.len() - 1
    }

    pub(super) fn next_number(&self) -> usize {
        self.wanted.len()
    }

    pub(super) fn wanted(&self, number: usize) -> &Wanted {
        &self.wanted[number]
    }

    pub(super) fn poison(&mut self, number: usize) {
        self.wanted[number].poisoned = true;
    }

    /// An attempt begins: from now on it may have an effect.
    pub(super) fn attempt(&mut self, number: usize) {
        self.wanted[number].open += 1;
    }

    /// The attempt certainly had none, or a known one.
    fn close(&mut self, number: usize) {
        let open = &mut self.wanted[number].open;
        *open = open.saturating_sub(1);
    }

    /// An engine begins in another's place.
    pub(super) fn succeed(&mut self, predecessor: Group, engine: Group) {
        let known = self
            .floors
            .range((predecessor, i64::MIN)..=(predecessor, i64::MAX));
        let known: Vec<_> = known
            .map(|((_, account), floor)| (*account, *floor))
            .collect();
        for (account, floor) in known {
            self.floors.insert((engine, account), floor);
        }
    }

    /// A completed transfer that can be reversed.
    pub(super) fn some_completed(&self, at: usize) -> Option<(Uuid, &Wanted)> {
        let wanted = self.wanted.get(at.checked_rem(self.wanted.len())?)?;
        Some((wanted.completed?, wanted))
    }
}

/// An attempt was answered.
pub(super) fn answered(engine: &Engine, number: usize, answer: Result<Outcome, Refused>) {
    super::executor::trace(u64::try_from(number).unwrap_or(0));
    match answer {
        Ok(Outcome::Completed { receipt, replayed }) => {
            seen(if replayed { "replayed" } else { "completed" });
            let as_asked = {
                let world = world();
                let oracle = world.oracle.borrow();
                let wanted = oracle.wanted(number);
                receipt.debit_account_id == wanted.request.debit_account_id
                    && receipt.credit_account_id == wanted.request.credit_account_id
                    && receipt.amount_minor == wanted.amount_minor
            };
            if !as_asked {
                fail(format!(
                    "exactly once: request {number} was answered with {receipt:?}"
                ));
            }
            completed(engine.group, number, receipt.id.uuid());
        }
        Ok(Outcome::Rejected { rejection, .. }) => {
            seen("rejected");
            if let Some(id) = rejection.id {
                rejected(number, id.uuid());
            }
            world().oracle.borrow_mut().close(number);
        }
        Ok(Outcome::KeyExpired) => fail(format!("exactly once: request {number}: key expired")),
        Ok(Outcome::KeyReused | Outcome::AccountNotFound(_) | Outcome::InvalidAmount(_)) => {
            seen("refused by form");
            world().oracle.borrow_mut().close(number);
        }
        Err(Refused::OutcomeUnknown) => seen("answered: unknown"),
        Err(refused) => {
            refused_certainly(number, refused);
            world().oracle.borrow_mut().close(number);
        }
    }
}

/// A group that failed: nothing of it was done.
pub(super) fn not_applied(number: usize) {
    seen("group failed");
    world().oracle.borrow_mut().close(number);
}

fn refused_certainly(number: usize, refused: Refused) {
    let poisoned = world().oracle.borrow().wanted(number).poisoned;
    match refused {
        Refused::Unstorable if !poisoned => {
            fail(format!(
                "bisect: request {number} was refused as unstorable and is not"
            ));
        }
        Refused::Unstorable => seen("answered: unstorable"),
        Refused::QueueFull => seen("answered: queue full"),
        Refused::DeadlineExceeded => seen("answered: deadline"),
        Refused::DatabaseUnavailable => seen("answered: unavailable"),
        Refused::Draining => seen("answered: draining"),
        Refused::OutcomeUnknown => {}
    }
}

fn durable(number: usize, id: Uuid) {
    if !world().cluster.borrow().is_durable(id) {
        fail(format!(
            "acknowledged means durable: request {number} was answered with {id}, which is not"
        ));
    }
}

fn completed(engine: Group, number: usize, id: Uuid) {
    durable(number, id);
    let world = world();
    let cluster = world.cluster.borrow();
    let may_be_lost = |id: &Uuid| !cluster.synchronous && cluster.lost.contains(id);
    let mut oracle = world.oracle.borrow_mut();
    let wanted = &mut oracle.wanted[number];
    let before = wanted.completed.replace(id);
    let key = wanted.request.key;
    let contradicts = wanted.rejected.filter(|_| key.is_some());
    if let Some(before) = before
        .or(contradicts)
        .filter(|before| *before != id && !may_be_lost(before))
    {
        drop(oracle);
        fail(format!(
            "exactly once: request {number} was answered with {before} and {id}"
        ));
        return;
    }
    if let Some(key) = key {
        let before = oracle.keys.insert(key.hash, (number, id));
        if let Some((other, before)) =
            before.filter(|before| before.1 != id && !may_be_lost(&before.1))
        {
            drop(oracle);
            fail(format!(
                "exactly once: one key did requests {other} ({before}) and {number} ({id})"
            ));
            return;
        }
    }
    let primary = &cluster.hosts[cluster.primary];
    if let Some(row) = primary.tables.transfers.get(&id) {
        for (account, version) in [
            (row.debit, row.debit_version),
            (row.credit, row.credit_version),
        ] {
            let floor = oracle.floors.entry((engine, account)).or_insert(Floor {
                version,
                timeline: primary.timeline,
            });
            if floor.version < version || floor.timeline != primary.timeline {
                *floor = Floor {
                    version,
                    timeline: primary.timeline,
                };
            }
        }
    }
}

fn rejected(number: usize, id: Uuid) {
    durable(number, id);
    let world = world();
    let cluster = world.cluster.borrow();
    let mut oracle = world.oracle.borrow_mut();
    let wanted = &mut oracle.wanted[number];
    let before = wanted.rejected.replace(id);
    let before = before.or(wanted.completed).filter(|before| *before != id);
    let may_be_lost = |id: &Uuid| !cluster.synchronous && cluster.lost.contains(id);
    if let Some(before) = before.filter(|before| !may_be_lost(before)) {
        drop(oracle);
        fail(format!(
            "exactly once: request {number} was answered with {before} and {id}"
        ));
    }
}

/// A call was answered; it began at that moment with that deadline.
pub(super) fn in_time(slot: usize, began_ms: u64, frozen_before_ms: u64, deadline_ms: u64) {
    let frozen_ms = world().engines.borrow().frozen_ms(slot) - frozen_before_ms;
    let took_ms = now_ms() - began_ms;
    if deadline_ms + frozen_ms + 2 < took_ms {
        fail(format!(
            "bounded answer: {took_ms} ms for a deadline of {deadline_ms} ms ({frozen_ms} ms stopped)"
        ));
    }
}

/// What may be answered to a GET that begins now.
pub(super) fn expect(engine: &Engine, account: i64) -> Expected {
    let world = world();
    let cluster = world.cluster.borrow();
    let primary = &cluster.hosts[cluster.primary];
    let floor = world
        .oracle
        .borrow()
        .floors
        .get(&(engine.group, account))
        .copied();
    Expected {
        account,
        // What was lost with an asynchronous standby's tail cannot be shown.
        floor: floor.filter(|floor| cluster.synchronous || floor.timeline == primary.timeline),
        visible: primary
            .tables
            .accounts
            .get(&account)
            .map_or(0, |row| row.version),
        timeline: primary.timeline,
    }
}

/// A GET was answered.
pub(super) fn read(engine: &Engine, expected: &Expected, answer: Option<BalanceAnswer>) {
    seen("reads");
    let Some(answer) = answer else {
        fail(format!("reads: account {} is gone", expected.account));
        return;
    };
    if answer.cached {
        seen("reads from the cache");
    }
    if let Some(broken) = misread(engine, expected, &answer) {
        fail(format!(
            "cache: a GET of {expected:?} was answered with {answer:?}: {broken}"
        ));
    }
}

fn misread(engine: &Engine, expected: &Expected, answer: &BalanceAnswer) -> Option<String> {
    let world = world();
    let source = engine.source.host();
    let cluster = world.cluster.borrow();
    let primary = &cluster.hosts[cluster.primary];
    // An engine that has not yet met the new primary cannot know.
    let knows = engine.identity().map(|known| known.timeline) == Some(primary.timeline)
        && expected.timeline == primary.timeline
        && source == Some(cluster.primary);
    if !knows {
        return None;
    }
    let Expected {
        floor,
        account,
        visible,
        ..
    } = expected;
    let version = answer.balance.version;
    if let Some(floor) = floor.filter(|floor| version < floor.version) {
        return Some(format!("older than acknowledged, {floor:?}"));
    }
    let history = primary.tables.history.get(account)?;
    let at = |version: i64| usize::try_from(version).ok().and_then(|at| history.get(at));
    let ttl_ms = u64::try_from(world.config.cache_ttl.as_millis()).unwrap_or(u64::MAX);
    let settled = world.oracle.borrow().failed_over_ms;
    let settled = settled.is_none_or(|at| at + 2 * ttl_ms + 5_000 < now_ms());
    match at(version) {
        Some(known) if known.balance == answer.balance.balance => {}
        Some(known) => return Some(format!("that version was {known:?}")),
        None => return Some("newer than the database".into()),
    }
    if !answer.cached {
        return (version < *visible).then(|| format!("older than visible, {visible}"));
    }
    let superseded = at(version + 1)?;
    let slack_ms = 1_000;
    (settled && superseded.visible_ms + ttl_ms + slack_ms < now_ms()).then(|| {
        format!(
            "superseded at {} ms, ttl {ttl_ms} ms",
            superseded.visible_ms
        )
    })
}

/// After everything: does the ledger hold what was promised, and nothing else?
pub(super) fn last_judgement() {
    let world = world();
    let cluster = world.cluster.borrow();
    let oracle = world.oracle.borrow();
    let tables = cluster.tables();
    for (currency, sum) in tables.balance_sums() {
        if sum != 0 {
            fail(format!(
                "conservation: the balances in {currency} add up to {sum}"
            ));
        }
    }
    let mut stored: BTreeMap<usize, Vec<Uuid>> = BTreeMap::new();
    for row in tables.transfers.values() {
        match row.reference.as_deref().and_then(|text| text.parse().ok()) {
            Some(number) => stored.entry(number).or_default().push(row.id),
            None => fail(format!("nobody asked for {row:?}")),
        }
    }
    for (number, wanted) in oracle.wanted.iter().enumerate() {
        let stored = stored.get(&number).map_or(&[][..], Vec::as_slice);
        if stored.len() > 1 {
            fail(format!(
                "exactly once: request {number} is stored as {stored:?}"
            ));
        }
        match wanted.completed {
            Some(id) => {
                let may_be_lost = !cluster.synchronous && cluster.lost.contains(&id);
                if !stored.contains(&id) && !may_be_lost {
                    fail(format!(
                        "acknowledged means durable: request {number} ({id}) is gone"
                    ));
                }
            }
            None if wanted.open == 0 && !stored.is_empty() => {
                fail(format!(
                    "a definite answer: request {number} was refused for certain and is stored as {stored:?}"
                ));
            }
            None => {}
        }
        if let Some(id) = wanted.rejected {
            let kept = tables.rejections.contains_key(&id);
            if !kept && (cluster.synchronous || !cluster.lost.contains(&id)) {
                fail(format!(
                    "acknowledged means durable: rejection {id} is gone"
                ));
            }
        }
    }
}

pub(super) fn account(id: i64) -> AccountId {
    AccountId::new(id).expect("small numbers are account ids")
}
