//! Parsers for values with a unit, and for addresses that carry a password.
//!
//! Owns: the text forms of durations, byte sizes and connection URLs.
//! Never: prints a password, in `Debug`, `Display` or an error.
//! Bound: a duration is at most [`DURATION_MAX`]; a size fits `u64`.
//! Invariant: [`DatabaseUrl::expose`] and [`RedisUrl::expose`] are the only way
//! back to the text that was given.

use std::convert::Infallible;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use pgtls::{Address, Roots, UrlError};
use tokio_postgres::config::Host;

/// 100 years. Past it arithmetic on clocks and PostgreSQL's intervals overflow.
pub(super) const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Reads `250ms`, `10s`, `1h 30m`, `30d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let value = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a number and a unit, as 250ms, 10s or 30d"))?;
    if DURATION_MAX < value {
        return Err("longer than 100 years".to_owned());
    }
    Ok(value)
}

/// Reads `65536`, `16KiB`, `64 MiB`, `1GB`: whole numbers, unit optional.
pub(super) fn byte_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let number: u64 = digits
        .parse()
        .map_err(|error| format!("{error}; write a whole number and a unit, as 64MiB"))?;
    let unit_bytes: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "kib" | "k" => 1 << 10,
        "mb" => 1_000_000,
        "mib" | "m" => 1 << 20,
        "gb" => 1_000_000_000,
        "gib" | "g" => 1 << 30,
        other => return Err(format!("unknown unit `{other}`; use B, KiB, MiB or GiB")),
    };
    number
        .checked_mul(unit_bytes)
        .ok_or_else(|| "more bytes than 64 bits can count".to_owned())
}

/// Where PostgreSQL is, password included; shows everything but the password.
///
/// Parsing never fails, because the parser's error would quote the value:
/// [`DatabaseUrl::parsed`] is asked afterwards, and its error names the setting.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The text as given, password included: for the connection only.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The parts of the address.
    ///
    /// # Errors
    /// Says what is missing, never what was given.
    pub fn parsed(&self) -> Result<Address, String> {
        let address: Address = self
            .0
            .parse()
            .map_err(|error: UrlError| error.to_string())?;
        let config = &address.config;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("names no host".to_owned());
        }
        if config.get_user().is_none_or(str::is_empty) {
            return Err("names no user".to_owned());
        }
        Ok(address)
    }

    /// With a file of authorities, unless it names one or some itself.
    ///
    /// # Errors
    /// Says why the two do not fit.
    pub(super) fn with_ca_file(&self, path: &Path) -> Result<Self, String> {
        let address = self.parsed()?;
        if address.roots != Roots::Unset {
            return Ok(self.clone());
        }
        let path = path.to_str().ok_or("with a path that is not UTF-8")?;
        let with = Self(pgtls::with_root_file(&self.0, path));
        with.parsed()?;
        Ok(with)
    }
}

impl FromStr for DatabaseUrl {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(Address { config, .. }) = self.parsed() else {
            return f.write_str("(an unreadable address)");
        };
        write!(f, "postgres://{}@", config.get_user().unwrap_or_default())?;
        for (index, host) in config.get_hosts().iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            match host {
                Host::Tcp(name) => write!(f, "{separator}{name}")?,
                Host::Unix(path) => write!(f, "{separator}{}", path.display())?,
            }
            let ports = config.get_ports();
            if let Some(port) = ports.get(index).or(ports.first()) {
                write!(f, ":{port}")?;
            }
        }
        write!(f, "/{}", config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

/// Where Redis is, password included; shows everything but user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// The text as given, password included: for the connection only.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is to be reached by TLS.
    pub(super) fn is_encrypted(&self) -> bool {
        let url = redis::parse_redis_url(&self.0);
        url.is_some_and(|url| matches!(url.scheme(), "rediss" | "valkeys"))
    }

    /// # Errors
    /// Says what is wrong with the form, never what was given.
    pub fn check(&self) -> Result<(), &'static str> {
        // redis-rs' #insecure, and whatever else may come to mean something there.
        let url = redis::parse_redis_url(&self.0);
        if url.is_some_and(|url| url.fragment().is_some()) {
            return Err("ends in #...: certificates are always checked; leave it out");
        }
        // Opening only reads the address; a scheme that nobody speaks is found here
        // and not at the first connection.
        redis::Client::open(self.expose()).map(drop).or(Err(
            "is not redis://[user:password@]host:port/database, \
                 rediss:// (TLS) or unix:///path; percent-encode special characters in the \
                 password",
        ))
    }
}

impl FromStr for RedisUrl {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match redis::parse_redis_url(&self.0) {
            Some(url) => {
                write!(f, "{}://{}", url.scheme(), url.host_str().unwrap_or(""))?;
                if let Some(port) = url.port() {
                    write!(f, ":{port}")?;
                }
                f.write_str(url.path())
            }
            None => f.write_str("(an unreadable address)"),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_bytes(text: &str, expected: Option<u64>) {
        assert_eq!(byte_size(text).ok(), expected, "text={text}");
    }

    #[test]
    fn sizes_are_whole_numbers_with_an_optional_unit() {
        check_bytes("0", Some(0));
        check_bytes("65536", Some(65_536));
        check_bytes("16KiB", Some(16_384));
        check_bytes("64 mib", Some(67_108_864));
        check_bytes("1GB", Some(1_000_000_000));
        check_bytes("18446744073709551615", Some(u64::MAX));
        check_bytes("18446744073709551616", None);
        check_bytes("17179869184GiB", None);
        check_bytes("1.5MiB", None);
        check_bytes("-1", None);
        check_bytes("", None);
        check_bytes("MiB", None);
        check_bytes("5 parsecs", None);
    }

    #[track_caller]
    fn check_duration(text: &str, expected: Option<Duration>) {
        assert_eq!(duration(text).ok(), expected, "text={text}");
    }

    #[test]
    fn durations_need_a_unit() {
        check_duration("250ms", Some(Duration::from_millis(250)));
        check_duration("1h 30m", Some(Duration::from_secs(5400)));
        check_duration("30d", Some(Duration::from_secs(2_592_000)));
        check_duration("36500d", Some(DURATION_MAX));
        check_duration("36501d", None);
        check_duration("10", None);
        check_duration("-1s", None);
        check_duration("", None);
    }

    const PASSWORD: &str = "hunter2";

    #[track_caller]
    fn check_database(text: &str, shown: &str) {
        let Ok(url) = text.parse::<DatabaseUrl>();
        assert_eq!(url.to_string(), shown);
        assert_eq!(url.expose(), text);
        assert!(!format!("{url:?}").contains(PASSWORD), "text={text}");
        if let Err(error) = url.parsed() {
            assert!(!error.contains(PASSWORD), "text={text}");
        }
    }

    #[test]
    fn a_database_address_never_shows_its_password() {
        check_database(
            "postgres://app:hunter2@db.internal:5433/ledger",
            "postgres://app@db.internal:5433/ledger",
        );
        check_database(
            "host=a,b port=5432 user=app password=hunter2 dbname=ledger",
            "postgres://app@a:5432,b:5432/ledger",
        );
        check_database(
            "postgres://app:hunter2@%2Ftmp%2Fx:5433/ledger",
            "postgres://app@/tmp/x:5433/ledger",
        );
        check_database("postgres://app:hunt@er2:hunter2", "(an unreadable address)");
        check_database("hunter2", "(an unreadable address)");
        check_database("postgres://", "(an unreadable address)");
    }

    #[track_caller]
    fn check_redis(text: &str, shown: &str) {
        let Ok(url) = text.parse::<RedisUrl>();
        assert_eq!(url.to_string(), shown);
        assert!(!format!("{url:?}").contains(PASSWORD), "text={text}");
    }

    #[test]
    fn a_redis_address_never_shows_its_password() {
        check_redis("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0");
        check_redis("redis://app:hunter2@cache:1/2", "redis://cache:1/2");
        check_redis("redis://:hunter2@cache", "redis://cache");
        check_redis("http://:hunter2@cache", "(an unreadable address)");
        check_redis("hunter2", "(an unreadable address)");
    }
}
