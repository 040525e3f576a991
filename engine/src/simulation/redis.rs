//! A Redis that runs by the seed: slow, gone, wiped, or restored from long ago.
//!
//! Owns: what is stored, with its expiry, and the rule of `put_if_newer.lua`.
//! Invariant: an operation that timed out may take effect later, as in life.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use redis::RedisError;
use tokio::sync::oneshot;

use super::executor::{self, Group};
use super::{fail, now_ms, world};
use crate::plant::{Plant, planted};

#[derive(Clone, Debug)]
struct Stored {
    text: String,
    ends_ms: u64,
}

/// The server's memory.
#[derive(Debug)]
pub(super) struct Redis {
    entries: BTreeMap<String, Stored>,
    snapshot: BTreeMap<String, Stored>,
    pub(super) up: bool,
    /// Replies take up to so long more.
    pub(super) slow_ms: u64,
    group: Group,
}

const GROUPS: u64 = 1 << 40;

impl Redis {
    pub(super) fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            snapshot: BTreeMap::new(),
            up: true,
            slow_ms: 0,
            group: Group(GROUPS),
        }
    }

    pub(super) fn save(&mut self) {
        self.snapshot = self.entries.clone();
    }

    /// It starts again with what was saved, or with nothing. Expiry is stored as
    /// a time, so what is past it is gone.
    pub(super) fn restore(&mut self) {
        self.entries = self.snapshot.clone();
        self.up = true;
    }

    pub(super) fn wipe(&mut self) {
        self.entries.clear();
    }

    /// It stops answering; the operations under way, to be ended by the caller.
    #[must_use]
    pub(super) fn crash(&mut self) -> Group {
        self.up = false;
        let old = self.group;
        self.group = Group(old.0 + 1);
        old
    }

    /// Evicts an entry, as a full Redis does.
    pub(super) fn evict(&mut self, at: usize) {
        let at = at.checked_rem(self.entries.len());
        if let Some(key) = at.and_then(|at| self.entries.keys().nth(at).cloned()) {
            self.entries.remove(&key);
        }
    }

    fn get(&mut self, key: &str) -> Option<Vec<u8>> {
        let stored = self.entries.get(key)?;
        if stored.ends_ms <= now_ms() {
            self.entries.remove(key);
            return None;
        }
        Some(stored.text.clone().into_bytes())
    }

    /// The rule of `put_if_newer.lua`.
    fn put(&mut self, key: String, text: String, ttl_ms: u64) -> bool {
        let newer = match self.get(&key) {
            None => true,
            Some(stored) => order(&text) > order(&String::from_utf8_lossy(&stored)),
        };
        if newer || planted(Plant::CachePutUnversioned) {
            if let Some(stored) = self.get(&key) {
                let (before, _) = order(&String::from_utf8_lossy(&stored));
                if order(&text).0 < before {
                    fail(format!("cache: {text} replaced version {before} of {key}"));
                }
            }
            let ends_ms = now_ms() + ttl_ms;
            self.entries.insert(key, Stored { text, ends_ms });
        }
        newer
    }
}

/// Version, then "as of".
fn order(text: &str) -> (i64, u64) {
    let mut fields = text.split(' ');
    let version = fields.next().and_then(|field| field.parse().ok());
    let as_of = fields.next().and_then(|field| field.parse().ok());
    (version.unwrap_or(-1), as_of.unwrap_or(0))
}

/// An engine's way to it: what `cache::store` speaks to instead of a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RedisLink {
    timeout: Duration,
}

impl RedisLink {
    pub(crate) const fn new(timeout: Duration) -> Self {
        Self { timeout }
    }

    pub(crate) async fn ping(self) -> Result<(), RedisError> {
        self.run(|_| ()).await
    }

    pub(crate) async fn get(self, keys: Vec<String>) -> Result<Vec<Option<Vec<u8>>>, RedisError> {
        self.run(move |redis| keys.iter().map(|key| redis.get(key)).collect())
            .await
    }

    pub(crate) async fn put_if_newer(
        self,
        entries: Vec<(String, String)>,
        ttl_ms: u64,
    ) -> Result<u64, RedisError> {
        let put = move |redis: &mut Redis| {
            let stored = entries.into_iter().map(|(key, text)| {
                executor::trace_bytes(text.as_bytes());
                u64::from(redis.put(key, text, ttl_ms))
            });
            stored.sum()
        };
        self.run(put).await
    }

    async fn run<T: Send + 'static>(
        self,
        act: impl FnOnce(&mut Redis) -> T + 'static,
    ) -> Result<T, RedisError> {
        let (reply, replied) = oneshot::channel();
        let group = {
            let world = world();
            let redis = world.redis.borrow();
            redis.up.then_some(redis.group)
        };
        let Some(group) = group else {
            return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
        };
        executor::spawn(group, async move {
            let delay = || {
                let world = world();
                let slow_ms = world.redis.borrow().slow_ms;
                world.ms(0..slow_ms + 2)
            };
            tokio::time::sleep(delay()).await;
            let done = act(&mut world().redis.borrow_mut());
            tokio::time::sleep(delay()).await;
            // Nobody may be there to hear it.
            reply.send(done).ok();
        });
        match tokio::time::timeout(self.timeout, replied).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_gone)) => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
            Err(_elapsed) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        }
    }
}
