//! What the host names of a database URL lead to.
//!
//! Owns: the asking of the name service.
//! Never: remembers an answer: the failover of a managed database is a change of
//! its name's address.
//! Bound: `TARGETS_MAX` addresses per name; the caller bounds the time.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use pgtls::Named;
use tokio_postgres::config::Host;

use super::Target;

/// Addresses tried of one name; one that resolves to more is no database's.
const TARGETS_MAX: usize = 32;

/// Tells the addresses of a name; none if it is not known.
pub type Names = dyn Fn(&str) -> Option<Vec<IpAddr>> + Send + Sync;

/// Who is asked what a name leads to.
#[derive(Clone, Default)]
pub enum Resolver {
    /// The operating system: files, DNS, whatever it is set up with.
    #[default]
    System,
    /// A function, where a test or a simulation owns the names.
    Given(Arc<Names>),
}

impl fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::System => "System",
            Self::Given(_) => "Given",
        })
    }
}

impl Resolver {
    /// A host's addresses as of now; `None` if the name cannot be resolved. Asked again
    /// at every attempt: the failover of a managed database is a change of name.
    pub(super) async fn targets(&self, named: &Named) -> Option<Vec<Target>> {
        let target = |ip| Target {
            host: named.host.clone(),
            ip,
            port: named.port,
        };
        match (&named.host, named.ip) {
            (Host::Unix(_), _) => Some(vec![target(None)]),
            (Host::Tcp(_), Some(ip)) => Some(vec![target(Some(ip))]),
            (Host::Tcp(name), None) => {
                let mut targets: Vec<Target> = Vec::new();
                for ip in self.addresses_of(name, named.port).await? {
                    let target = target(Some(ip));
                    if targets.len() < TARGETS_MAX && !targets.contains(&target) {
                        targets.push(target);
                    }
                }
                Some(targets)
            }
        }
    }

    async fn addresses_of(&self, name: &str, port: u16) -> Option<Vec<IpAddr>> {
        match self {
            Self::System => {
                let found = tokio::net::lookup_host((name, port)).await.ok()?;
                Some(found.map(|address| address.ip()).collect())
            }
            Self::Given(ask) => ask(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::Config;

    use super::*;

    #[track_caller]
    fn check(url: &str, expected: &[&str]) {
        let config: Config = url.parse().unwrap();
        let shown: Vec<_> = Named::all(&config)
            .into_iter()
            .map(|named| {
                let target = Target {
                    host: named.host,
                    ip: named.ip,
                    port: named.port,
                };
                target.to_string()
            })
            .collect();
        assert_eq!(shown, expected, "{url}");
    }

    #[test]
    fn every_host_of_a_url_has_its_port() {
        check("postgres://u@a,b/d", &["a:5432", "b:5432"]);
        check("postgres://u@a:1,b:2/d", &["a:1", "b:2"]);
        check("host=a,b port=7 user=u", &["a:7", "b:7"]);
        check("hostaddr=10.0.0.1 user=u", &["10.0.0.1:5432"]);
        check("host=db hostaddr=10.0.0.1 user=u", &["db:5432 (10.0.0.1)"]);
        check("postgres://u@%2Frun%2Fpg:5433/d", &["/run/pg:5433"]);
    }
}
