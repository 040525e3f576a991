//! The ledger as the engine tells it over HTTP.
//!
//! Owns: its connections.
//! Never: sends anything but GET.
//! Bound: one look-up in flight on each connection; `ATTEMPTS_MAX` for each.
//! Invariant: an engine that cannot say is an error, never an empty answer.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::args::Access;
use super::ledger::{AskError, Books, FoundBy, Ledger, Question, Row, RowKind, Window};
use crate::args::{authority, resolve};
use crate::headers::Headers;
use crate::journal::Amount;
use crate::response::{KeepBody, Parser, find};
use crate::stream::{Handshake, Stream};
use crate::tls::TlsClient;

const ATTEMPTS_MAX: u32 = 8;
/// Doubled each time: the last attempt comes after some 13 seconds.
const RETRY_AFTER: Duration = Duration::from_millis(100);
const TIMEOUT: Duration = Duration::from_secs(30);
const ACCOUNTS_PER_PAGE: usize = 1000;
/// Sums that do not add up are believed once they stay the same.
const SUMS_MAX: u32 = 5;

#[derive(Debug)]
pub(super) struct Engine {
    clients: Vec<Client>,
}

impl Engine {
    pub(super) fn new(host: &str, access: &Access, connections: u32) -> Result<Self, AskError> {
        let address = resolve(host).map_err(AskError::Usage)?;
        let authority = authority(host).map_err(AskError::Usage)?;
        let tls = access.trust.client(host).map_err(AskError::Usage)?;
        let client = |_| Client {
            address,
            tls: tls.clone(),
            headers: access.headers.clone(),
            host: host.trim_end_matches('/').to_owned(),
            authority: authority.to_owned(),
            stream: None,
            buffer: vec![0; 16 * 1024],
            raw: Vec::new(),
        };
        Ok(Self {
            clients: (0..connections).map(client).collect(),
        })
    }
}

impl Ledger for Engine {
    fn look_up(&mut self, questions: &[Question]) -> Result<Vec<Vec<Row>>, AskError> {
        let share = questions.len().div_ceil(self.clients.len()).max(1);
        let answers = std::thread::scope(|scope| {
            let clients = self.clients.iter_mut();
            let threads: Vec<_> = questions
                .chunks(share)
                .zip(clients)
                .map(|(part, client)| {
                    scope.spawn(|| part.iter().map(|q| client.look_up(q)).collect())
                })
                .collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Vec<_>, AskError>>| {
                let panicked = |_panic| Err(AskError::Usage("a look-up panicked".to_owned()));
                thread.join().unwrap_or_else(panicked)
            };
            threads.into_iter().map(join).collect::<Result<Vec<_>, _>>()
        });
        Ok(answers?.into_iter().flatten().collect())
    }

    /// Sums over all accounts. The pages are no snapshot: what moves between two of
    /// them must not pass for money that is gone.
    fn books(&mut self, _window: &Window) -> Result<Books, AskError> {
        let mut books = self.sums()?;
        for _ in 1..SUMS_MAX {
            if books.unbalanced.is_empty() {
                return Ok(books);
            }
            let again = self.sums()?;
            if again == books {
                return Ok(books);
            }
            books = again;
        }
        let problem = "balances change while they are read: verify when nothing moves, or with --database-url";
        Err(unreadable("/accounts", problem.to_owned()))
    }
}

impl Engine {
    fn sums(&mut self) -> Result<Books, AskError> {
        let mut sums = std::collections::BTreeMap::<String, i128>::new();
        let mut books = Books::default();
        let mut query = format!("/accounts?limit={ACCOUNTS_PER_PAGE}");
        while let Some(client) = self.clients.first_mut() {
            let page: Vec<AccountRow> = client.list(&query)?;
            for account in &page {
                let odd = || unreadable(&query, "a balance is no decimal".to_owned());
                let (balance, digits) = minor(account.balance.get()).ok_or_else(odd)?;
                if let Some(limit) = &account.min_balance {
                    // Both are written with exactly the currency's digits.
                    let limit = minor(limit.get()).filter(|(_, of)| *of == digits);
                    let (limit, _) = limit.ok_or_else(odd)?;
                    books.overdrafts += u64::from(balance < limit);
                }
                *sums.entry(account.currency.clone()).or_default() += balance;
            }
            match client.next_cursor() {
                Some(cursor) if !page.is_empty() => {
                    query = format!("/accounts?limit={ACCOUNTS_PER_PAGE}&cursor={cursor}");
                }
                Some(_) | None => break,
            }
        }
        let broken = sums.into_iter().filter(|(_, sum)| *sum != 0);
        books.unbalanced = broken.map(|(code, sum)| (code, sum.to_string())).collect();
        Ok(books)
    }
}

/// An account, as far as it is looked at.
#[derive(Debug, Deserialize)]
struct AccountRow {
    currency: String,
    balance: Box<RawValue>,
    /// Null: no limit.
    min_balance: Option<Box<RawValue>>,
}

/// A transfer or a kept rejection, as far as it is looked at.
#[derive(Debug, Deserialize)]
struct TransactionRow {
    id: Uuid,
    from: u64,
    to: u64,
    amount: Box<RawValue>,
    status: String,
}

impl TransactionRow {
    fn into_row(self, request: &str, found_by: FoundBy) -> Result<Row, AskError> {
        let kind = match self.status.as_str() {
            "completed" => RowKind::Transfer,
            "rejected" => RowKind::Rejection,
            other => return Err(unreadable(request, format!("status {other}"))),
        };
        let amount = Amount::parse(self.amount.get())
            .ok_or_else(|| unreadable(request, format!("amount {}", self.amount)))?;
        Ok(Row {
            id: self.id,
            kind,
            found_by,
            from: self.from,
            to: self.to,
            amount,
        })
    }
}

/// One connection, opened when it is needed.
#[derive(Debug)]
struct Client {
    address: SocketAddr,
    tls: Option<TlsClient>,
    headers: Headers,
    /// As it was given.
    host: String,
    authority: String,
    stream: Option<Stream>,
    buffer: Vec<u8>,
    /// The last answer, head included.
    raw: Vec<u8>,
}

impl Client {
    fn look_up(&mut self, question: &Question) -> Result<Vec<Row>, AskError> {
        let mut rows = Vec::new();
        if let Some(key) = &question.key {
            let request = format!("/transactions?idempotency_key={key}");
            for row in self.list::<TransactionRow>(&request)? {
                rows.push(row.into_row(&request, FoundBy::Key)?);
            }
        }
        if let Some(id) = question.id
            && rows.iter().all(|row| row.id != id)
        {
            let request = format!("/transactions/{id}");
            let (status, body) = self.get(&request)?;
            if status != 404 {
                let row: TransactionRow = read(&request, status, &body)?;
                rows.push(row.into_row(&request, FoundBy::Id)?);
            }
        }
        Ok(rows)
    }

    fn list<T: serde::de::DeserializeOwned>(&mut self, request: &str) -> Result<Vec<T>, AskError> {
        let (status, body) = self.get(request)?;
        read(request, status, &body)
    }

    /// Status and body; asks again while the engine is out of reach or refuses.
    fn get(&mut self, request: &str) -> Result<(u16, Vec<u8>), AskError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let cause = match self.try_get(request) {
                Ok((status, body)) if status < 500 && status != 429 => return Ok((status, body)),
                Ok((status, _)) => format!("status {status}"),
                Err(error) => {
                    // A bad certificate or a broken protocol stays what it is.
                    if error.kind() == ErrorKind::InvalidData {
                        attempt = ATTEMPTS_MAX;
                    }
                    error.to_string()
                }
            };
            self.stream = None;
            if attempt == ATTEMPTS_MAX {
                let request = format!("GET {}{request}", self.host);
                return Err(AskError::Engine { request, cause });
            }
            std::thread::sleep(RETRY_AFTER * 2_u32.pow(attempt - 1));
        }
    }

    fn try_get(&mut self, request: &str) -> std::io::Result<(u16, Vec<u8>)> {
        if self.stream.is_none() {
            self.stream = Some(self.connect()?);
        }
        let Some(stream) = &mut self.stream else {
            return Err(std::io::ErrorKind::NotConnected.into());
        };
        let text = format!(
            "GET {request} HTTP/1.1\r\nHost: {}\r\n{}\r\n",
            self.authority,
            self.headers.lines()
        );
        stream.write_all(text.as_bytes())?;
        stream.flush()?;
        self.raw.clear();
        let mut parser = Parser::new(KeepBody::All);
        loop {
            let count = stream.read(&mut self.buffer)?;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.raw.extend_from_slice(&self.buffer[..count]);
            let fed = parser.feed(&self.buffer[..count]);
            let invalid = |error| std::io::Error::new(ErrorKind::InvalidData, error);
            if let Some(response) = fed.map_err(invalid)? {
                let answer = (response.status, response.body.to_vec());
                if response.close || stream.has_ended() {
                    self.stream = None;
                }
                return Ok(answer);
            }
        }
    }

    fn connect(&self) -> std::io::Result<Stream> {
        let socket = TcpStream::connect_timeout(&self.address, TIMEOUT)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        let mut stream = Stream::new(socket, self.tls.as_ref())?;
        match stream.handshake()? {
            Handshake::Done => Ok(stream),
            // The socket waits: it has waited in vain.
            Handshake::ToRead | Handshake::ToWrite => Err(stream.overdue()),
        }
    }

    /// `X-Next-Cursor` of the last answer.
    fn next_cursor(&self) -> Option<String> {
        let end = find(&self.raw, b"\r\n\r\n")?;
        let head = std::str::from_utf8(&self.raw[..end]).ok()?;
        let mut headers = head.lines().filter_map(|line| line.split_once(':'));
        let (_, cursor) = headers.find(|(name, _)| name.eq_ignore_ascii_case("x-next-cursor"))?;
        Some(cursor.trim().to_owned())
    }
}

fn read<T: serde::de::DeserializeOwned>(
    request: &str,
    status: u16,
    body: &[u8],
) -> Result<T, AskError> {
    if matches!(status, 401 | 403) {
        let next = "the engine wants --api-key-file, --token-file or --header";
        return Err(unreadable(request, format!("status {status}: {next}")));
    }
    if status != 200 {
        return Err(unreadable(request, format!("status {status}")));
    }
    serde_json::from_slice(body).map_err(|error| unreadable(request, error.to_string()))
}

fn unreadable(request: &str, problem: String) -> AskError {
    let request = format!("GET {request}");
    AskError::Unreadable { request, problem }
}

/// A decimal without its point, and how many digits stood behind it.
fn minor(text: &str) -> Option<(i128, usize)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.len();
    let all = fraction.bytes().all(|byte| byte.is_ascii_digit());
    let value = format!("{whole}{fraction}").parse().ok()?;
    all.then_some((value, digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balance_is_read_without_a_float() {
        for (text, expected) in [
            ("5.00", Some((500, 2))),
            ("-0.05", Some((-5, 2))),
            ("700", Some((700, 0))),
            ("1e2", None),
            ("1.-5", None),
            ("null", None),
        ] {
            assert_eq!(minor(text), expected, "{text}");
        }
    }
}
