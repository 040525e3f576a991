//! Every mode against servers good and bad, over a pipe in memory.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::TlsAcceptor;

use super::{Database, MaybeEncrypted, Mode, Roots, SSL_REQUEST, Tls, TlsError};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        std::fs::write(folder.path().join("ca.pem"), pem).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            folder,
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn server(&self, name: &str, last_year: i32) -> TlsAcceptor {
        self.server_of(vec![name.to_owned()], last_year)
    }

    fn server_of(&self, names: Vec<String>, last_year: i32) -> TlsAcceptor {
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(last_year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Answers the question with that byte, and goes over to TLS after an `S`.
async fn serve(mut stream: DuplexStream, answer: u8, acceptor: TlsAcceptor) -> Vec<u8> {
    let mut request = [0; 8];
    stream.read_exact(&mut request).await.unwrap();
    assert_eq!(request, SSL_REQUEST);
    stream.write_all(&[answer]).await.unwrap();
    let mut said = Vec::new();
    if answer == b'S' {
        if let Ok(mut stream) = acceptor.accept(stream).await {
            // Without a farewell the end is an error; what was said counts.
            drop(stream.read_to_end(&mut said).await);
        }
    } else {
        stream.read_to_end(&mut said).await.unwrap();
    }
    said
}

async fn meet(
    tls: &Tls,
    host: &str,
    answer: u8,
    acceptor: TlsAcceptor,
) -> (Result<bool, TlsError>, Vec<u8>) {
    let (ours, theirs) = duplex(4_096);
    let server = tokio::spawn(serve(theirs, answer, acceptor));
    let mut secured = tls.secure(ours, host).await;
    if let Ok(stream) = &mut secured {
        stream.write_all(b"hunter2").await.unwrap();
        stream.shutdown().await.unwrap();
    }
    let is_encrypted = |stream: &_| matches!(stream, MaybeEncrypted::Encrypted(_));
    match secured {
        // Open until the server is done: its tickets come after the handshake.
        Ok(stream) => (Ok(is_encrypted(&stream)), server.await.unwrap()),
        Err(error) => (Err(error), server.await.unwrap()),
    }
}

#[tokio::test]
async fn each_mode_checks_what_libpq_checks() {
    let (ours, strange) = (Authority::new(), Authority::new());
    let file = Roots::File(ours.file());
    let unset = Roots::Unset;
    let good = ours.server("db.example", 4_000);
    let other_name = ours.server("other.example", 4_000);
    let expired = ours.server("db.example", 2_001);
    let unknown = strange.server("db.example", 4_000);
    for (mode, roots, [is_good, is_other_name, is_expired, is_unknown]) in [
        (Mode::Prefer, &unset, [true, true, true, true]),
        (Mode::Require, &unset, [true, true, true, true]),
        (Mode::Require, &file, [true, true, false, false]),
        (Mode::VerifyCa, &file, [true, true, false, false]),
        (Mode::VerifyFull, &file, [true, false, false, false]),
    ] {
        let tls = Tls::new(mode, roots.clone()).unwrap();
        for (server, accepted, why) in [
            (&good, is_good, ""),
            (&other_name, is_other_name, "other.example"),
            (&expired, is_expired, "expired"),
            (&unknown, is_unknown, "ca.pem"),
        ] {
            let (met, said) = meet(&tls, "db.example", b'S', server.clone()).await;
            match met {
                Ok(encrypted) => {
                    assert!(accepted && encrypted, "{mode:?} {roots:?} {why}");
                    assert_eq!(said, b"hunter2");
                }
                Err(error) => {
                    assert!(!accepted, "{mode:?} {roots:?} {why}: {error}");
                    assert!(error.to_string().contains(why), "{error}");
                    assert_eq!(said, b"", "nothing is sent to the wrong server");
                }
            }
        }
    }
}

#[tokio::test]
async fn only_prefer_goes_on_without_tls() {
    let authority = Authority::new();
    let acceptor = authority.server("db.example", 4_000);
    for (mode, roots) in [
        (Mode::Require, Roots::Unset),
        (Mode::VerifyCa, Roots::File(authority.file())),
        (Mode::VerifyFull, Roots::File(authority.file())),
    ] {
        let tls = Tls::new(mode, roots).unwrap();
        let (met, said) = meet(&tls, "db.example", b'N', acceptor.clone()).await;
        assert!(matches!(met, Err(TlsError::NotOffered)), "{mode:?} {met:?}");
        assert_eq!(said, b"", "{mode:?}");
    }
    let prefer = Tls::new(Mode::Prefer, Roots::Unset).unwrap();
    let (met, said) = meet(&prefer, "db.example", b'N', acceptor.clone()).await;
    assert!(matches!(met, Ok(false)), "{met:?}");
    assert_eq!(said, b"hunter2");
    for (answer, expected) in [(b'E', "with an error"), (b'H', "not PostgreSQL")] {
        let (met, said) = meet(&prefer, "db.example", answer, acceptor.clone()).await;
        let error = met.expect_err("no answer that anybody understands");
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(said, b"");
    }
}

#[tokio::test]
async fn a_server_is_known_by_its_address_too() {
    let authority = Authority::new();
    let tls = Tls::new(Mode::VerifyFull, Roots::File(authority.file())).unwrap();
    let acceptor = authority.server("127.0.0.1", 4_000);
    let (met, _) = meet(&tls, "127.0.0.1", b'S', acceptor.clone()).await;
    assert!(matches!(met, Ok(true)), "{met:?}");
    let (met, _) = meet(&tls, "127.0.0.2", b'S', acceptor).await;
    assert!(met.is_err());
}

#[tokio::test]
async fn a_certificate_without_names_is_told_from_one_of_another_name() {
    let authority = Authority::new();
    let tls = Tls::new(Mode::VerifyFull, Roots::File(authority.file())).unwrap();
    let other = authority.server("other.example", 4_000);
    for (server, expected) in [
        (authority.server_of(Vec::new(), 4_000), "no subjectAltName"),
        (other, "other.example: use that name (sslmode=verify-ca"),
    ] {
        let (met, said) = meet(&tls, "db.example", b'S', server).await;
        let error = met.expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(said, b"");
    }
}

#[test]
fn verify_ca_needs_authorities_of_its_own() {
    let error = Tls::new(Mode::VerifyCa, Roots::Unset).expect_err("any certificate would do");
    let error = error.to_string();
    assert!(error.contains("needs sslrootcert"), "{error}");
    let url = "postgres://u:hunter2@h/d?sslmode=verify-ca";
    let error = url.parse::<Database>().expect_err("as well").to_string();
    assert!(error.contains("--database-ca-file"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn a_file_of_authorities_must_hold_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("roots.pem");
    let check = |expected: &str| {
        let error = Tls::new(Mode::VerifyFull, Roots::File(file.clone())).expect_err(expected);
        let error = error.to_string();
        assert!(
            error.contains("roots.pem") && error.contains(expected),
            "{error}"
        );
    };
    check("No such file");
    for text in [
        "",
        "no PEM",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        std::fs::write(&file, text).unwrap();
        check("-----BEGIN CERTIFICATE-----");
    }
}
