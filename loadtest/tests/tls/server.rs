//! A small server behind TLS that counts what it meets.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rustls::{HandshakeKind, ServerConfig, ServerConnection};

use crate::certificates::Connection;

/// How answers are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Plain,
    /// The head in records of one byte, then a body of several records at once.
    Pieces,
    /// Closes after each answer, without a header that says so.
    Closes,
    /// Says that it closes, but leaves the socket open until the client closes.
    Lingers,
    /// Closes without a word.
    Cuts,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) requests: u64,
    /// Handshakes from scratch, and those that took up an earlier session.
    pub(crate) full: u64,
    pub(crate) resumed: u64,
    /// Of the last connection.
    pub(crate) protocol: Option<Vec<u8>>,
    /// Connections that the client closed without saying so.
    pub(crate) cut: u64,
    pub(crate) body_bytes_max: usize,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Server {
    /// Serves until the test process ends.
    pub(crate) fn start(config: ServerConfig, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // So little that a large body must wait for its reader.
        rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 4096).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let (shared, config) = (Arc::clone(&seen), Arc::new(config));
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let (seen, config) = (Arc::clone(&shared), Arc::clone(&config));
                std::thread::spawn(move || serve(socket.unwrap(), &config, manner, &seen));
            }
        });
        Self { address, seen }
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }
}

/// The handshake; None if the client did not like it.
pub(crate) fn accept(mut socket: TcpStream, config: &Arc<ServerConfig>) -> Option<Connection> {
    socket.set_nodelay(true).unwrap();
    let mut session = ServerConnection::new(Arc::clone(config)).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut socket).ok()?;
    }
    Some(Connection::new(session, socket))
}

fn serve(socket: TcpStream, config: &Arc<ServerConfig>, manner: Manner, seen: &Mutex<Seen>) {
    let Some(connection) = accept(socket, config) else {
        return;
    };
    {
        let mut seen = seen.lock().unwrap();
        match connection.conn.handshake_kind() {
            Some(HandshakeKind::Resumed) => seen.resumed += 1,
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => {
                seen.full += 1;
            }
        }
        seen.protocol = connection.conn.alpn_protocol().map(<[u8]>::to_vec);
    }
    let mut reader = BufReader::with_capacity(1000, connection);
    loop {
        match read_request(&mut reader) {
            Ok(Some(body)) => {
                let mut seen = seen.lock().unwrap();
                seen.requests += 1;
                seen.body_bytes_max = seen.body_bytes_max.max(body.len());
                drop(seen);
                if !answer(reader.get_mut(), manner, &body) {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                let cut = error.kind() == ErrorKind::UnexpectedEof;
                seen.lock().unwrap().cut += u64::from(cut);
                return;
            }
        }
    }
}

/// The body; None at the end.
fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<String>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        match header.trim_end().split_once(": ") {
            Some(("Content-Length", value)) => length = value.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(String::from_utf8(body).unwrap()))
}

/// Whether the connection goes on.
fn answer(connection: &mut Connection, manner: Manner, request: &str) -> bool {
    let one = r#"{"txn_id":"0190c0de-0000-7000-8000-000000000000","status":"completed"}"#;
    let mut body = if request.starts_with(r#"{"transfers""#) {
        let all = vec![one; request.matches(r#""amount""#).count()];
        format!(r#"{{"results":[{}]}}"#, all.join(","))
    } else {
        one.to_owned()
    };
    if manner == Manner::Pieces {
        body.push_str(&" ".repeat(100_000));
    }
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut pieces = vec![head.as_bytes(), body.as_bytes()];
    if manner == Manner::Pieces {
        pieces = head.as_bytes().chunks(1).chain([body.as_bytes()]).collect();
    }
    let written = match manner {
        Manner::Plain | Manner::Pieces | Manner::Cuts => pieces.into_iter().try_for_each(|piece| {
            connection.write_all(piece)?;
            connection.flush()
        }),
        // All at once: a client that saw the answer knows of the end too.
        Manner::Closes | Manner::Lingers => {
            connection
                .conn
                .writer()
                .write_all(&pieces.concat())
                .unwrap();
            connection.conn.send_close_notify();
            connection.flush()
        }
    };
    match manner {
        Manner::Plain | Manner::Pieces => return written.is_ok(),
        Manner::Closes | Manner::Lingers | Manner::Cuts => {}
    }
    if written.is_ok() && manner == Manner::Lingers {
        drop(connection.sock.read_to_end(&mut Vec::new()));
    }
    false
}
