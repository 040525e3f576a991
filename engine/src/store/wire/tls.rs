//! TLS over the committer's socket.
//!
//! Owns: the session's state, and what is encrypted but not yet sent or decrypted.
//! Never: negotiates (that is `pgtls`), waits inside a write, or hands out a byte
//! of a record that did not check out.
//! Bound: `ENCRYPTED_BYTES_MAX` waiting to be sent; one read's worth received.
//! Invariant: between two calls nothing decrypted stays behind, so whoever waits
//! for the socket does not wait for bytes that are here already.
//!
//! Why not tokio-rustls' stream here: a committer writes as much as the socket
//! takes, reads what is there, and waits for either, which poll functions with a
//! waker each cannot say. Its handshake is used, and taken apart afterwards.

use std::fmt;
use std::io::{self, BufRead as _, IoSlice, Write as _};

use bytes::{Buf, BytesMut};
use rustls::ClientConnection;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// As much as one system call hands to the socket.
const ENCRYPTED_BYTES_MAX: usize = 256 * 1024;
/// As `READ_BYTES` of the connection: one system call for a usual answer.
const READ_BYTES: usize = 64 * 1024;

pub(super) struct TlsSocket {
    socket: TcpStream,
    session: ClientConnection,
    /// Received and not yet decrypted; empty between two calls.
    encrypted: BytesMut,
}

impl fmt::Debug for TlsSocket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TlsSocket")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl TlsSocket {
    /// The handshake is over.
    pub(super) fn new(stream: TlsStream<TcpStream>) -> Self {
        let (socket, mut session) = stream.into_inner();
        session.set_buffer_limit(Some(ENCRYPTED_BYTES_MAX));
        Self {
            socket,
            session,
            encrypted: BytesMut::new(),
        }
    }

    pub(super) const fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(super) const fn session(&self) -> &ClientConnection {
        &self.session
    }

    /// Encrypts what there is room for and sends what the socket takes.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.session.writer().write(bytes)?;
        match self.try_flush() {
            Err(error) if taken == 0 || error.kind() != io::ErrorKind::WouldBlock => Err(error),
            // What is encrypted leaves with the next flush.
            Ok(()) | Err(_) => Ok(taken),
        }
    }

    /// Whether something is encrypted and not sent.
    pub(super) fn is_behind(&self) -> bool {
        self.session.wants_write()
    }

    pub(super) fn try_flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut Sender(&self.socket))?;
        }
        Ok(())
    }

    /// Decrypts what the socket has; 0 at the session's end.
    pub(super) fn try_read_buf(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        loop {
            // Also what came with the handshake.
            if let Some(taken) = self.take_decrypted(buffer)? {
                return Ok(taken);
            }
            self.encrypted.reserve(READ_BYTES);
            if self.socket.try_read_buf(&mut self.encrypted)? == 0 {
                // It takes a read of nothing for the socket's end.
                self.session.read_tls(&mut io::empty())?;
                continue;
            }
            let mut taken = 0;
            while !self.encrypted.is_empty() {
                let read = self.session.read_tls(&mut &self.encrypted[..])?;
                if read == 0 {
                    // Behind the server's farewell nothing counts.
                    self.encrypted.clear();
                }
                self.encrypted.advance(read);
                self.session
                    .process_new_packets()
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                // At once: the session refuses more than 16 KiB undelivered.
                taken += self.take_decrypted(buffer)?.unwrap_or(0);
            }
            if 0 < taken {
                return Ok(taken);
            }
        }
    }

    /// None: there will be more, later. An end without a farewell is an end: a
    /// message that it cuts off is missed by who reads it.
    fn take_decrypted(&mut self, buffer: &mut BytesMut) -> io::Result<Option<usize>> {
        let mut taken = 0;
        let mut reader = self.session.reader();
        loop {
            match reader.fill_buf() {
                Ok([]) => return Ok(Some(taken)),
                Ok(chunk) => {
                    let length = chunk.len();
                    buffer.extend_from_slice(chunk);
                    reader.consume(length);
                    taken += length;
                }
                Err(error) => {
                    return match error.kind() {
                        io::ErrorKind::WouldBlock => Ok((0 < taken).then_some(taken)),
                        io::ErrorKind::UnexpectedEof => Ok(Some(taken)),
                        _ => Err(error),
                    };
                }
            }
        }
    }

    /// Waits for bytes and decrypts them. Cancelling it loses nothing.
    pub(super) async fn read_buf(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        loop {
            match self.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            if self.is_behind() {
                // An answer to the server's change of keys.
                match self.try_flush() {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
            self.socket.readable().await?;
        }
    }
}

impl Drop for TlsSocket {
    fn drop(&mut self) {
        // What is encrypted and not sent was given up by who wrote it: a COMMIT that
        // was reported lost must not follow now.
        if self.is_behind() {
            return;
        }
        // Without a farewell the server logs an attack that was none. If the socket
        // takes nothing now, then so be it.
        self.session.send_close_notify();
        drop(self.try_flush());
    }
}

/// The socket, for who writes without waiting.
struct Sender<'a>(&'a TcpStream);

impl io::Write for Sender<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pgtls::{Database, MaybeEncrypted};
    use rcgen::{CertificateParams, KeyPair};
    use rustls::ServerConfig;
    use rustls::crypto::ring;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const COMMIT: &[u8] = b"COMMIT, and that it was given up is known";

    fn acceptor() -> TlsAcceptor {
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        // Unread, they would turn the end of the socket into a reset.
        config.send_tls13_tickets = 0;
        TlsAcceptor::from(Arc::new(config))
    }

    /// Two ends of a session.
    async fn session() -> (TlsSocket, tokio_rustls::server::TlsStream<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.read_exact(&mut [0; 8]).await.unwrap();
            socket.write_all(b"S").await.unwrap();
            acceptor().accept(socket).await.unwrap()
        });
        let url = "host=localhost user=u sslmode=require";
        let tls = url.parse::<Database>().unwrap().tls;
        let socket = TcpStream::connect(address).await.unwrap();
        let Ok(MaybeEncrypted::Encrypted(stream)) = tls.secure(socket, "localhost").await else {
            panic!("no session");
        };
        (TlsSocket::new(*stream), server.await.unwrap())
    }

    #[tokio::test]
    async fn what_was_given_up_is_not_sent_when_the_socket_is_dropped() {
        let (mut ours, mut theirs) = session().await;
        // Until the system's buffers are full.
        while !ours.is_behind() {
            drop(ours.try_write(&[b'x'; 64 * 1024]));
        }
        ours.try_write(COMMIT).unwrap();
        let mut said = vec![0; 64 * 1024];
        // There is room again: only the drop could send more.
        while !is_writable(&ours.socket).await {
            let read = theirs.read(&mut said[..]).await.unwrap();
            assert_ne!(read, 0);
        }
        drop(ours);
        said.clear();
        // It ends in the middle of a record.
        drop(theirs.read_to_end(&mut said).await);
        let found = said.windows(COMMIT.len()).any(|window| window == COMMIT);
        assert!(!found, "a statement that was given up was sent");
    }

    async fn is_writable(socket: &TcpStream) -> bool {
        let wait = std::time::Duration::from_millis(1);
        tokio::time::timeout(wait, socket.writable()).await.is_ok()
    }

    #[tokio::test]
    async fn a_session_that_owes_nothing_says_farewell() {
        let (ours, mut theirs) = session().await;
        drop(ours);
        let read = theirs.read(&mut [0; 1]).await;
        assert!(matches!(read, Ok(0)), "{read:?}");
    }
}
