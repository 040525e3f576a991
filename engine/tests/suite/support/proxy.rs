//! A PostgreSQL connection that breaks at chosen moments.
//!
//! Sits between engine and server and reads their messages. A [`Fault`] strikes at
//! the message that executes COMMIT, a [`Strike`] at any message of a commit, in
//! either direction. Each strikes once. Over TLS it ends the engine's and speaks
//! plainly to the server, so that it can read along.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use super::certificates::Authority;

/// Enough to be seen, less than any limit.
const LATE: Duration = Duration::from_millis(30);

/// How the engine reaches the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Plain,
    Tls,
}

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

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

/// Who sends a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    Engine,
    Server,
}

/// What happens to a connection in front of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Both sides are closed.
    Cut,
    /// The message and all after it come late.
    Delay,
    /// This direction ends in order; the other one goes on.
    HalfClose,
    /// Nothing passes any more, either way; both sides stay open.
    BlackHole,
}

/// Something that happens in front of a message of a commit, counted from BEGIN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strike {
    pub(crate) sender: Sender,
    pub(crate) boundary: usize,
    pub(crate) action: Action,
}

/// Strikes to come; each begins to count at the first BEGIN after the one before.
#[derive(Debug, Default)]
struct Script {
    strikes: VecDeque<Strike>,
    /// The connection that counts, with the messages of engine and server so far.
    counting: Option<(usize, [usize; 2])>,
}

impl Script {
    /// What happens in front of this message.
    fn meet(&mut self, connection: usize, sender: Sender, message: &[u8]) -> Option<Action> {
        let strike = *self.strikes.front()?;
        if self.counting.is_none() && sender == Sender::Engine && binds(message, b"begin") {
            self.counting = Some((connection, [0, 0]));
        }
        let (counting, counts) = self.counting.as_mut()?;
        if *counting != connection {
            return None;
        }
        let count = &mut counts[usize::from(sender == Sender::Server)];
        let boundary = *count;
        *count += 1;
        if (strike.sender, strike.boundary) != (sender, boundary) {
            return None;
        }
        self.strikes.pop_front();
        self.counting = None;
        Some(strike.action)
    }
}

#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    /// Of its certificate, over TLS.
    authority: Option<Authority>,
    fault: Arc<Mutex<Option<Fault>>>,
    script: Arc<Mutex<Script>>,
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
        Self::start_by(database_url, Way::Plain).await
    }

    /// The same; the engine reaches it that way.
    pub(crate) async fn start_by(database_url: &str, way: Way) -> Self {
        let config: tokio_postgres::Config = database_url.parse().unwrap();
        let tokio_postgres::config::Host::Tcp(host) = config.get_hosts()[0].clone() else {
            panic!("the test server listens on TCP");
        };
        let server = (host, config.get_ports().first().copied().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fault: Arc<Mutex<Option<Fault>>> = Arc::default();
        let script: Arc<Mutex<Script>> = Arc::default();
        let (armed, written) = (Arc::clone(&fault), Arc::clone(&script));
        let authority = (way == Way::Tls).then(Authority::new);
        let acceptor = authority.as_ref().map(|own| own.acceptor("127.0.0.1"));
        let task = tokio::spawn(async move {
            for connection in 0.. {
                let Ok((client, _)) = listener.accept().await else {
                    return;
                };
                let server = TcpStream::connect(server.clone()).await.unwrap();
                let line = Arc::new(Line {
                    connection,
                    script: Arc::clone(&written),
                    cut: Notify::new(),
                    hole: AtomicBool::new(false),
                });
                let (armed, acceptor) = (Arc::clone(&armed), acceptor.clone());
                tokio::spawn(async move {
                    client.set_nodelay(true).unwrap();
                    let client = match acceptor {
                        Some(acceptor) => accept(client, acceptor).await,
                        None => split(client),
                    };
                    tokio::select! {
                        () = line.cut.notified() => {}
                        () = relay(client, server, armed, &line) => {}
                    }
                });
            }
        });
        Self {
            address,
            authority,
            fault,
            script,
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
        // It reads the protocol, which begins with the start-up message then.
        let url = format!(
            "postgres://{user}{password}@{}/{}?sslmode=",
            self.address, database.name
        );
        match &self.authority {
            None => url + "disable",
            Some(authority) => {
                let file = authority.file();
                pgtls::with_root_file(&(url + "verify-full"), file.to_str().unwrap())
            }
        }
    }

    /// What to do at the next COMMIT of any session.
    pub(crate) fn arm(&self, fault: Fault) {
        *self.fault.lock().unwrap() = Some(fault);
    }

    /// What to do at the next commits.
    pub(crate) fn script(&self, strikes: impl IntoIterator<Item = Strike>) {
        *self.script.lock().unwrap() = Script {
            strikes: strikes.into_iter().collect(),
            counting: None,
        };
    }

    /// How many strikes of the script are still to come.
    pub(crate) fn strikes_left(&self) -> usize {
        self.script.lock().unwrap().strikes.len()
    }

    /// Whether the armed fault has struck.
    pub(crate) fn has_struck(&self) -> bool {
        self.fault.lock().unwrap().is_none()
    }
}

/// What the two directions of one connection share.
struct Line {
    connection: usize,
    script: Arc<Mutex<Script>>,
    cut: Notify,
    hole: AtomicBool,
}

/// What becomes of a message.
enum Fate {
    Passes,
    /// It is lost, as is everything after it in this direction.
    Ends,
    Lost,
}

impl Line {
    /// Acts if the script says so.
    async fn meet(&self, sender: Sender, message: &[u8]) -> Fate {
        if self.hole.load(Ordering::Acquire) {
            return Fate::Lost;
        }
        let action = self
            .script
            .lock()
            .unwrap()
            .meet(self.connection, sender, message);
        match action {
            None => Fate::Passes,
            Some(Action::Cut) => {
                self.cut.notify_one();
                std::future::pending().await
            }
            Some(Action::Delay) => {
                tokio::time::sleep(LATE).await;
                Fate::Passes
            }
            Some(Action::HalfClose) => Fate::Ends,
            Some(Action::BlackHole) => {
                self.hole.store(true, Ordering::Release);
                Fate::Lost
            }
        }
    }
}

/// What the pumps of one connection tell each other about a [`Fault`].
enum After {
    Pass,
    DropAnswer,
    Warn,
}

#[expect(
    clippy::too_many_lines,
    reason = "each fault ends this one loop in a way of its own"
)]
async fn relay(
    (mut from_client, to_client): (Reader, Writer),
    server: TcpStream,
    fault: Arc<Mutex<Option<Fault>>>,
    line: &Arc<Line>,
) {
    server.set_nodelay(true).unwrap();
    let (from_server, mut to_server) = server.into_split();
    let (after_tx, after_rx) = tokio::sync::watch::channel(After::Pass);
    let back = tokio::spawn(pump_back(
        from_server,
        to_client,
        after_rx,
        Arc::clone(line),
    ));
    let back = AbortOnDrop(back);
    let mut buffer = BytesMut::new();
    let mut started = false;
    loop {
        while let Some(message) = split_message(&mut buffer, &mut started) {
            match line.meet(Sender::Engine, &message).await {
                Fate::Passes => {}
                Fate::Lost => continue,
                Fate::Ends => {
                    to_server.shutdown().await.unwrap();
                    // The server's answers go on; what the engine says is lost.
                    while matches!(from_client.read_buf(&mut buffer).await, Ok(1..)) {
                        buffer.clear();
                    }
                    return;
                }
            }
            let message = if binds(&message, b"commit") {
                let armed = fault.lock().unwrap().take();
                match armed {
                    None => Some(message),
                    Some(struck) => {
                        match struck {
                            Fault::CutBefore => {
                                back.0.abort();
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
                                back.0.abort();
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
            if line.hole.load(Ordering::Acquire) {
                // The server is not told either.
                std::future::pending::<()>().await;
            }
            return;
        }
    }
}

/// Server to engine, message by message: what a fault adds or leaves out must
/// not tear one, however the bytes arrive.
async fn pump_back(
    mut from: OwnedReadHalf,
    mut to: Writer,
    after: tokio::sync::watch::Receiver<After>,
    line: Arc<Line>,
) {
    let mut buffer = BytesMut::new();
    let mut started = true;
    while let Ok(1..) = from.read_buf(&mut buffer).await {
        let mut passed = BytesMut::new();
        while let Some(message) = split_message(&mut buffer, &mut started) {
            match line.meet(Sender::Server, &message).await {
                Fate::Passes => {}
                Fate::Lost => continue,
                Fate::Ends => {
                    to.write_all(&passed).await.ok();
                    to.shutdown().await.unwrap();
                    // What the engine says goes on; the server's answers are lost.
                    while matches!(from.read_buf(&mut buffer).await, Ok(1..)) {
                        buffer.clear();
                    }
                    return;
                }
            }
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
        if to.write_all(&passed).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}

fn split(client: TcpStream) -> (Reader, Writer) {
    let (from_client, to_client) = client.into_split();
    (Box::new(from_client), Box::new(to_client))
}

/// As a server that speaks TLS.
async fn accept(mut client: TcpStream, acceptor: TlsAcceptor) -> (Reader, Writer) {
    let mut request = [0; 8];
    client.read_exact(&mut request).await.unwrap();
    assert_eq!(request, [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F]);
    client.write_all(b"S").await.unwrap();
    let client = acceptor.accept(client).await.unwrap();
    let (from_client, to_client) = tokio::io::split(client);
    (Box::new(from_client), Box::new(to_client))
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

/// Whether this is a Bind of the unnamed portal to that statement.
fn binds(message: &[u8], statement: &[u8]) -> bool {
    let rest = message.get(6..).unwrap_or_default();
    message.first() == Some(&b'B')
        && message.get(5) == Some(&0)
        && rest
            .strip_prefix(statement)
            .is_some_and(|rest| rest.first() == Some(&0))
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
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
