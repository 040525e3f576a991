//! Whether a server is who it should be.
//!
//! Owns: what each mode checks of a certificate.
//! Never: skips the proof that the server holds the certificate's key.
//! Invariant: whoever gave authorities has the chain and the dates checked.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::roots::{self, RootsError};
use super::{Mode, Roots};

/// What sessions of that mode are made with.
pub(super) fn client(mode: Mode, named: &Roots) -> Result<ClientConfig, RootsError> {
    let provider = Arc::new(ring::default_provider());
    let roots = match (roots::read(named)?, mode) {
        (None, Mode::VerifyFull) => Some(roots::system()?),
        // As libpq: everybody can have a certificate for some name.
        (None, Mode::VerifyCa) => return Err(RootsError::Unnamed),
        (read, _) => read,
    };
    let verifier = verifier(mode, roots, &provider)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has ciphers for TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(config)
}

fn verifier(
    mode: Mode,
    roots: Option<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, RootsError> {
    match (mode, roots) {
        (Mode::VerifyFull, Some(roots)) => {
            let built =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                    .build();
            // It fails only for want of roots, and there is one at least.
            built
                .map(|verifier| -> Arc<dyn ServerCertVerifier> { verifier })
                .map_err(|error| RootsError::System(error.to_string()))
        }
        (_, roots) => Ok(Arc::new(AnyName {
            roots,
            algorithms: provider.signature_verification_algorithms,
        })),
    }
}

/// Takes a certificate for whatever name; without roots, anybody's.
#[derive(Debug)]
struct AnyName {
    roots: Option<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(end_entity)?,
                roots,
                intermediates,
                now,
                self.algorithms.all,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
