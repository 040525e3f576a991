//! The only place that speaks Redis.
//!
//! Owns: one multiplexed connection, the script, how keys look, and what counts
//! as a failed operation.
//! Never: decides whether an entry is believed, retries, or logs a URL.
//! Bound: every operation ends within `timeout`, connecting within
//! `connect_timeout`; a batch is as large as its caller made it.
//! Invariant: an answer is given only to the key that asked (counts are checked
//! here, account ids by the entry's reader).
//!
//! redis-rs' ConnectionManager is left out on purpose: it reconnects on its own
//! schedule and keeps a connection whose replies merely time out. Here the
//! breaker alone paces attempts, and each probe makes a new connection, so one
//! that was black-holed is never used again.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, RedisError, Script,
    ServerErrorKind, TlsCertificates,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::breaker::Failure;
use super::entry::Entry;
use super::settings::{CacheError, Settings};
use crate::domain::{AccountId, DatabaseIdentity};

/// The text of an entry, if there is one under the key.
pub(super) type Text = Option<Vec<u8>>;

/// Why Redis gave no answer.
#[derive(Debug)]
pub(super) enum StoreError {
    /// No connection yet, or not any more.
    NotConnected,
    /// Redis or the link to it.
    Redis(RedisError),
    /// As many answers as keys were asked for.
    WrongCount { keys: usize, answers: usize },
}

impl StoreError {
    pub(super) fn is_timeout(&self) -> bool {
        match self {
            Self::Redis(error) => error.is_timeout(),
            Self::NotConnected | Self::WrongCount { .. } => false,
        }
    }

    pub(super) fn failure(&self) -> Failure {
        match self {
            // A parse error leaves the stream at an unknown place.
            Self::Redis(error)
                if error.kind() == ErrorKind::Parse
                    || (error.is_unrecoverable_error() && !error.is_timeout()) =>
            {
                Failure::Link
            }
            Self::Redis(_) => Failure::Operation,
            Self::NotConnected | Self::WrongCount { .. } => Failure::Link,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected => formatter.write_str("not connected"),
            Self::Redis(error) => error.fmt(formatter),
            Self::WrongCount { keys, answers } => {
                write!(formatter, "{answers} answers to {keys} keys")
            }
        }
    }
}

/// The keys of one database history: an entry of another is never met.
#[derive(Debug)]
pub(super) struct Keyspace {
    pub(super) identity: DatabaseIdentity,
    /// Counts the histories this process has met, from 1.
    pub(super) history: u64,
    prefix: String,
}

impl Keyspace {
    pub(super) fn new(identity: DatabaseIdentity, history: u64) -> Self {
        let DatabaseIdentity {
            system_identifier,
            timeline,
        } = identity;
        Self {
            identity,
            history,
            prefix: format!("engine:{system_identifier}:{timeline}:balance:"),
        }
    }

    #[cfg(feature = "simulation")]
    fn key(&self, id: AccountId) -> String {
        let mut key = String::new();
        self.write(id, &mut key);
        key
    }

    fn write(&self, id: AccountId, key: &mut String) {
        key.clear();
        key.push_str(&self.prefix);
        key.push_str(itoa::Buffer::new().format(id.get()));
    }
}

pub(super) struct Store {
    client: Client,
    config: AsyncConnectionConfig,
    script: Script,
    #[cfg(feature = "simulation")]
    simulated: Option<crate::simulation::RedisLink>,
    /// Set by the prober, taken away when the breaker opens. Locked to clone it.
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client knows the password.
        formatter.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    pub(super) fn new(url: &str, settings: &Settings) -> Result<Self, CacheError> {
        #[cfg(feature = "simulation")]
        let timeout = settings.timeout;
        Ok(Self {
            client: client(url, settings.ca_file.as_deref())?,
            config: AsyncConnectionConfig::new()
                .set_connection_timeout(Some(settings.connect_timeout))
                .set_response_timeout(Some(settings.timeout)),
            script: Script::new(include_str!("put_if_newer.lua")),
            #[cfg(feature = "simulation")]
            simulated: crate::simulation::redis(timeout),
            connection: Mutex::new(None),
        })
    }

    /// A new connection that reads, writes and knows the script. A Redis that
    /// refuses one of them (full, a replica, loading, no permission) stays away
    /// rather than failing every second operation.
    pub(super) async fn connect(&self) -> Result<(), StoreError> {
        #[cfg(feature = "simulation")]
        if let Some(redis) = self.simulated {
            return redis.ping().await.map_err(StoreError::Redis);
        }
        let connection = self
            .client
            .get_multiplexed_async_connection_with_config(&self.config)
            .await;
        let mut connection = connection.map_err(StoreError::Redis)?;
        let loaded = self.script.load_async(&mut connection).await;
        loaded.map_err(StoreError::Redis)?;
        let probed = redis::pipe()
            .cmd("SET")
            .arg(&[PROBE_KEY, "", "PX", "1000"])
            .cmd("MGET")
            .arg(PROBE_KEY)
            .exec_async(&mut connection)
            .await;
        probed.map_err(StoreError::Redis)?;
        *self.slot() = Some(connection);
        Ok(())
    }

    pub(super) fn disconnect(&self) {
        *self.slot() = None;
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        #[cfg(feature = "simulation")]
        if let Some(redis) = self.simulated {
            return redis.ping().await.map_err(StoreError::Redis);
        }
        let mut connection = self.connection()?;
        let pong = redis::cmd("PING").exec_async(&mut connection).await;
        pong.map_err(StoreError::Redis)
    }

    /// The texts under those accounts' keys, in order.
    pub(super) async fn read(
        &self,
        keyspace: &Keyspace,
        ids: impl ExactSizeIterator<Item = AccountId>,
    ) -> Result<Vec<Text>, StoreError> {
        #[cfg(feature = "simulation")]
        if let Some(redis) = self.simulated {
            let keys = ids.map(|id| keyspace.key(id)).collect();
            return redis.get(keys).await.map_err(StoreError::Redis);
        }
        let mut connection = self.connection()?;
        let keys = ids.len();
        let mut command = Cmd::with_capacity(keys + 1, (keys + 1) * KEY_BYTES);
        command.arg("MGET");
        let mut key = String::with_capacity(KEY_BYTES);
        for id in ids {
            keyspace.write(id, &mut key);
            command.arg(key.as_str());
        }
        let answer = command.query_async(&mut connection).await;
        let texts: Vec<Text> = answer.map_err(StoreError::Redis)?;
        if texts.len() != keys {
            let answers = texts.len();
            return Err(StoreError::WrongCount { keys, answers });
        }
        Ok(texts)
    }

    /// Puts those that are newer than what is stored; how many were.
    pub(super) async fn put_if_newer(
        &self,
        keyspace: &Keyspace,
        entries: impl ExactSizeIterator<Item = Entry> + Clone,
        ttl_ms: u64,
    ) -> Result<u64, StoreError> {
        #[cfg(feature = "simulation")]
        if let Some(redis) = self.simulated {
            let entries = entries.map(|entry| {
                let mut text = String::new();
                entry.write(&mut text);
                (keyspace.key(entry.balance.account_id), text)
            });
            let entries = entries.collect();
            let put = redis.put_if_newer(entries, ttl_ms).await;
            return put.map_err(StoreError::Redis);
        }
        let mut connection = self.connection()?;
        let keys = entries.len();
        let mut command = Cmd::with_capacity(2 * keys + 4, (2 * keys + 4) * KEY_BYTES);
        command.arg("EVALSHA").arg(self.script.get_hash()).arg(keys);
        let mut text = String::with_capacity(KEY_BYTES);
        for entry in entries.clone() {
            keyspace.write(entry.balance.account_id, &mut text);
            command.arg(text.as_str());
        }
        text.clear();
        let written = write!(text, "{ttl_ms}");
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
        command.arg(text.as_str());
        for entry in entries {
            text.clear();
            entry.write(&mut text);
            command.arg(text.as_str());
        }
        match command.query_async(&mut connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                // Redis was restarted or its scripts flushed.
                let loaded = self.script.load_async(&mut connection).await;
                loaded.map_err(StoreError::Redis)?;
                let again = command.query_async(&mut connection).await;
                again.map_err(StoreError::Redis)
            }
            answer => answer.map_err(StoreError::Redis),
        }
    }

    fn connection(&self) -> Result<MultiplexedConnection, StoreError> {
        self.slot().clone().ok_or(StoreError::NotConnected)
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<MultiplexedConnection>> {
        // One assignment under the lock: a panic cannot leave it half done.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn client(url: &str, ca_file: Option<&Path>) -> Result<Client, CacheError> {
    // The error's text may repeat the URL.
    let client = Client::open(url).map_err(|_secret| CacheError::InvalidUrl)?;
    let info = client.get_connection_info().clone();
    if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
        return Ok(client);
    }
    let unusable = |why: String| match ca_file {
        Some(path) => CacheError::CaFile(path.to_owned(), why),
        None => CacheError::Roots(why),
    };
    // Read once, here: redis-rs would take authorities of its own, at each attempt.
    let text = match ca_file {
        Some(path) => authorities(path).map_err(unusable)?,
        None => pgtls::system_pem().map_err(|error| unusable(error.to_string()))?,
    };
    let certificates = TlsCertificates {
        client_tls: None,
        root_cert: Some(text),
    };
    Client::build_with_tls(info, certificates).map_err(|error| unusable(error.to_string()))
}

fn authorities(path: &Path) -> Result<Vec<u8>, String> {
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    let authorities = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    // redis-rs would take an empty file, and then refuse every server.
    if authorities.is_ok_and(|authorities| authorities.is_empty()) {
        return Err(
            "no certificate in it; it must be PEM (-----BEGIN CERTIFICATE-----)".to_owned(),
        );
    }
    Ok(text)
}

/// Written at each connect, for a second.
const PROBE_KEY: &str = "engine:probe";

/// A guess that spares reallocations: keys and entries are 50 to 80 bytes.
const KEY_BYTES: usize = 80;
