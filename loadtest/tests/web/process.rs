//! The command with its page, and a small target for its load.
//!
//! Owns: the process, ended when it is dropped.
//! Never: takes longer than [`PATIENCE`] for what hangs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::read_request;

/// Far more than anything here takes, so that only what hangs ends by it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers until the test process ends: 200, and 503 to every tenth request of a
/// connection; each takes some milliseconds.
pub(crate) fn target() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || serve(stream.unwrap()));
        }
    });
    address
}

fn serve(stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    for number in 1_u64.. {
        if read_request(&mut reader).is_none() {
            return;
        }
        std::thread::sleep(Duration::from_millis(3 + number * 7 % 10));
        let (status, body) = if number % 10 == 0 {
            ("503 Service Unavailable", r#"{"code":"queue_full"}"#)
        } else {
            ("200 OK", r#"{"status":"completed"}"#)
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// `loadtest run --web`, ended when it is dropped.
pub(crate) struct Loadtest {
    process: Child,
    pub(crate) address: String,
    stderr: BufReader<ChildStderr>,
}

impl Loadtest {
    pub(crate) fn start(flags: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args(["run", "--web", "127.0.0.1:0"])
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let rest = line.split_once("http://").map(|(_, rest)| rest);
        let address = rest.and_then(|rest| rest.split_once('/'));
        let address = address.unwrap_or_else(|| panic!("no address in {line}"));
        Self {
            address: address.0.to_owned(),
            process,
            stderr,
        }
    }

    /// Sends bytes as they are and gives status, head and body.
    pub(crate) fn raw(&self, request: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_owned(), body.to_owned())
    }

    pub(crate) fn get(&self, path: &str) -> (u16, String, String) {
        let host = &self.address;
        self.raw(&format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        ))
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (host, body) = (&self.address, body.to_string());
        let length = body.len();
        let (status, _, body) = self.raw(&format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: \
             application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        ));
        (status, serde_json::from_str(&body).unwrap())
    }

    #[track_caller]
    pub(crate) fn done(&self, path: &str, body: &Value) {
        assert_eq!(self.post(path, body), (200, json!({})), "{path} {body}");
    }

    pub(crate) fn state(&self) -> Value {
        let (status, _, body) = self.get("/api/state");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Asks for the state until it is so.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let state = self.state();
            if so(&state) {
                return state;
            }
            assert!(begun.elapsed() < PATIENCE, "{what} never came: {state}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn signal(&self) {
        let id = i32::try_from(self.process.id()).unwrap();
        let id = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    }

    /// The exit code, and what was said after the address.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        (self.process.wait().unwrap().code(), said)
    }
}

impl Drop for Loadtest {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

pub(crate) fn host(target: SocketAddr) -> String {
    format!("http://{target}")
}
