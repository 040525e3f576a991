//! TLS errors in the words of who has to mend them.
//!
//! Owns: the text and the next step for each.
//! Never: decides whether a connection is good.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "rustls may add errors at any time, and most of them need no advice"
)]

use std::time::{Duration, UNIX_EPOCH};

use rustls::pki_types::{UnixTime, pem};
use rustls::{AlertDescription, CertificateError, Error};

use super::{Target, Trust};

pub(super) fn pem(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        other => format!("{other}: expected PEM (-----BEGIN CERTIFICATE-----)"),
    }
}

pub(super) fn session(error: &Error, target: &Target) -> String {
    match error {
        Error::InvalidCertificate(error) => certificate(error, target),
        Error::InvalidMessage(_) => {
            "the answer is not TLS: if the target speaks plain HTTP, use --host http://".to_owned()
        }
        Error::AlertReceived(alert) => refused(*alert),
        Error::PeerIncompatible(problem) => format!(
            "no TLS version or cipher in common ({problem:?}): the target must offer \
             TLS 1.2 or 1.3"
        ),
        other => format!("TLS: {other}"),
    }
}

fn refused(alert: AlertDescription) -> String {
    let next = match alert {
        AlertDescription::CertificateRequired => {
            "it wants a client certificate, which loadtest cannot give: let it in by API key or token"
        }
        AlertDescription::NoApplicationProtocol => {
            "it does not offer http/1.1, the only protocol spoken here"
        }
        AlertDescription::UnrecognisedName => "it does not know the name in --host",
        AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion => {
            "no TLS version or cipher in common: it must offer TLS 1.2 or 1.3"
        }
        _ => "its log may say why",
    };
    format!("the target refused TLS ({alert:?}): {next}")
}

fn certificate(error: &CertificateError, target: &Target) -> String {
    let name = target.name.to_str();
    if let CertificateError::Other(other) = error
        && let Some(webpki::Error::CaUsedAsEndEntity) = other.0.downcast_ref()
    {
        return format!(
            "the certificate of {name} is an authority's own: serve one with \
             basicConstraints=CA:FALSE (openssl req -x509 -addext basicConstraints=critical,CA:FALSE)"
        );
    }
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => match &target.trust {
            Trust::System => format!(
                "no authority that this machine trusts signed the certificate of {name}: \
                 give its authority's certificate with --cacert FILE"
            ),
            Trust::File(path, _) => format!(
                "no authority in --cacert {} signed the certificate of {name}: give the \
                 certificate of the one that did, or let the target send its whole chain",
                path.display()
            ),
        },
        CertificateError::NotValidForName => {
            format!("the certificate is not for {name}: use its name in --host")
        }
        CertificateError::NotValidForNameContext { presented, .. } => format!(
            "the certificate is not for {name} but for {}: use that name in --host",
            names(presented)
        ),
        CertificateError::Expired => format!("the certificate of {name} has expired: renew it"),
        CertificateError::ExpiredContext { not_after, .. } => format!(
            "the certificate of {name} expired on {}: renew it, or set this machine's clock",
            date(*not_after)
        ),
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "the certificate of {name} is not valid before {}: set this machine's clock, or wait",
            date(*not_before)
        ),
        other => format!("the certificate of {name} is not accepted: {other}"),
    }
}

/// As the certificate gives them: `DnsName("localhost")` is for programmers.
fn names(presented: &[String]) -> String {
    let quoted = |name: &String| name.split('"').nth(1).unwrap_or(name).to_owned();
    match presented {
        [] => "no name at all".to_owned(),
        some => some.iter().map(quoted).collect::<Vec<_>>().join(", "),
    }
}

fn date(time: UnixTime) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(time.as_secs());
    humantime::format_rfc3339_seconds(time).to_string()
}
