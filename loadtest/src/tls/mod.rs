//! Whom `https://` trusts, and the TLS sessions made from that.
//!
//! Owns: `--cacert`, the roots, the name that a certificate must be valid for.
//! Never: does I/O on a connection, or lets a certificate through unchecked.
//! Bound: one configuration a run; its store of tickets for resumption is
//! rustls' own, 256 servers of 8 tickets.
//! Invariant: a session checks the chain, the dates and the name of `--host`.

mod explain;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::args::authority;

pub(crate) const SCHEME: &str = "https://";

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Access")]
pub(crate) struct TlsArgs {
    /// For https: trust the authorities in this PEM file, instead of those that this
    /// machine trusts.
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
}

/// Which authorities may vouch for the target.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// Those of this machine; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others.
    System,
    File(PathBuf, Arc<RootCertStore>),
}

impl Trust {
    /// # Errors
    /// Why `--cacert` is of no use.
    pub(crate) fn new(args: &TlsArgs) -> Result<Self, String> {
        let Some(path) = &args.cacert else {
            return Ok(Self::System);
        };
        let roots = read_roots(path)
            .map_err(|problem| format!("--cacert {}: {problem}", path.display()))?;
        Ok(Self::File(path.clone(), Arc::new(roots)))
    }

    /// Authorities that another machine sent along, as PEM.
    ///
    /// # Errors
    /// Why they are of no use.
    pub(crate) fn of_pem(text: &str) -> Result<Self, String> {
        let certificates = CertificateDer::pem_slice_iter(text.as_bytes());
        let roots = roots(certificates).map_err(|problem| format!("--cacert: {problem}"))?;
        Ok(Self::File(PathBuf::from("of the run"), Arc::new(roots)))
    }

    /// What connections to `host` need; none for `http://`.
    ///
    /// # Errors
    /// What is wrong with the host or with the roots of this machine.
    pub(crate) fn client(&self, host: &str) -> Result<Option<TlsClient>, String> {
        let authority = authority(host)?;
        if !host.starts_with(SCHEME) {
            return match self {
                Self::System => Ok(None),
                Self::File(..) => Err(format!(
                    "--cacert says whom to trust, but --host {host} is not encrypted: \
                     use https:// or leave --cacert out"
                )),
            };
        }
        let name = ServerName::try_from(host_name(authority))
            .map_err(|error| format!("--host {host}: {error}"))?
            .to_owned();
        let roots = match self {
            Self::System => Arc::new(system_roots()?),
            Self::File(_, roots) => Arc::clone(roots),
        };
        let provider = Arc::new(ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(TlsClient {
            config: Arc::new(config),
            target: Arc::new(Target {
                name,
                trust: self.clone(),
            }),
        }))
    }
}

/// Without the port, and without the brackets of an IPv6 address.
fn host_name(authority: &str) -> &str {
    if let Some((address, _)) = authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        return address;
    }
    authority
        .rsplit_once(':')
        .map_or(authority, |(name, _)| name)
}

fn read_roots(path: &Path) -> Result<RootCertStore, String> {
    roots(CertificateDer::pem_file_iter(path).map_err(|error| explain::pem(&error))?)
}

fn roots<'a>(
    certificates: impl Iterator<Item = Result<CertificateDer<'a>, pem::Error>>,
) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| explain::pem(&error))?;
        roots
            .add(certificate)
            .map_err(|error| format!("a certificate that cannot be an authority: {error}"))?;
    }
    if roots.is_empty() {
        return Err("no certificate in it: expected PEM (-----BEGIN CERTIFICATE-----)".to_owned());
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, String> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some machines carry old certificates that rustls cannot read: the others do.
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        let errors: Vec<_> = loaded.errors.iter().map(ToString::to_string).collect();
        let cause = if errors.is_empty() {
            "none found".to_owned()
        } else {
            errors.join("; ")
        };
        return Err(format!(
            "this machine has no trusted authorities ({cause}): \
             install ca-certificates or give --cacert FILE"
        ));
    }
    Ok(roots)
}

/// Who is expected at the other end, and who may vouch for that.
#[derive(Debug)]
struct Target {
    name: ServerName<'static>,
    trust: Trust,
}

/// Makes sessions with one target; those that it makes share their tickets.
#[derive(Clone)]
pub(crate) struct TlsClient {
    config: Arc<ClientConfig>,
    target: Arc<Target>,
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient")
            .field("name", &self.target.name)
            .finish_non_exhaustive()
    }
}

impl TlsClient {
    /// The PEM of `--cacert`, for another machine; none are its own authorities.
    ///
    /// # Errors
    /// Why the file cannot be read.
    pub(crate) fn authorities(&self) -> Result<Option<String>, String> {
        match &self.target.trust {
            Trust::System => Ok(None),
            Trust::File(path, _) => std::fs::read_to_string(path)
                .map(Some)
                .map_err(|error| format!("--cacert {}: {error}", path.display())),
        }
    }

    pub(crate) fn session(&self) -> std::io::Result<ClientConnection> {
        ClientConnection::new(Arc::clone(&self.config), self.target.name.clone())
            .map_err(|error| self.error(&error))
    }

    /// The error in words, with the next step. Its kind is `InvalidData`, which no
    /// plain socket gives.
    pub(crate) fn error(&self, error: &rustls::Error) -> std::io::Error {
        let text = explain::session(error, &self.target);
        std::io::Error::new(std::io::ErrorKind::InvalidData, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(args: &TlsArgs, host: &str, part: &str) {
        let message = Trust::new(args)
            .and_then(|trust| trust.client(host).map(drop))
            .expect_err(host);
        assert!(message.contains(part), "{message}");
    }

    #[test]
    fn the_name_is_that_of_the_host() {
        for (authority, expected) in [
            ("engine.example:8443", "engine.example"),
            ("engine.example", "engine.example"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]:443", "::1"),
            ("[::1]", "::1"),
        ] {
            assert_eq!(host_name(authority), expected);
            assert!(ServerName::try_from(expected).is_ok());
        }
    }

    #[test]
    fn a_ca_file_must_hold_a_certificate_and_be_needed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let args = TlsArgs {
            cacert: Some(file.clone()),
        };
        check_refused(&args, "https://localhost:1", "ca.pem");
        for text in [
            "",
            "no PEM",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        ] {
            std::fs::write(&file, text).unwrap();
            check_refused(&args, "https://localhost:1", "-----BEGIN CERTIFICATE-----");
        }
        std::fs::write(
            &file,
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        check_refused(&args, "https://localhost:1", "authority");
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        check_refused(&args, "http://localhost:1", "not encrypted");
        check_refused(&args, "https://a_b*c:1", "--host https://a_b*c:1");
        let trust = Trust::new(&args).unwrap();
        assert!(trust.client("https://localhost:1").unwrap().is_some());
        let none = Trust::new(&TlsArgs::default()).unwrap();
        assert!(none.client("http://localhost:1").unwrap().is_none());
    }
}
