//! A man in the middle of the PostgreSQL protocol, to break it on purpose.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::config::Host;

/// Switches of a running proxy.
#[derive(Debug, Default)]
pub(super) struct Switches {
    /// Put a WARNING before every ReadyForQuery.
    pub(super) warn: AtomicBool,
    /// The same, only after a COMMIT.
    pub(super) warn_commit: AtomicBool,
    /// Close the link instead of saying that a COMMIT is done.
    pub(super) cut_commit: AtomicBool,
    /// Swallow what the server answers.
    pub(super) swallow: AtomicBool,
}

/// Stands before the server of `url`; returns a URL that leads through it.
pub(super) async fn start(url: &str) -> (String, Arc<Switches>) {
    let target: tokio_postgres::Config = url.parse().unwrap();
    let Host::Tcp(host) = target.get_hosts()[0].clone() else {
        panic!("the test server is reached by TCP");
    };
    let server = (host, target.get_ports().first().copied().unwrap_or(5432));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let through = format!(
        "postgres://{}@{}/{}?sslmode=disable",
        target.get_user().unwrap_or("postgres"),
        listener.local_addr().unwrap(),
        target.get_dbname().unwrap(),
    );
    let switches = Arc::new(Switches::default());
    let shared = Arc::clone(&switches);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(server.clone()).await.unwrap();
            tokio::spawn(serve(client, server, Arc::clone(&shared)));
        }
    });
    (through, switches)
}

async fn serve(client: TcpStream, server: TcpStream, switches: Arc<Switches>) {
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let upward = async {
        // Ends when either side does; which one and why does not matter here.
        tokio::io::copy(&mut from_client, &mut to_server).await.ok();
    };
    tokio::select! {
        () = upward => {}
        () = downward(from_server, to_client, &switches) => {}
    }
}

async fn downward(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    switches: &Switches,
) {
    loop {
        let mut head = [0; 5];
        if from.read_exact(&mut head).await.is_err() {
            return;
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        if from.read_exact(&mut body).await.is_err() {
            return;
        }
        if switches.swallow.load(Ordering::Acquire) {
            continue;
        }
        let mut message = Vec::new();
        if head[0] == b'C' {
            let committed = body == *b"COMMIT\0";
            if committed && switches.cut_commit.load(Ordering::Acquire) {
                return;
            }
            if committed && switches.warn_commit.load(Ordering::Acquire) {
                message.extend(warning());
            }
        }
        if head[0] == b'Z' && switches.warn.load(Ordering::Acquire) {
            message.extend(warning());
        }
        message.extend(head);
        message.extend(body);
        if to.write_all(&message).await.is_err() {
            return;
        }
    }
}

/// What a cancelled wait for a standby says during COMMIT.
fn warning() -> Vec<u8> {
    let fields = b"SWARNING\0VWARNING\0C01000\0Mcanceling wait for synchronous replication\0\0";
    let mut message = vec![b'N'];
    message.extend(u32::try_from(fields.len() + 4).unwrap().to_be_bytes());
    message.extend(fields);
    message
}
