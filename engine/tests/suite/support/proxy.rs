//! A PostgreSQL connection that breaks at chosen moments.
//!
//! Sits between engine and server, reads the engine's messages, and acts when it
//! sees the one that executes COMMIT. Each fault strikes once.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What happens at the next COMMIT.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The server never sees it; both sides are cut.
    CutBefore,
    /// The server commits; its answer is lost and both sides are cut.
    CutAfter,
    /// The engine is cut off; the server's side stays open and sees the COMMIT
    /// only when told. Until then its backend holds the locks.
    Delay(Arc<Notify>),
    /// The server commits; a warning comes with its answer.
    Warn,
    /// The server rolls back instead, and answers so, without an error.
    RollBack,
    /// Nothing passes in either direction; both sides stay open.
    Stall,
}

#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    fault: Arc<Mutex<Option<Fault>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// In front of the server of this URL.
    pub(crate) async fn start(database_url: &str) -> Self {
        let config: tokio_postgres::Config = database_url.parse().unwrap();
        let tokio_postgres::config::Host::Tcp(host) = config.get_hosts()[0].clone() else {
            panic!("the test server listens on TCP");
        };
        let server = (host, config.get_ports().first().copied().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fault: Arc<Mutex<Option<Fault>>> = Arc::default();
        let armed = Arc::clone(&fault);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server.clone()).await.unwrap();
                tokio::spawn(relay(client, server, Arc::clone(&armed)));
            }
        });
        Self {
            address,
            fault,
            task,
        }
    }

    /// The same database through the proxy.
    pub(crate) fn url(&self, database: &super::TestDatabase) -> String {
        let config: tokio_postgres::Config = database.url.parse().unwrap();
        let user = config.get_user().unwrap_or("postgres");
        let password = config.get_password().map_or(String::new(), |password| {
            format!(":{}", String::from_utf8_lossy(password))
        });
        format!(
            "postgres://{user}{password}@{}/{}",
            self.address, database.name
        )
    }

    /// What to do at the next COMMIT of any session.
    pub(crate) fn arm(&self, fault: Fault) {
        *self.fault.lock().unwrap() = Some(fault);
    }

    /// Whether the armed fault has struck.
    pub(crate) fn has_struck(&self) -> bool {
        self.fault.lock().unwrap().is_none()
    }
}

/// What the pumps of one connection share.
enum After {
    Pass,
    DropAnswer,
    Warn,
}

async fn relay(client: TcpStream, server: TcpStream, fault: Arc<Mutex<Option<Fault>>>) {
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let (after_tx, after_rx) = tokio::sync::watch::channel(After::Pass);
    let back = tokio::spawn(pump_back(from_server, to_client, after_rx));
    let mut buffer = BytesMut::new();
    let mut started = false;
    loop {
        while let Some(message) = split_message(&mut buffer, &mut started) {
            let message = if is_commit(&message) {
                let armed = fault.lock().unwrap().take();
                match armed {
                    None => Some(message),
                    Some(struck) => {
                        match struck {
                            Fault::CutBefore => {
                                back.abort();
                                return;
                            }
                            Fault::CutAfter => {
                                after_tx.send_replace(After::DropAnswer);
                                Some(message)
                            }
                            Fault::Warn => {
                                after_tx.send_replace(After::Warn);
                                Some(message)
                            }
                            Fault::RollBack => {
                                let mut forged = BytesMut::new();
                                forged.put_slice(&bind_as(b"rollback_instead"));
                                Some(forged)
                            }
                            Fault::Stall => {
                                let _open = (from_client, to_server, back);
                                std::future::pending::<()>().await;
                                return;
                            }
                            Fault::Delay(release) => {
                                back.abort();
                                drop(from_client);
                                release.notified().await;
                                to_server.write_all(&message).await.unwrap();
                                to_server.write_all(&buffer).await.unwrap();
                                // Until the server has closed the session itself.
                                let closed = to_server.shutdown().await;
                                drop(closed);
                                return;
                            }
                        }
                    }
                }
            } else {
                Some(with_rollback(message))
            };
            if let Some(message) = message
                && to_server.write_all(&message).await.is_err()
            {
                return;
            }
        }
        if !matches!(from_client.read_buf(&mut buffer).await, Ok(1..)) {
            back.abort();
            return;
        }
    }
}

/// Server to engine, message by message: what a fault adds or leaves out must
/// not tear one, however the bytes arrive.
async fn pump_back(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    after: tokio::sync::watch::Receiver<After>,
) {
    let mut buffer = BytesMut::new();
    let mut started = true;
    while let Ok(1..) = from.read_buf(&mut buffer).await {
        let mut passed = BytesMut::new();
        while let Some(message) = split_message(&mut buffer, &mut started) {
            // Ready for the next query: all of the answer to COMMIT is before it.
            if message.first() == Some(&b'Z') {
                match *after.borrow() {
                    After::Pass => {}
                    // The commit is done; nobody hears of it.
                    After::DropAnswer => return,
                    After::Warn => passed.put_slice(&warning()),
                }
            }
            passed.put_slice(&message);
        }
        if to.write_all(&passed).await.is_err() {
            return;
        }
    }
}

fn warning() -> BytesMut {
    let fields = b"SWARNING\0VWARNING\0C01000\0Mcanceling wait for synchronous replication\0\0";
    let mut notice = BytesMut::new();
    notice.put_u8(b'N');
    notice.put_i32(i32::try_from(fields.len() + 4).unwrap());
    notice.put_slice(fields);
    notice
}

/// The next whole message; the first one of a session has no type byte.
fn split_message(buffer: &mut BytesMut, started: &mut bool) -> Option<BytesMut> {
    let type_bytes = usize::from(*started);
    let mut length = buffer.get(type_bytes..type_bytes + 4)?;
    let total = usize::try_from(length.get_i32()).unwrap() + type_bytes;
    if buffer.len() < total {
        return None;
    }
    *started = true;
    Some(buffer.split_to(total))
}

/// A Bind of the unnamed portal to the statement named `commit`.
fn is_commit(message: &[u8]) -> bool {
    message.first() == Some(&b'B')
        && message
            .get(5..)
            .is_some_and(|body| body.starts_with(b"\0commit\0"))
}

fn bind_as(statement: &[u8]) -> Vec<u8> {
    let mut body = vec![0];
    body.extend_from_slice(statement);
    body.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0]);
    let mut message = vec![b'B'];
    message.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    message.extend_from_slice(&body);
    message
}

/// Beside the engine's own COMMIT statement, one that rolls back.
fn with_rollback(message: BytesMut) -> BytesMut {
    if message.first() != Some(&b'P')
        || !message
            .get(5..)
            .is_some_and(|body| body.starts_with(b"commit\0"))
    {
        return message;
    }
    let mut both = message;
    let body = b"rollback_instead\0ROLLBACK\0\0\0";
    both.put_u8(b'P');
    both.put_u32(u32::try_from(body.len() + 4).unwrap());
    both.put_slice(body);
    both
}
