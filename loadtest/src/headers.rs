//! Headers that a protected engine wants with every request.
//!
//! Owns: `--header`, `--api-key-file` and `--token-file`.
//! Never: shows a value: reports, logs and `Debug` get the names only.
//! Bound: `HEADERS_BYTES_MAX` for all of them together.
//! Invariant: what it writes cannot end a line early or contradict the request.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

/// Half of what the engine takes for all headers.
const HEADERS_BYTES_MAX: usize = 8 * 1024;
/// Written by the request itself.
const RESERVED: [&str; 6] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "idempotency-key",
    "transfer-encoding",
];

#[derive(Clone, Default, Args)]
#[command(next_help_heading = "Access")]
pub(crate) struct HeaderArgs {
    /// A header to send with every request; may be repeated. Prefer a file for
    /// secrets: other users of this machine can see arguments.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// File with an API key, sent as X-Api-Key.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// File with a bearer token, sent as Authorization: Bearer TOKEN.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl fmt::Debug for HeaderArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeaderArgs").finish_non_exhaustive()
    }
}

/// Header lines as they are sent, each with its line end.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Headers {
    lines: String,
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.lines.lines().filter_map(|line| line.split(':').next());
        f.debug_list().entries(names).finish()
    }
}

impl From<Headers> for String {
    fn from(headers: Headers) -> Self {
        headers.lines
    }
}

impl TryFrom<String> for Headers {
    type Error = String;

    fn try_from(lines: String) -> Result<Self, String> {
        let mut headers = Self::default();
        for line in lines.lines() {
            let (name, value) = line
                .split_once(':')
                .ok_or("headers: expected NAME: VALUE")?;
            headers.push("headers", name, "", value.trim())?;
        }
        Ok(headers)
    }
}

impl Headers {
    /// # Errors
    /// Which flag is wrong, without its value.
    pub(crate) fn new(args: &HeaderArgs) -> Result<Self, String> {
        let mut headers = Self::default();
        for (index, header) in args.headers.iter().enumerate() {
            let flag = format!("--header number {}", index + 1);
            let (name, value) = header
                .split_once(':')
                .ok_or_else(|| format!("{flag}: expected NAME: VALUE"))?;
            headers.push(&flag, name, "", value.trim())?;
        }
        if let Some(path) = &args.api_key_file {
            let key = read_secret("--api-key-file", path)?;
            headers.push("--api-key-file", "X-Api-Key", "", key.trim())?;
        }
        if let Some(path) = &args.token_file {
            let token = read_secret("--token-file", path)?;
            headers.push("--token-file", "Authorization", "Bearer ", token.trim())?;
        }
        Ok(headers)
    }

    #[cfg(test)]
    pub(crate) fn of(name: &str, value: &str) -> Self {
        Self {
            lines: format!("{name}: {value}\r\n"),
        }
    }

    /// The lines, ready to stand in a request's head.
    pub(crate) fn lines(&self) -> &str {
        &self.lines
    }

    fn push(&mut self, flag: &str, name: &str, scheme: &str, value: &str) -> Result<(), String> {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(token) {
            return Err(format!("{flag}: expected NAME: VALUE with a header name"));
        }
        if RESERVED
            .iter()
            .any(|reserved| name.eq_ignore_ascii_case(reserved))
        {
            return Err(format!("{flag}: {name} is written by the request itself"));
        }
        if self.has(name) {
            return Err(format!("{flag}: {name} is given twice"));
        }
        let visible = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        if value.is_empty() || !value.bytes().all(visible) {
            return Err(format!("{flag}: expected one line of visible ASCII"));
        }
        self.lines.push_str(&format!("{name}: {scheme}{value}\r\n"));
        if self.lines.len() > HEADERS_BYTES_MAX {
            return Err(format!(
                "{flag}: expected at most {HEADERS_BYTES_MAX} bytes of headers"
            ));
        }
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        let names = self.lines.lines().filter_map(|line| line.split(':').next());
        names
            .into_iter()
            .any(|given| given.eq_ignore_ascii_case(name))
    }
}

fn read_secret(flag: &str, path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{flag} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> Result<Headers, String> {
        Headers::new(&HeaderArgs {
            headers: lines.iter().map(|&line| line.to_owned()).collect(),
            ..HeaderArgs::default()
        })
    }

    #[test]
    fn headers_become_lines_and_files_become_credentials() {
        let name = format!("loadtest-secret-{}", std::process::id());
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, "s3cret\n").unwrap();
        let args = HeaderArgs {
            headers: vec!["X-Tenant:  blue ".to_owned()],
            api_key_file: Some(file.clone()),
            token_file: Some(file.clone()),
        };
        let headers = Headers::new(&args);
        std::fs::remove_file(&file).unwrap();
        let headers = headers.unwrap();
        assert_eq!(
            headers.lines(),
            "X-Tenant: blue\r\nX-Api-Key: s3cret\r\nAuthorization: Bearer s3cret\r\n"
        );
        assert!(!format!("{headers:?} {args:?}").contains("s3cret"));
    }

    #[test]
    fn headers_travel_and_are_checked_when_they_arrive() {
        let lines = "X-Tenant: blue\r\nAuthorization: Bearer a:b c\r\n";
        let text = serde_json::to_string(&Headers::try_from(lines.to_owned()).unwrap()).unwrap();
        let read: Headers = serde_json::from_str(&text).unwrap();
        assert_eq!(read.lines(), lines);
        for bad in ["Host: x", "x", "A: b\r\na: c", "A: \u{1}"] {
            assert!(Headers::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_would_break_a_request_is_refused_without_its_value() {
        for bad in [
            "secret",
            ": secret",
            "A b: secret",
            "A: secret\r\nB: secret",
            "A:",
            "host: secret",
            "Idempotency-Key: secret",
            "A: s\u{e9}cret",
        ] {
            let message = headers(&[bad]).unwrap_err();
            assert!(message.starts_with("--header number 1"), "{message}");
            assert!(!message.contains("secret"), "{message}");
        }
        assert!(headers(&["A: 1", "a: 2"]).unwrap_err().contains("twice"));
        let long = format!("A: {}", "x".repeat(HEADERS_BYTES_MAX));
        assert!(headers(&[&long]).unwrap_err().contains("at most"));
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let args = HeaderArgs {
            token_file: Some("/nonexistent/token".into()),
            ..HeaderArgs::default()
        };
        let message = Headers::new(&args).unwrap_err();
        assert!(message.contains("--token-file /nonexistent/token"));
    }
}
