//! The authorities that may vouch for a server.
//!
//! Owns: reading them, from a PEM file or from this machine.
//! Never: trusts an empty set: every server would be refused, and nobody knew why.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
    load().map(|(roots, _)| roots)
}

/// The authorities of this machine as PEM, for a library that takes nothing else.
///
/// # Errors
/// [`RootsError::System`] if there are none.
pub fn system_pem() -> Result<Vec<u8>, RootsError> {
    let (_, certificates) = load()?;
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(&certificate);
        let mut rest = encoded.as_str();
        while let Some((line, behind)) = rest.split_at_checked(PEM_LINE) {
            text.push_str(line);
            text.push('\n');
            rest = behind;
        }
        text.push_str(rest);
        text.push_str("\n-----END CERTIFICATE-----\n");
    }
    Ok(text.into_bytes())
}

/// RFC 7468, section 2.
const PEM_LINE: usize = 64;

/// What can be used of this machine's authorities.
fn load() -> Result<(RootCertStore, Vec<CertificateDer<'static>>), RootsError> {
    let mut loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some machines carry old certificates that rustls cannot read: the others do.
    loaded
        .certs
        .retain(|certificate| roots.add(certificate.clone()).is_ok());
    if roots.is_empty() {
        let errors: Vec<_> = loaded.errors.iter().map(ToString::to_string).collect();
        return Err(RootsError::System(if errors.is_empty() {
            "no authority found".to_owned()
        } else {
            errors.join("; ")
        }));
    }
    Ok((roots, loaded.certs))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authorities_of_this_machine_are_the_same_as_pem() {
        let Ok(roots) = system() else {
            // A machine that trusts nobody; the text says so.
            let error = system_pem().expect_err("neither").to_string();
            assert!(error.contains("ca-certificates"), "{error}");
            return;
        };
        let text = system_pem().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("system.pem");
        std::fs::write(&path, text).unwrap();
        assert_eq!(file(&path).unwrap().roots, roots.roots);
    }
}
