//! Watches every server that the database URLs name.
//!
//! Owns: one connection per address, and the conclusion drawn from their answers.
//! Never: commits, reads the ledger, or trusts silence for long.
//! Bound: `TARGETS_MAX` addresses per name; each question has a time limit, so that
//! a primary that fell silent is left after `failover_detect`.
//! Invariant: a new primary is followed at its first answer, whether or not the
//! old one still answers; the epoch changes with it, which cuts all old sessions.

use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use pgtls::{Database, Named};
use tokio::sync::watch;

use super::choose::{Candidate, choose};
use super::durability::Durability;
use super::ear::{self, Ear};
use super::facts::Facts;
use super::named::Resolver;
use super::trail::Trail;
use super::{Outlook, Replica, Route, Side, Target};
use crate::domain::DatabaseIdentity;
use crate::store::wire::{SessionSettings, WireError};

/// A primary is asked at least so often: the replica's lag is known to within it,
/// and a promoted standby is found within it.
const ASK_EVERY_MAX: Duration = Duration::from_millis(200);
/// While no server takes writes, and between attempts to reach one.
const ASK_EVERY_MIN: Duration = Duration::from_millis(50);

/// Of a server that has had no time to answer.
const UNASKED: &str = "not asked yet";

/// What is watched, and how impatiently.
#[derive(Clone, Debug)]
pub struct LookoutSettings {
    /// Of the primary and its possible successors.
    pub database: Database,
    /// Of replicas to read from.
    pub replicas: Option<Database>,
    /// A primary silent for so long is given up.
    pub failover_detect: Duration,
    /// To reach one address, sign-in included.
    pub connect_timeout: Duration,
    /// A replica further behind than this is not asked.
    pub replica_lag_max: Duration,
    /// What commits must rest on.
    pub durability: Durability,
    /// Who is asked what a host name leads to, at each attempt.
    pub resolver: Resolver,
}

/// The watching; to be spawned once.
#[derive(Debug)]
pub struct Lookout {
    settings: LookoutSettings,
    hosts: Vec<(Side, Named)>,
    watched: Vec<Watched>,
    next_id: u64,
    outlook: watch::Sender<Outlook>,
    started: Instant,
    /// The newest history written to.
    seen: Option<DatabaseIdentity>,
    /// Where the primary's WAL was.
    trail: Trail,
    /// The last replica there was.
    replica: Option<Target>,
}

#[derive(Debug)]
struct Watched {
    id: u64,
    side: Side,
    /// Its place among `hosts`.
    host: usize,
    target: Target,
    /// Whether the name still leads to it.
    named: bool,
    /// The last answer, and when it was asked for.
    answer: Option<(Instant, Facts)>,
    trouble: String,
}

/// Something that was waited for.
enum Step {
    Resolved {
        host: usize,
        targets: Option<Vec<Target>>,
    },
    Asked {
        id: u64,
        asked_at: Instant,
        answer: Result<(Box<Ear>, Facts), WireError>,
    },
}

type Steps = FuturesUnordered<Pin<Box<dyn Future<Output = Step> + Send>>>;

impl Lookout {
    /// The watching and the ways it shows: to the primary, and to replicas.
    #[must_use]
    pub fn new(settings: LookoutSettings) -> (Self, Route, Route) {
        let (sender, outlook) = watch::channel(Outlook {
            trouble: UNASKED.to_owned(),
            ..Outlook::default()
        });
        let named = |database: &Database, side| {
            let all = Named::all(&database.config).into_iter();
            all.map(move |named| (side, named))
        };
        let mut hosts: Vec<_> = named(&settings.database, Side::Primary).collect();
        if let Some(replicas) = &settings.replicas {
            hosts.extend(named(replicas, Side::Replica));
        }
        let route = |database: &Database, side| Route {
            database: database.clone(),
            side,
            outlook: Some(outlook.clone()),
            peer_silence_max: settings.failover_detect,
        };
        let primary = route(&settings.database, Side::Primary);
        let replicas = settings.replicas.as_ref().unwrap_or(&settings.database);
        let replica = route(replicas, Side::Replica);
        let lookout = Self {
            settings,
            hosts,
            watched: Vec::new(),
            next_id: 0,
            outlook: sender,
            started: Instant::now(),
            seen: None,
            trail: Trail::default(),
            replica: None,
        };
        (lookout, primary, replica)
    }

    /// To be told of every conclusion.
    #[must_use]
    pub fn outlook(&self) -> watch::Receiver<Outlook> {
        self.outlook.subscribe()
    }

    /// Watches, for good.
    pub async fn run(mut self) {
        let mut steps = Steps::new();
        for host in 0..self.hosts.len() {
            steps.push(self.resolve(host, Duration::ZERO));
        }
        loop {
            // Each step is pushed again when it ends, so this is never the end.
            let Some(step) = steps.next().await else {
                return std::future::pending().await;
            };
            match step {
                Step::Resolved { host, targets } => {
                    if let Some(targets) = targets {
                        self.name(host, targets, &mut steps);
                    }
                    let pause = self.settings.failover_detect / 4;
                    steps.push(self.resolve(host, pause.max(ASK_EVERY_MIN)));
                }
                Step::Asked {
                    id,
                    asked_at,
                    answer,
                } => self.hear(id, asked_at, answer, &mut steps),
            }
        }
    }

    fn resolve(&self, host: usize, pause: Duration) -> Pin<Box<dyn Future<Output = Step> + Send>> {
        let named = self.hosts[host].1.clone();
        let (limit, resolver) = (
            self.settings.connect_timeout,
            self.settings.resolver.clone(),
        );
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            let targets = tokio::time::timeout(limit, resolver.targets(&named)).await;
            let targets = targets.ok().flatten();
            Step::Resolved { host, targets }
        })
    }

    /// What a name leads to now. An address that it does not lead to any more is
    /// asked on only while it is the primary.
    fn name(&mut self, host: usize, targets: Vec<Target>, steps: &mut Steps) {
        for watched in self
            .watched
            .iter_mut()
            .filter(|watched| watched.host == host)
        {
            watched.named = targets.contains(&watched.target);
        }
        for target in targets {
            let known = |watched: &Watched| watched.host == host && watched.target == target;
            if self.watched.iter().any(known) {
                continue;
            }
            let watched = Watched {
                id: self.next_id,
                side: self.hosts[host].0,
                host,
                target,
                named: true,
                answer: None,
                trouble: UNASKED.to_owned(),
            };
            self.next_id = self.next_id.wrapping_add(1);
            steps.push(self.ask(&watched, None, Duration::ZERO));
            self.watched.push(watched);
        }
    }

    /// One question, after a pause, with a time limit: what is left of the patience
    /// with a primary that answered before.
    fn ask(
        &self,
        watched: &Watched,
        ear: Option<Box<Ear>>,
        pause: Duration,
    ) -> Pin<Box<dyn Future<Output = Step> + Send>> {
        let detect = self.settings.failover_detect;
        let patience = match watched.answer {
            Some((heard_at, _)) if heard_at.elapsed() < detect => {
                (detect - heard_at.elapsed()).max(ASK_EVERY_MIN)
            }
            Some(_) | None => self.settings.connect_timeout,
        };
        let (id, target, settings) = (
            watched.id,
            watched.target.clone(),
            self.session(watched.side),
        );
        Box::pin(async move {
            let ear = match ear {
                // What ends meanwhile ends the pause: a server that dies says so.
                Some(mut ear) => ear.stays_open(pause).await.then_some(ear),
                None => {
                    tokio::time::sleep(pause).await;
                    None
                }
            };
            let asked_at = Instant::now();
            let answer = tokio::time::timeout(patience, ear::listen(&settings, &target, ear)).await;
            let answer = answer.unwrap_or(Err(WireError::Timeout(patience)));
            Step::Asked {
                id,
                asked_at,
                answer,
            }
        })
    }

    fn session(&self, side: Side) -> SessionSettings {
        let database = match (&self.settings.replicas, side) {
            (Some(replicas), Side::Replica) => replicas,
            (Some(_), Side::Primary) | (None, _) => &self.settings.database,
        };
        let detect = self.settings.failover_detect;
        SessionSettings {
            route: Route::direct(database.clone()),
            connect_timeout: self.settings.connect_timeout,
            round_trip_timeout: detect,
            parameters: vec![
                ("application_name".to_owned(), "engine-watch".to_owned()),
                (
                    "statement_timeout".to_owned(),
                    detect.as_millis().max(1).to_string(),
                ),
            ],
        }
    }

    fn hear(
        &mut self,
        id: u64,
        asked_at: Instant,
        answer: Result<(Box<Ear>, Facts), WireError>,
        steps: &mut Steps,
    ) {
        let Some(at) = self.watched.iter().position(|watched| watched.id == id) else {
            return;
        };
        let ear = match answer {
            Ok((ear, facts)) => {
                self.watched[at].answer = Some((asked_at, facts));
                self.watched[at].trouble.clear();
                Some(ear)
            }
            Err(error) => {
                self.watched[at].trouble = error.to_string();
                None
            }
        };
        self.conclude();
        let outlook = self.outlook.borrow();
        let watched = &self.watched[at];
        let is_primary = outlook
            .primary
            .as_ref()
            .is_some_and(|(target, _)| *target == watched.target);
        let pause = if ear.is_none() || outlook.primary.is_none() {
            ASK_EVERY_MIN
        } else {
            (self.settings.failover_detect / 8).clamp(ASK_EVERY_MIN, ASK_EVERY_MAX)
        };
        drop(outlook);
        if watched.named || (is_primary && watched.side == Side::Primary) {
            steps.push(self.ask(watched, ear, pause));
        } else {
            self.watched.swap_remove(at);
        }
    }

    fn conclude(&mut self) {
        let primary = self.find_primary();
        let identity = primary.as_ref().and_then(|(_, facts)| facts.identity());
        let (changed, was) = {
            let before = self.outlook.borrow();
            let was = before.primary.as_ref();
            let before = was.map(|(target, facts)| (target, facts.identity()));
            let now = primary.as_ref().map(|(target, _)| (target, identity));
            (before != now, was.map(|(target, _)| target.to_string()))
        };
        if changed {
            self.trail.clear();
        }
        self.take_sample(primary.as_ref().map(|(target, _)| target));
        let trouble = match &primary {
            Some(_) => String::new(),
            None => self.trouble(),
        };
        match (&primary, changed) {
            (Some((target, facts)), true) => {
                self.seen = identity;
                let timeline = facts.writes_timeline;
                tracing::info!(server = %target, ?timeline, was, "this server takes writes now");
            }
            (None, true) => {
                tracing::warn!(was, trouble, "no server takes writes");
            }
            (Some(_) | None, false) => {}
        }
        let shortfall = primary
            .as_ref()
            .and_then(|(_, facts)| facts.replication.shortfall(self.settings.durability));
        let (replica, replica_lag) = self.find_replica(identity);
        let doubtful = primary.as_ref().is_some_and(|(target, _)| {
            self.watched
                .iter()
                .any(|watched| watched.target == *target && !watched.trouble.is_empty())
        });
        // One that is late for a while keeps its sessions; nobody asks it then.
        let other_replica = replica
            .as_ref()
            .is_some_and(|replica| Some(&replica.target) != self.replica.as_ref());
        if other_replica {
            self.replica = replica.as_ref().map(|replica| replica.target.clone());
        }
        self.outlook.send_modify(|outlook| {
            if changed {
                outlook.epoch = outlook.epoch.wrapping_add(1);
            }
            if other_replica {
                outlook.replica_epoch = outlook.replica_epoch.wrapping_add(1);
            }
            outlook.doubtful = doubtful;
            outlook.primary = primary;
            outlook.trouble = trouble;
            outlook.shortfall = shortfall;
            outlook.replica = replica;
            outlook.replica_lag = replica_lag;
        });
    }

    /// Whether some host has had no chance to answer yet: the first to answer after a
    /// start may be an old primary. One that says nothing is not waited for long.
    fn is_hasty(&self) -> bool {
        let unheard = |host: usize| {
            let mut all = self.watched.iter().filter(|watched| watched.host == host);
            let heard = all.all(|watched| watched.answer.is_some() || watched.trouble != UNASKED);
            !heard || !self.watched.iter().any(|watched| watched.host == host)
        };
        self.seen.is_none()
            && self.started.elapsed() < self.settings.failover_detect
            && (0..self.hosts.len())
                .any(|host| self.hosts[host].0 == Side::Primary && unheard(host))
    }

    fn find_primary(&self) -> Option<(Target, Facts)> {
        if self.is_hasty() {
            return None;
        }
        let current = self.outlook.borrow().primary.clone();
        let mut candidates = Vec::new();
        let mut places = Vec::new();
        for watched in &self.watched {
            let Some((heard_at, facts)) = watched.answer else {
                continue;
            };
            let Some(identity) = facts.identity() else {
                continue;
            };
            if watched.side != Side::Primary || self.settings.failover_detect <= heard_at.elapsed()
            {
                continue;
            }
            let is_current = |(target, _): &(Target, Facts)| *target == watched.target;
            candidates.push(Candidate {
                identity,
                named: watched.named,
                current: current.as_ref().is_some_and(is_current),
                order: watched.host,
            });
            places.push((watched.target.clone(), facts));
        }
        choose(self.seen, &candidates).map(|chosen| places[chosen].clone())
    }

    /// Remembers where the primary's WAL was.
    fn take_sample(&mut self, primary: Option<&Target>) {
        let answer = self.watched.iter().find_map(|watched| {
            let is_primary = watched.side == Side::Primary && Some(&watched.target) == primary;
            watched.answer.filter(|_| is_primary)
        });
        if let Some((asked_at, facts)) = answer {
            let keep = self.settings.replica_lag_max.saturating_mul(2);
            self.trail.add(asked_at, facts.lsn, keep);
        }
    }

    /// The replica that stays fresh for longest, the present one if it is fresh.
    fn find_replica(
        &self,
        primary: Option<DatabaseIdentity>,
    ) -> (Option<Replica>, Option<Duration>) {
        let current = self.outlook.borrow().replica.clone();
        let (now, lag_max) = (Instant::now(), self.settings.replica_lag_max);
        let mut best: Option<((bool, Instant), Replica)> = None;
        let mut least_lag: Option<Duration> = None;
        for watched in self.watched.iter().filter(|w| w.side == Side::Replica) {
            let Some((asked_at, facts)) = watched.answer else {
                continue;
            };
            let Some(as_of) =
                primary.and_then(|primary| self.trail.as_of(primary, asked_at, &facts))
            else {
                continue;
            };
            let lag = asked_at.saturating_duration_since(as_of);
            least_lag = Some(least_lag.map_or(lag, |least| least.min(lag)));
            let Some(fresh_until) = as_of.checked_add(lag_max).filter(|until| now < *until) else {
                continue;
            };
            let is_current = current.as_ref().is_some_and(|r| r.target == watched.target);
            let rank = (is_current, fresh_until);
            if best.as_ref().is_none_or(|(other, _)| *other < rank) {
                let target = watched.target.clone();
                best = Some((
                    rank,
                    Replica {
                        target,
                        fresh_until,
                    },
                ));
            }
        }
        (best.map(|(_, replica)| replica), least_lag)
    }

    /// Why nobody takes writes.
    fn trouble(&self) -> String {
        let mut all = Vec::new();
        for watched in self.watched.iter().filter(|w| w.side == Side::Primary) {
            let why = match &watched.answer {
                _ if !watched.trouble.is_empty() => watched.trouble.clone(),
                Some((_, facts)) if facts.recovering => "a standby".to_owned(),
                Some((_, facts)) if facts.writes_timeline.is_none() => "read-only".to_owned(),
                Some((_, facts)) => format!(
                    "an old primary: it writes timeline {}, but {} was seen",
                    facts.writes_timeline.unwrap_or_default(),
                    self.seen.map_or(0, |seen| seen.timeline),
                ),
                None => "no answer yet".to_owned(),
            };
            all.push(format!("{}: {why}", watched.target));
        }
        if all.is_empty() {
            return "no host name can be resolved".to_owned();
        }
        all.join("; ")
    }
}
