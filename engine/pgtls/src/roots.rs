//! The authorities that may vouch for a server.
//!
//! Owns: reading them, from a PEM file or from this machine.
//! Never: trusts an empty set: every server would be refused, and nobody knew why.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};

use super::Roots;

/// Why there are none.
#[derive(Debug)]
pub enum RootsError {
    /// The file cannot be read.
    File(PathBuf, std::io::Error),
    /// No certificate in the file, or a broken one.
    Content(PathBuf, String),
    /// This machine trusts nobody.
    System(String),
    /// `sslmode=verify-ca` without authorities of its own.
    Unnamed,
}

impl fmt::Display for RootsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(formatter, "{}: {error}", path.display()),
            Self::Content(path, why) => write!(
                formatter,
                "{}: {why}; it must be PEM (-----BEGIN CERTIFICATE-----)",
                path.display()
            ),
            Self::System(why) => write!(
                formatter,
                "this machine trusts nobody ({why}): install ca-certificates, or name a file \
                 of authorities (sslrootcert)"
            ),
            Self::Unnamed => formatter.write_str(
                "sslmode=verify-ca needs sslrootcert=FILE (or --database-ca-file): it looks at \
                 no name, so any public certificate would do; or use sslmode=verify-full",
            ),
        }
    }
}

impl std::error::Error for RootsError {}

/// None: nobody need vouch.
pub(super) fn read(roots: &Roots) -> Result<Option<RootCertStore>, RootsError> {
    match roots {
        Roots::Unset => Ok(None),
        Roots::System => system().map(Some),
        Roots::File(path) => file(path).map(Some),
    }
}

pub(super) fn system() -> Result<RootCertStore, RootsError> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some machines carry old certificates that rustls cannot read: the others do.
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        let errors: Vec<_> = loaded.errors.iter().map(ToString::to_string).collect();
        return Err(RootsError::System(if errors.is_empty() {
            "no authority found".to_owned()
        } else {
            errors.join("; ")
        }));
    }
    Ok(roots)
}

fn file(path: &Path) -> Result<RootCertStore, RootsError> {
    let text = std::fs::read(path).map_err(|error| RootsError::File(path.to_owned(), error))?;
    let content = |why: String| RootsError::Content(path.to_owned(), why);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error: pem::Error| content(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| content(format!("a certificate that is no authority's: {error}")))?;
    }
    if roots.is_empty() {
        return Err(content("no certificate in it".to_owned()));
    }
    Ok(roots)
}
