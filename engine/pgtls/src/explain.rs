//! TLS errors in the words of who has to mend them.
//!
//! Owns: the text and the next step for each.
//! Never: decides whether a connection is good.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "rustls may add errors at any time, and most of them need no advice"
)]

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

use super::{Roots, TlsError};

pub(super) fn handshake(error: io::Error, host: &str, roots: &Roots) -> TlsError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    match tls {
        Some(tls) => TlsError::Handshake(words(tls, host, roots)),
        None => TlsError::Io(error),
    }
}

fn words(error: &Error, host: &str, roots: &Roots) -> String {
    match error {
        Error::InvalidCertificate(error) => certificate(error, host, roots),
        Error::AlertReceived(alert) => {
            let next = match alert {
                AlertDescription::CertificateRequired => {
                    "it wants a client certificate, which is not offered: let the role in by password"
                }
                AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion => {
                    "no TLS version or cipher in common: it must offer TLS 1.2 or 1.3"
                }
                _ => "its log may say why",
            };
            format!("the server refused TLS ({alert:?}): {next}")
        }
        Error::PeerIncompatible(problem) => format!(
            "no TLS version or cipher in common ({problem:?}): the server must offer TLS 1.2 or 1.3"
        ),
        other => format!("TLS failed: {other}"),
    }
}

fn certificate(error: &CertificateError, host: &str, roots: &Roots) -> String {
    if let CertificateError::Other(other) = error
        && let Some(webpki::Error::CaUsedAsEndEntity) = other.0.downcast_ref()
    {
        return format!(
            "the certificate of {host} is an authority's own: serve one with \
             basicConstraints=CA:FALSE (openssl req -x509 -addext basicConstraints=critical,CA:FALSE)"
        );
    }
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => match roots {
            Roots::File(path) => format!(
                "no authority in {} signed the certificate of {host}: name a file with the one \
                 that did (sslrootcert), or let the server send its whole chain",
                path.display()
            ),
            Roots::System | Roots::Unset => format!(
                "no authority that this machine trusts signed the certificate of {host}: name a \
                 file with the one that did (sslrootcert)"
            ),
        },
        CertificateError::NotValidForName => {
            format!("the certificate is not for {host}: use the name it is for")
        }
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            format!(
                "the certificate of {host} names nobody (it has no subjectAltName): reissue it \
                 with one"
            )
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let next = match roots {
                Roots::File(_) => " (sslmode=verify-ca would not look at it)",
                // Without a file it would take any public certificate.
                Roots::System | Roots::Unset => "",
            };
            let names = names(presented);
            format!("the certificate is not for {host} but for {names}: use that name{next}")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("the certificate of {host} has expired: renew it, or set this machine's clock")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("the certificate of {host} is not valid yet: set this machine's clock, or wait")
        }
        other => format!("the certificate of {host} is not accepted: {other}"),
    }
}

/// As the certificate gives them: `DnsName("localhost")` is for programmers.
fn names(presented: &[String]) -> String {
    let quoted = |name: &String| name.split('"').nth(1).unwrap_or(name).to_owned();
    presented.iter().map(quoted).collect::<Vec<_>>().join(", ")
}
