//! What a database URL says about TLS.
//!
//! Owns: the parameters that begin with `ssl`, in both forms of a URL, and which
//! of them fit together. The rest is tokio-postgres'.
//! Never: reads a file, or quotes a value (it may be part of a password).
//! Invariant: what is accepted here means what it means to libpq.

use std::fmt;
use std::iter::Peekable;
use std::str::CharIndices;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, Host};

use super::{Address, Mode, Roots, RootsError, prepare};

/// Why a URL cannot be used; its text never holds a value of it.
#[derive(Debug)]
pub enum UrlError {
    /// It is no URL of a database, or has an option that nobody knows.
    Unreadable,
    /// A parameter cannot be used.
    Parameter {
        /// Its name.
        name: &'static str,
        /// What is wrong with it, and what to do.
        reason: &'static str,
    },
    /// The authorities cannot be read.
    Roots(RootsError),
}

impl fmt::Display for UrlError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable => formatter.write_str(
                "is neither postgres://user:password@host:port/database nor a list of \
                 key=value; percent-encode special characters in the password",
            ),
            Self::Parameter { name, reason } => write!(formatter, "has {name}, which {reason}"),
            Self::Roots(error) => write!(formatter, "needs authorities to check TLS by: {error}"),
        }
    }
}

impl std::error::Error for UrlError {}

const fn refuse<T>(name: &'static str, reason: &'static str) -> Result<T, UrlError> {
    Err(UrlError::Parameter { name, reason })
}

/// libpq's other parameters of this kind: ignoring one would promise too much.
const NOT_OFFERED: [&str; 10] = [
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslcertmode",
    "sslcrl",
    "sslcrldir",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "requiressl",
    "gssencmode",
];

pub(super) fn read(url: &str) -> Result<Address, UrlError> {
    let (rest, parameters) = split(url).ok_or(UrlError::Unreadable)?;
    let mut config: Config = rest.parse().map_err(|_secret| UrlError::Unreadable)?;
    let (mut asked, mut roots) = (None, Roots::Unset);
    for (name, value) in parameters {
        match name {
            "sslmode" => asked = Some(mode(&value)?),
            "sslrootcert" if value.is_empty() => roots = Roots::Unset,
            "sslrootcert" if value == "system" => roots = Roots::System,
            "sslrootcert" => roots = Roots::File(value.into()),
            "sslnegotiation" if value == "postgres" => {}
            "sslnegotiation" => {
                return refuse("sslnegotiation", "must be postgres, or left out");
            }
            other => {
                return refuse(
                    other,
                    "is not offered: leave it out (TLS 1.2 and 1.3, no client certificates)",
                );
            }
        }
    }
    let mode = fit(asked, &roots, &config)?;
    let is_local = |host: &Host| matches!(host, Host::Unix(_));
    let all_local = !config.get_hosts().is_empty() && config.get_hosts().iter().all(is_local);
    prepare(mode, all_local, &mut config);
    Ok(Address {
        config,
        mode,
        roots,
    })
}

fn mode(word: &str) -> Result<Mode, UrlError> {
    Ok(match word {
        "disable" => Mode::Disable,
        "prefer" => Mode::Prefer,
        "require" => Mode::Require,
        "verify-ca" => Mode::VerifyCa,
        "verify-full" => Mode::VerifyFull,
        _ => {
            return refuse(
                "sslmode",
                "must be disable, prefer, require, verify-ca or verify-full",
            );
        }
    })
}

fn fit(asked: Option<Mode>, roots: &Roots, config: &Config) -> Result<Mode, UrlError> {
    // As libpq 16: who trusts every public authority must check names.
    let default = match roots {
        Roots::System => Mode::VerifyFull,
        Roots::Unset | Roots::File(_) => Mode::default(),
    };
    let mode = asked.unwrap_or(default);
    match roots {
        Roots::System if mode < Mode::VerifyFull => {
            return refuse("sslrootcert=system", "needs sslmode=verify-full");
        }
        Roots::File(_) if mode < Mode::Require => {
            return refuse(
                "sslrootcert",
                "needs sslmode=require, verify-ca or verify-full (best): below them it \
                 would not be looked at",
            );
        }
        Roots::Unset | Roots::System | Roots::File(_) => {}
    }
    let (hosts, addresses) = (config.get_hosts(), config.get_hostaddrs());
    if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
        return refuse("hostaddr", "must name as many addresses as host has names");
    }
    if mode == Mode::VerifyFull && hosts.is_empty() && !addresses.is_empty() {
        return refuse(
            "hostaddr",
            "needs host beside it with sslmode=verify-full: the name to check",
        );
    }
    if mode == Mode::Disable && config.get_channel_binding() == ChannelBinding::Require {
        return refuse(
            "channel_binding=require",
            "needs TLS: use another sslmode than disable",
        );
    }
    Ok(mode)
}

/// The URL with `sslrootcert` added.
#[must_use]
pub fn with_root_file(url: &str, path: &str) -> String {
    if is_list(url) {
        let escaped = path.replace('\\', r"\\").replace('\'', r"\'");
        return format!("{url} sslrootcert='{escaped}'");
    }
    let behind_user = url.find('@').map_or(url, |at| &url[at..]);
    let separator = if behind_user.contains('?') { '&' } else { '?' };
    let path = percent_encode(path.as_bytes(), NON_ALPHANUMERIC);
    format!("{url}{separator}sslrootcert={path}")
}

const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

fn is_list(url: &str) -> bool {
    !SCHEMES.iter().any(|scheme| url.starts_with(scheme))
}

type Parameter = (&'static str, String);

/// The URL without the parameters that are ours, and those.
fn split(url: &str) -> Option<(String, Vec<Parameter>)> {
    if is_list(url) {
        return split_list(url);
    }
    // Where tokio-postgres sees the query begin: behind the user and password.
    let behind_user = url.find('@').map_or(url, |at| &url[at..]);
    match behind_user.find('?') {
        Some(at) => split_query(url, url.len() - behind_user.len() + at),
        None => Some((url.to_owned(), Vec::new())),
    }
}

fn own(name: &str) -> Option<&'static str> {
    ["sslmode", "sslrootcert", "sslnegotiation"]
        .into_iter()
        .chain(NOT_OFFERED)
        .find(|own| *own == name)
}

fn split_query(url: &str, question_mark: usize) -> Option<(String, Vec<Parameter>)> {
    let (mut kept, mut found) = (Vec::new(), Vec::new());
    for part in url[question_mark + 1..].split('&') {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        match own(&percent_decode_str(name).decode_utf8().ok()?) {
            Some(name) => {
                let value = percent_decode_str(value).decode_utf8().ok()?;
                found.push((name, value.into_owned()));
            }
            None => kept.push(part),
        }
    }
    let mut rest = url[..question_mark].to_owned();
    if !kept.is_empty() {
        rest.push('?');
        rest.push_str(&kept.join("&"));
    }
    Some((rest, found))
}

/// `key = 'value' ...`, with backslashes, as libpq has it.
fn split_list(list: &str) -> Option<(String, Vec<Parameter>)> {
    let mut characters = list.char_indices().peekable();
    let (mut rest, mut found) = (String::new(), Vec::new());
    loop {
        skip_blanks(&mut characters);
        let Some(&(start, _)) = characters.peek() else {
            return Some((rest, found));
        };
        let mut name = String::new();
        while let Some((_, c)) = characters.next_if(|(_, c)| *c != '=' && !c.is_whitespace()) {
            name.push(c);
        }
        skip_blanks(&mut characters);
        characters.next_if(|(_, c)| *c == '=')?;
        skip_blanks(&mut characters);
        let value = value(&mut characters)?;
        let end = characters.peek().map_or(list.len(), |(at, _)| *at);
        match own(&name) {
            Some(name) => found.push((name, value)),
            None => {
                rest.push_str(&list[start..end]);
                rest.push(' ');
            }
        }
    }
}

fn skip_blanks(characters: &mut Peekable<CharIndices<'_>>) {
    while characters.next_if(|(_, c)| c.is_whitespace()).is_some() {}
}

fn value(characters: &mut Peekable<CharIndices<'_>>) -> Option<String> {
    let quoted = characters.next_if(|(_, c)| *c == '\'').is_some();
    let ends = |c: char| if quoted { c == '\'' } else { c.is_whitespace() };
    let mut value = String::new();
    while let Some((_, c)) = characters.next_if(|(_, c)| !ends(*c)) {
        match c {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    if quoted {
        characters.next()?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, mode: Mode, roots: &Roots) {
        let address = read(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!((address.mode, &address.roots), (mode, roots), "{url}");
        assert_eq!(address.config.get_user(), Some("u"), "{url}");
        assert_eq!(address.config.get_dbname(), Some("d"), "{url}");
    }

    #[track_caller]
    fn check_refused(url: &str, name: &str) {
        let error = read(url).expect_err(url).to_string();
        assert!(error.contains(name), "{url}: {error}");
        assert!(!error.contains("hunter2"), "{url}: {error}");
    }

    #[test]
    fn both_forms_of_a_url_say_what_libpq_makes_of_them() {
        let file = Roots::File("/a b/ca.pem".into());
        check("postgres://u@h/d", Mode::Prefer, &Roots::Unset);
        for (word, mode) in [
            ("disable", Mode::Disable),
            ("prefer", Mode::Prefer),
            ("require", Mode::Require),
            ("verify-ca", Mode::VerifyCa),
            ("verify-full", Mode::VerifyFull),
        ] {
            check(
                &format!("postgres://u@h/d?sslmode={word}"),
                mode,
                &Roots::Unset,
            );
            check(
                &format!("user=u sslmode = '{word}' dbname=d host=h"),
                mode,
                &Roots::Unset,
            );
        }
        check(
            "postgresql://u:a?b@h/d?application_name=x&sslrootcert=%2Fa%20b/ca.pem&sslmode=verify-full",
            Mode::VerifyFull,
            &file,
        );
        check(
            r"user=u dbname=d host=h sslrootcert='/a b/ca.pem' sslmode=require password='sslmode=\'x'",
            Mode::Require,
            &file,
        );
        check(
            r"user=u dbname=d host=h sslrootcert=/a\ b/ca.pem sslmode=verify-ca",
            Mode::VerifyCa,
            &file,
        );
        check(
            "postgres://u@h/d?sslrootcert=system",
            Mode::VerifyFull,
            &Roots::System,
        );
        check(
            "postgres://u@h/d?sslmode=require&sslmode=disable&sslnegotiation=postgres",
            Mode::Disable,
            &Roots::Unset,
        );
    }

    #[test]
    fn a_password_may_look_like_a_parameter() {
        let address = read(r"user=u dbname=d host=h password='a sslmode=disable \' b'").unwrap();
        assert_eq!(
            address.config.get_password(),
            Some(&b"a sslmode=disable ' b"[..])
        );
        assert_eq!(address.mode, Mode::Prefer);
        let address = read("postgres://u:x?sslmode=disable@h/d?sslmode=require").unwrap();
        assert_eq!(
            address.config.get_password(),
            Some(&b"x?sslmode=disable"[..])
        );
        assert_eq!(address.mode, Mode::Require);
    }

    #[test]
    fn a_file_of_authorities_can_be_added_to_any_url() {
        let odd = r"/a b/it's\ca&x=?.pem";
        for url in [
            "postgres://u:a?b@h/d?sslmode=require",
            "postgres://u:a?b@h/d?sslmode=verify-full&application_name=x",
            "user=u dbname=d host=h sslmode=verify-ca",
        ] {
            let address = read(&with_root_file(url, odd)).unwrap();
            assert_eq!(address.roots, Roots::File(odd.into()), "{url}");
            assert_eq!(address.config.get_user(), Some("u"));
        }
        assert!(read(&with_root_file("postgres://u@h/d", odd)).is_err());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_without_being_quoted() {
        for (parameters, name) in [
            ("sslmode=hunter2", "sslmode"),
            ("sslmode=allow", "sslmode"),
            ("sslmode=", "sslmode"),
            ("sslmode", "sslmode"),
            ("sslrootcert=/ca.pem", "sslrootcert"),
            ("sslrootcert=/ca.pem&sslmode=prefer", "sslrootcert"),
            ("sslrootcert=system&sslmode=verify-ca", "system"),
            ("sslcert=hunter2", "sslcert"),
            ("sslkey=hunter2", "sslkey"),
            ("sslnegotiation=direct", "sslnegotiation"),
            ("gssencmode=require", "gssencmode"),
            ("channel_binding=require&sslmode=disable", "channel_binding"),
            ("hostaddr=10.0.0.1,10.0.0.2", "hostaddr"),
            ("hunter2=1", "postgres://"),
        ] {
            check_refused(&format!("postgres://u:hunter2@h/d?{parameters}"), name);
        }
        check_refused("hostaddr=10.0.0.1 user=u sslmode=verify-full", "hostaddr");
        for url in ["hunter2", "user='hunter2", "http://u:hunter2@h", "user"] {
            check_refused(url, "postgres://");
        }
        assert!(read("host=h hostaddr=10.0.0.1 user=u sslmode=verify-full").is_ok());
    }
}
