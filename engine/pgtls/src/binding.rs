//! What ties a password to the session it is given in (RFC 5929, section 4.1).
//!
//! Owns: `tls-server-end-point`, the hash of the server's certificate.
//! Never: guesses: a certificate of an unusual kind has none, and the sign-in
//! then goes without.

use ring::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use rustls::ClientConnection;

/// Of the session's server; none if its certificate's signature has no one hash.
#[must_use]
pub fn server_end_point(session: &ClientConnection) -> Option<Vec<u8>> {
    let certificate = session.peer_certificates()?.first()?;
    of_certificate(certificate)
}

/// The signature's own hash function, but SHA-256 in place of MD5 and SHA-1.
fn of_certificate(der: &[u8]) -> Option<Vec<u8>> {
    Some(digest(hash_of(signature_oid(der)?)?, der).as_ref().to_vec())
}

/// Object ids without tag and length: RFC 4055 and 8017 for RSA, RFC 5758 for ECDSA.
fn hash_of(oid: &[u8]) -> Option<&'static Algorithm> {
    const RSA: [u8; 8] = [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01];
    const ECDSA: [u8; 7] = [0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03];
    const ECDSA_SHA1: [u8; 7] = [0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x01];
    let (last, family) = oid.split_last()?;
    match (family, last) {
        _ if oid == ECDSA_SHA1 => Some(&SHA256),
        // MD5, SHA-1, SHA-256.
        (family, 4 | 5 | 11) if family == RSA => Some(&SHA256),
        (family, 12) if family == RSA => Some(&SHA384),
        (family, 13) if family == RSA => Some(&SHA512),
        (family, 2) if family == ECDSA => Some(&SHA256),
        (family, 3) if family == ECDSA => Some(&SHA384),
        (family, 4) if family == ECDSA => Some(&SHA512),
        _ => None,
    }
}

/// `Certificate ::= SEQUENCE { tbs SEQUENCE, algorithm SEQUENCE { OID, ... }, ... }`
/// (RFC 5280, section 4.1).
fn signature_oid(der: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const OBJECT_ID: u8 = 0x06;
    let (certificate, _) = element(SEQUENCE, der)?;
    let (_, behind_tbs) = element(SEQUENCE, certificate)?;
    let (algorithm, _) = element(SEQUENCE, behind_tbs)?;
    element(OBJECT_ID, algorithm).map(|(oid, _)| oid)
}

/// The content of the first element, which must be of that kind, and what follows.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
        let add = |length: usize, byte: &u8| {
            let length = length.checked_mul(256)?;
            length.checked_add(usize::from(*byte))
        };
        (bytes.iter().try_fold(0, add)?, rest)
    };
    let content = rest.split_at_checked(length)?;
    (found == tag).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_signature() {
        for (algorithm, bytes) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, 32),
            (&rcgen::PKCS_ECDSA_P384_SHA384, 48),
        ] {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let params = rcgen::CertificateParams::new(vec!["db".to_owned()]).unwrap();
            let certificate = params.self_signed(&key).unwrap();
            let hash = of_certificate(certificate.der()).unwrap();
            assert_eq!(hash.len(), bytes);
        }
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        assert_eq!(of_certificate(certificate.der()), None);
    }

    #[test]
    fn nonsense_has_no_hash() {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        for cut in 0..der.len() {
            assert_eq!(of_certificate(&der[..cut]), None, "cut at {cut}");
        }
        assert_eq!(element(0x30, &[0x30, 0xFF, 1, 2]), None);
        assert_eq!(
            element(0x30, &[0x30, 0x89, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
            None
        );
    }
}
