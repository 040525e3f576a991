//! Who may ask: the page itself, and programs on purpose.
//!
//! Owns: the check of every request before anything is done for it.
//! Never: lets a page of another site start load, neither by sending a request
//! (its Origin tells) nor by letting its own name mean this address (the Host
//! header tells: DNS rebinding).
//! Invariant: a request that changes something is JSON, which no form can send.

use std::net::IpAddr;

use hyper::header::{self, HeaderMap};
use hyper::{Method, StatusCode};

use super::problem::Problem;

/// Names by which the page is reached, besides this machine's own.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    hosts: Vec<String>,
}

impl Guard {
    pub(crate) fn new(hosts: &[String]) -> Self {
        Self {
            hosts: hosts.iter().map(|host| host.to_lowercase()).collect(),
        }
    }

    /// # Errors
    /// 403 for a stranger, 415 for a change that is not JSON.
    pub(crate) fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
        let text = |name: header::HeaderName| {
            let value = headers.get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).to_lowercase())
        };
        let host = text(header::HOST).unwrap_or_default();
        if !self.knows(&host) {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "foreign_host",
                format!(
                    "the Host header says {host:?}, which is not this machine: open the page by its \
                     address, or start it with --web-host"
                ),
            ));
        }
        if let Some(origin) = text(header::ORIGIN) {
            let own = ["http://", "https://"]
                .iter()
                .any(|scheme| origin.strip_prefix(scheme) == Some(host.as_str()));
            if !own {
                return Err(Problem::new(
                    StatusCode::FORBIDDEN,
                    "foreign_origin",
                    format!("the request comes from a page of {origin}, not from this one"),
                ));
            }
        }
        let json = text(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.split(';').next().map(str::trim) == Some("application/json"));
        if *method == Method::POST && !json {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "not_json",
                "expected Content-Type: application/json",
            ));
        }
        Ok(())
    }

    /// A number cannot be rebound, so this machine's own is enough with any port.
    fn knows(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            Some(_) | None => host,
        };
        let number = name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost"
            || number.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
            || self.hosts.iter().any(|own| own == name || own == host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pairs: &[(&str, &str)], expected: Option<u16>) {
        let guard = Guard::new(&["LoadGen.example".to_owned()]);
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = header::HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.insert(name, value.parse().unwrap());
        }
        let refused = guard.check(&Method::POST, &headers).err();
        assert_eq!(
            refused.map(|problem| problem.status.as_u16()),
            expected,
            "{pairs:?}"
        );
    }

    #[test]
    fn only_this_machine_and_its_names_are_hosts() {
        let json = ("content-type", "application/json; charset=utf-8");
        for good in [
            "127.0.0.1:8089",
            "127.0.0.1",
            "localhost:9",
            "LOCALHOST",
            "[::1]:8089",
            "loadgen.example:8089",
        ] {
            check(&[("host", good), json], None);
        }
        for bad in [
            "",
            "evil.example:8089",
            "127.0.0.1.evil.example",
            "localhost.evil.example:8089",
            "10.0.0.1:8089",
            "loadgen.example.evil",
            "[::2]:8089",
        ] {
            check(&[("host", bad), json], Some(403));
        }
        check(&[json], Some(403));
    }

    #[test]
    fn another_page_cannot_send_anything() {
        let (host, json) = (
            ("host", "127.0.0.1:8089"),
            ("content-type", "application/json"),
        );
        check(&[host, json, ("origin", "http://127.0.0.1:8089")], None);
        for bad in [
            "http://evil.example",
            "null",
            "http://127.0.0.1:3000",
            "http://localhost:8089",
            "",
        ] {
            check(&[host, json, ("origin", bad)], Some(403));
        }
    }

    #[test]
    fn what_a_form_can_send_is_refused() {
        let host = ("host", "127.0.0.1:8089");
        check(&[host], Some(415));
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonx",
        ] {
            check(&[host, ("content-type", kind)], Some(415));
        }
    }
}
