//! Which server to talk to, and when to stop talking to it.
//!
//! Owns: the addresses behind a database URL, what the lookout last concluded
//! about them, and the signal that cuts whatever waits for a server left behind.
//! Never: opens a connection (sessions do) or asks a server (the lookout does).
//! Bound: `TARGETS_MAX` addresses per name.
//! Invariant: a session opened under one epoch is cut when the next one begins,
//! so that nothing waits for a server that is not the primary any more.

mod choose;
mod durability;
mod ear;
mod facts;
mod lookout;
mod named;
mod trail;

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use pgtls::{Database, Named, Tls};
use tokio::sync::watch;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

pub use durability::{Durability, Mode, Replication};
pub use facts::Facts;
pub use lookout::{Lookout, LookoutSettings};
pub use named::{Names, Resolver};

/// When nobody said how long a silent peer is waited for.
const PEER_SILENCE_MAX: Duration = Duration::from_secs(10);

/// One address of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As the URL names it; what a certificate is checked against.
    pub host: Host,
    /// What the name resolved to; none for a Unix socket.
    pub ip: Option<IpAddr>,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Unix(folder) => write!(formatter, "{}:{}", folder.display(), self.port),
            Host::Tcp(name) => {
                write!(formatter, "{name}:{}", self.port)?;
                match self.ip {
                    Some(ip) if ip.to_string() != *name => write!(formatter, " ({ip})"),
                    Some(_) | None => Ok(()),
                }
            }
        }
    }
}

impl Target {
    /// The database at this target alone: who signs in, and how it is protected.
    #[must_use]
    pub fn narrow(&self, database: &Database) -> Config {
        database.at(&Named {
            host: self.host.clone(),
            ip: self.ip,
            port: self.port,
        })
    }
}

/// What the lookout last concluded.
#[derive(Clone, Debug, Default)]
pub struct Outlook {
    /// Counts the changes of the primary, its loss included.
    pub epoch: u64,
    /// The server that takes writes, with its last answer.
    pub primary: Option<(Target, Facts)>,
    /// Whether its last question went unanswered; it is given up if that goes on.
    pub doubtful: bool,
    /// Why there is none, in words.
    pub trouble: String,
    /// What `--durability` misses on the primary; nothing is committed then.
    pub shortfall: Option<String>,
    /// The standby that reads may go to.
    pub replica: Option<Replica>,
    /// Counts the changes of the replica.
    replica_epoch: u64,
    /// How far the best replica was behind when last asked.
    pub replica_lag: Option<Duration>,
}

/// A standby that follows.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Where.
    pub target: Target,
    /// Until then it is not further behind than allowed.
    pub fresh_until: Instant,
}

/// Which of the servers a session wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Primary,
    Replica,
}

/// The way to one side. Clones share the outlook.
#[derive(Clone)]
pub struct Route {
    database: Database,
    side: Side,
    outlook: Option<watch::Receiver<Outlook>>,
    peer_silence_max: Duration,
}

impl fmt::Debug for Route {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration holds a password.
        formatter
            .debug_struct("Route")
            .field("side", &self.side)
            .finish_non_exhaustive()
    }
}

impl Route {
    /// Without a lookout: every host is tried in order, each time.
    #[must_use]
    pub fn direct(database: Database) -> Self {
        Self {
            database,
            side: Side::Primary,
            outlook: None,
            peer_silence_max: PEER_SILENCE_MAX,
        }
    }

    /// Who signs in, and where to; all hosts.
    #[must_use]
    pub const fn database(&self) -> &Database {
        &self.database
    }

    /// How the way is protected.
    #[must_use]
    pub const fn tls(&self) -> &Tls {
        &self.database.tls
    }

    /// Unacknowledged data for so long means that the peer is gone, not slow.
    #[must_use]
    pub const fn peer_silence_max(&self) -> Duration {
        self.peer_silence_max
    }

    /// Where to connect now, the best first, and what cuts sessions opened there.
    /// Watched, that is one server or none.
    pub async fn targets(&self) -> (Vec<Target>, Lifeline) {
        let Some(outlook) = &self.outlook else {
            let mut targets = Vec::new();
            for named in Named::all(&self.database.config) {
                targets.extend(Resolver::System.targets(&named).await.unwrap_or_default());
            }
            return (targets, Lifeline::default());
        };
        // Before connecting: what leads to the server of then is cut as well.
        let seen = outlook.borrow();
        let lifeline = Lifeline {
            watched: Some((outlook.clone(), self.side)),
            epoch: self.side.epoch(&seen),
        };
        let target = match self.side {
            Side::Primary => seen.primary.as_ref().map(|(target, _)| target.clone()),
            Side::Replica => seen
                .replica
                .as_ref()
                .filter(|replica| Instant::now() < replica.fresh_until)
                .map(|replica| replica.target.clone()),
        };
        (target.into_iter().collect(), lifeline)
    }

    /// As [`Self::targets`], waiting until there is one; the caller bounds it.
    pub async fn some_target(&self) -> (Vec<Target>, Lifeline) {
        loop {
            let found = self.targets().await;
            if !found.0.is_empty() || self.outlook.is_none() {
                return found;
            }
            self.pause(Duration::from_secs(1)).await;
        }
    }

    /// Whether it leads to the server that takes writes.
    #[must_use]
    pub fn is_to_primary(&self) -> bool {
        self.side == Side::Primary
    }

    /// Whether the replica may be asked: never true of the primary's side.
    #[must_use]
    pub fn has_fresh_replica(&self) -> bool {
        let outlook = self.outlook.as_ref().filter(|_| !self.is_to_primary());
        outlook.is_some_and(|outlook| {
            let seen = outlook.borrow();
            let replica = seen.replica.as_ref();
            replica.is_some_and(|replica| Instant::now() < replica.fresh_until)
        })
    }

    /// Whether a server to connect to is known; true if nobody watches.
    #[must_use]
    pub fn leads_somewhere(&self) -> bool {
        self.outlook.as_ref().is_none_or(|outlook| {
            let seen = outlook.borrow();
            match self.side {
                Side::Primary => seen.primary.is_some(),
                Side::Replica => seen.replica.is_some(),
            }
        })
    }

    /// Whether a server is known that may be committed to; true if nobody watches.
    #[must_use]
    pub fn takes_commits(&self) -> bool {
        self.outlook.as_ref().is_none_or(|outlook| {
            let seen = outlook.borrow();
            seen.primary.is_some() && seen.shortfall.is_none()
        })
    }

    /// What keeps commits from being as durable as demanded, if anything.
    #[must_use]
    pub fn shortfall(&self) -> Option<String> {
        let outlook = self.outlook.as_ref()?;
        outlook.borrow().shortfall.clone()
    }

    /// Why no server takes writes, in words; empty if one does or nobody watches.
    #[must_use]
    pub fn trouble(&self) -> String {
        let outlook = self.outlook.as_ref();
        outlook.map_or_else(String::new, |outlook| outlook.borrow().trouble.clone())
    }

    /// Waits that long, or less if another server is the one meanwhile.
    pub async fn pause(&self, limit: Duration) {
        let Some(outlook) = &self.outlook else {
            return tokio::time::sleep(limit).await;
        };
        let mut outlook = outlook.clone();
        let (epoch, blocked) = {
            let seen = outlook.borrow_and_update();
            (self.side.epoch(&seen), seen.shortfall.is_some())
        };
        let changed = outlook.wait_for(|seen| {
            self.side.epoch(seen) != epoch || (blocked && seen.shortfall.is_none())
        });
        let changed = async {
            if changed.await.is_err() {
                // Nobody watches any more: the engine is stopping.
                std::future::pending::<()>().await;
            }
        };
        // Over or changed: the caller looks again.
        drop(tokio::time::timeout(limit, changed).await);
    }
}

impl Side {
    const fn epoch(self, outlook: &Outlook) -> u64 {
        match self {
            Self::Primary => outlook.epoch,
            Self::Replica => outlook.replica_epoch,
        }
    }
}

/// Ends the waiting of a session whose server is the one no more.
#[derive(Clone, Debug, Default)]
pub struct Lifeline {
    watched: Option<(watch::Receiver<Outlook>, Side)>,
    epoch: u64,
}

impl Lifeline {
    /// Whether it is cut.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.watched
            .as_ref()
            .is_some_and(|(outlook, side)| side.epoch(&outlook.borrow()) != self.epoch)
    }

    /// Returns once it is cut; never, if nobody watches.
    pub async fn cut(&mut self) {
        let epoch = self.epoch;
        if let Some((outlook, side)) = &mut self.watched
            && outlook
                .wait_for(|seen| side.epoch(seen) != epoch)
                .await
                .is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_of_many_keeps_who_signs_in_and_how() {
        let database: Database = "postgres://u:secret@a:1,b:2/d?options=-c%20x%3D1"
            .parse()
            .unwrap();
        let target = Target {
            host: Host::Tcp("b".into()),
            ip: Some([10, 0, 0, 2].into()),
            port: 2,
        };
        let only = target.narrow(&database);
        assert_eq!(only.get_hosts(), [Host::Tcp("b".into())]);
        assert_eq!(only.get_hostaddrs(), [IpAddr::from([10, 0, 0, 2])]);
        assert_eq!(only.get_ports(), [2]);
        assert_eq!(only.get_user(), Some("u"));
        assert_eq!(only.get_password(), Some(&b"secret"[..]));
        assert_eq!(
            (only.get_dbname(), only.get_options()),
            (Some("d"), Some("-c x=1"))
        );
    }
}
