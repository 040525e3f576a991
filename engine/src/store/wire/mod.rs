//! The committer's own connection: PostgreSQL's protocol, one `Sync` a round trip.
//!
//! Owns: the socket, the handshake, prepared statements, and what the server
//! said to each message, notices and command tags included.
//! Never: knows an account, retries, or hides an answer.
//! Bound: one message in memory, at most `MESSAGE_BYTES_MAX`.
//! Invariant: after an error the connection is either back at "ready" with the
//! failed transaction rolled back, or it is dropped.
//!
//! Why not tokio-postgres here: it drops the command tag (a COMMIT that answers
//! ROLLBACK looks like success), routes notices away from the statement they
//! belong to (a cancelled wait for a standby is only a warning), sends a `Sync`
//! after every statement, and waits for the server before sending COPY data.
//! Messages are encoded and parsed by `postgres-protocol`, which it uses too.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a protocol of thirty messages, few of which belong anywhere"
)]

mod auth;
pub mod encode;
mod stream;
mod tls;

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use pgtls::TlsError;
use postgres_protocol::message::backend::{DataRowBody, ErrorFields, Message};
use postgres_protocol::message::frontend;

use self::stream::Stream;
use super::route::{Lifeline, Route, Target};

/// A length above this is not an answer to anything the engine asks.
const MESSAGE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Read buffer growth: one system call takes the answer to a usual batch.
const READ_BYTES: usize = 64 * 1024;

/// How to reach and set up a session.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// Who signs in, and where.
    pub route: Route,
    /// TCP connect, handshake and set-up of one host together.
    pub connect_timeout: Duration,
    /// Longest silence of the server during one round trip; must exceed
    /// `statement_timeout`, which ends it in an orderly way.
    pub round_trip_timeout: Duration,
    /// Server-side settings, as start-up parameters; the application's name too.
    pub parameters: Vec<(String, String)>,
}

/// What the server said about an error or a warning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// Five characters; recognised by this, never by text.
    pub sqlstate: String,
    /// For people.
    pub message: String,
    /// More for people.
    pub detail: Option<String>,
    /// The constraint, for class 23.
    pub constraint: Option<String>,
    /// The table it belongs to.
    pub table: Option<String>,
}

impl fmt::Display for ServerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (SQLSTATE {})", self.message, self.sqlstate)
    }
}

/// Why a round trip gave no answer.
#[derive(Debug)]
pub enum WireError {
    /// The socket failed or was closed.
    Io(io::Error),
    /// Nothing within the limit.
    Timeout(Duration),
    /// An answer that the protocol does not allow here.
    Protocol(&'static str),
    /// No host took the session.
    Refused(String),
    /// The server is the primary no more, or silent for longer than a live one is.
    Left,
    /// The server does not speak TLS, or shows no good certificate.
    Tls(TlsError),
    /// The server refused the session: wrong password, no such database, ...
    Server(Box<ServerError>),
}

impl fmt::Display for WireError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(formatter, "connection lost: {error}"),
            Self::Timeout(limit) => write!(formatter, "no answer within {limit:?}"),
            Self::Left => {
                formatter.write_str("the server was left: another is the primary, or none")
            }
            Self::Protocol(what) => write!(formatter, "unexpected answer: {what}"),
            Self::Refused(why) => formatter.write_str(why),
            Self::Tls(error) => error.fmt(formatter),
            Self::Server(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for WireError {}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<TlsError> for WireError {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::Io(error) => Self::Io(error),
            error @ (TlsError::NotOffered
            | TlsError::Refused
            | TlsError::NoPostgres
            | TlsError::Name(_)
            | TlsError::Handshake(_)) => Self::Tls(error),
        }
    }
}

/// What the server said to one statement.
#[derive(Debug)]
pub enum Answer {
    /// A row, in binary.
    Row(Row),
    /// The statement is done; its command tag (`UPDATE 3`, `COMMIT`).
    Done(String),
    /// The statement failed; everything after it up to `Sync` is skipped.
    Failed(Box<ServerError>),
    /// The end of the round trip; whether a transaction is open.
    Ready(TransactionState),
}

/// What `ReadyForQuery` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionState {
    /// None open.
    Idle,
    /// One open.
    Open,
    /// One open that can only be rolled back.
    Failed,
}

/// One session with the server.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    incoming: BytesMut,
    /// Messages of the round trip being built.
    pub outgoing: BytesMut,
    /// Warnings since the last call of [`Connection::take_warnings`].
    warnings: Vec<ServerError>,
    /// As the server told at start.
    pub process_id: i32,
    round_trip_timeout: Duration,
    lifeline: Lifeline,
}

impl Connection {
    /// Connects to one host and sets the session up.
    ///
    /// # Errors
    /// [`WireError`]; nothing was written.
    pub async fn connect(
        settings: &SessionSettings,
        target: &Target,
        lifeline: Lifeline,
    ) -> Result<Self, WireError> {
        let limit = settings.connect_timeout;
        tokio::time::timeout(limit, auth::open(settings, target, lifeline))
            .await
            .unwrap_or(Err(WireError::Timeout(limit)))
    }

    fn new(stream: Stream, round_trip_timeout: Duration, lifeline: Lifeline) -> Self {
        Self {
            stream,
            incoming: BytesMut::with_capacity(READ_BYTES),
            outgoing: BytesMut::with_capacity(READ_BYTES),
            warnings: Vec::new(),
            process_id: 0,
            round_trip_timeout,
            lifeline,
        }
    }

    /// Whether its server was left: nothing more is sent there.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.lifeline.is_cut()
    }

    /// Queues a prepared statement's definition.
    ///
    /// # Errors
    /// A name or text with a NUL in it.
    pub fn parse(&mut self, name: &str, sql: &str, types: &[u32]) -> Result<(), WireError> {
        frontend::parse(name, sql, types.iter().copied(), &mut self.outgoing)?;
        Ok(())
    }

    /// Queues the end of a prepared statement.
    ///
    /// # Errors
    /// A name with a NUL in it.
    pub fn close(&mut self, name: &str) -> Result<(), WireError> {
        frontend::close(b'S', name, &mut self.outgoing)?;
        Ok(())
    }

    /// Queues one execution: `arguments` writes each as length and bytes.
    ///
    /// # Errors
    /// A message longer than the protocol can say.
    pub fn execute(
        &mut self,
        name: &str,
        arguments: &[&dyn encode::Argument],
    ) -> Result<(), WireError> {
        encode::bind(name, arguments, &mut self.outgoing)?;
        frontend::execute("", 0, &mut self.outgoing)?;
        Ok(())
    }

    /// Queues the end of the round trip.
    pub fn sync(&mut self) {
        frontend::sync(&mut self.outgoing);
    }

    /// Sends everything queued, taking in what the server says meanwhile: it
    /// answers the first statements while later ones are still on their way, and
    /// if nobody read, both sides would wait for the other's full socket.
    ///
    /// # Errors
    /// The socket failed, or nothing moved in either direction within the limit.
    pub async fn send(&mut self) -> Result<(), WireError> {
        // Nothing more is sent to a server that was left, COMMIT least of all.
        if self.is_left() {
            self.outgoing.clear();
            return Err(WireError::Left);
        }
        let limit = self.round_trip_timeout;
        while !self.outgoing.is_empty() || self.stream.is_behind() {
            match self.stream.try_write(&self.outgoing) {
                Ok(written) => {
                    self.outgoing.advance(written);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            let ready = self.stream.ready();
            wait(limit, &mut self.lifeline, ready).await?;
            self.incoming.reserve(READ_BYTES);
            match self.stream.try_read_buf(&mut self.incoming) {
                Ok(0) => return Err(WireError::Io(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The next thing the server said that matters.
    ///
    /// # Errors
    /// The socket failed, nothing came within the limit, or it made no sense.
    pub async fn next(&mut self) -> Result<Answer, WireError> {
        loop {
            match self.message().await? {
                Message::DataRow(row) => return Ok(Answer::Row(Row::new(&row)?)),
                Message::CommandComplete(done) => {
                    return Ok(Answer::Done(done.tag()?.to_owned()));
                }
                Message::ErrorResponse(error) => {
                    return Ok(Answer::Failed(Box::new(server_error(error.fields())?)));
                }
                Message::ReadyForQuery(ready) => {
                    return Ok(Answer::Ready(match ready.status() {
                        b'I' => TransactionState::Idle,
                        b'T' => TransactionState::Open,
                        _ => TransactionState::Failed,
                    }));
                }
                Message::NoticeResponse(notice) => self.note(notice.fields())?,
                Message::ParseComplete
                | Message::BindComplete
                | Message::CloseComplete
                | Message::CopyInResponse(_)
                | Message::ParameterStatus(_)
                | Message::NotificationResponse(_)
                | Message::EmptyQueryResponse => {}
                _ => return Err(WireError::Protocol("a message of another exchange")),
            }
        }
    }

    /// Reads up to and including "ready"; the first failure, if any.
    ///
    /// # Errors
    /// As [`Connection::next`].
    pub async fn drain(
        &mut self,
    ) -> Result<(TransactionState, Option<Box<ServerError>>), WireError> {
        let mut failed = None;
        loop {
            match self.next().await? {
                Answer::Row(_) | Answer::Done(_) => {}
                Answer::Failed(error) => failed = failed.or(Some(error)),
                Answer::Ready(state) => return Ok((state, failed)),
            }
        }
    }

    /// Runs one text statement, for set-up and roll-back; rows come as text.
    ///
    /// # Errors
    /// As [`Connection::next`]; a refused statement is [`WireError::Server`].
    pub async fn simple(&mut self, sql: &str) -> Result<Vec<Row>, WireError> {
        frontend::query(sql, &mut self.outgoing)?;
        self.send().await?;
        let mut rows = Vec::new();
        let mut failed = None;
        loop {
            match self.message().await? {
                Message::DataRow(row) => rows.push(Row::new(&row)?),
                Message::ErrorResponse(error) => failed = Some(server_error(error.fields())?),
                Message::NoticeResponse(notice) => self.note(notice.fields())?,
                Message::ReadyForQuery(_) => break,
                _ => {}
            }
        }
        match failed {
            Some(error) => Err(WireError::Server(Box::new(error))),
            None => Ok(rows),
        }
    }

    /// Warnings the server raised since the last call.
    pub fn take_warnings(&mut self) -> Vec<ServerError> {
        std::mem::take(&mut self.warnings)
    }

    async fn message(&mut self) -> Result<Message, WireError> {
        loop {
            if let Some(message) = Message::parse(&mut self.incoming)? {
                return Ok(message);
            }
            if self.incoming.len() > MESSAGE_BYTES_MAX {
                return Err(WireError::Protocol("a message beyond any size asked for"));
            }
            self.incoming.reserve(READ_BYTES);
            let limit = self.round_trip_timeout;
            let read = self.stream.read_buf(&mut self.incoming);
            if wait(limit, &mut self.lifeline, read).await? == 0 {
                return Err(WireError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Waits that long; an error if the server says or ends something meanwhile.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub async fn stay_quiet(&mut self, limit: Duration) -> Result<(), WireError> {
        if !self.incoming.is_empty() {
            return Err(WireError::Protocol("an answer to nothing"));
        }
        let read = self.stream.read_buf(&mut self.incoming);
        match tokio::time::timeout(limit, read).await {
            Err(_elapsed) => Ok(()),
            Ok(Ok(0)) => Err(WireError::Io(io::ErrorKind::UnexpectedEof.into())),
            Ok(Ok(_)) => Err(WireError::Protocol("an answer to nothing")),
            Ok(Err(error)) => Err(error.into()),
        }
    }

    fn note(&mut self, fields: ErrorFields<'_>) -> Result<(), WireError> {
        let notice = server_error(fields)?;
        // Class 00 is a NOTICE or INFO; 01 and above is a WARNING worth a decision.
        if !notice.sqlstate.starts_with("00") {
            self.warnings.push(notice);
        }
        Ok(())
    }
}

/// Waits for the socket no longer than the limit, and only while the server is
/// worth waiting for.
async fn wait<T>(
    limit: Duration,
    lifeline: &mut Lifeline,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, WireError> {
    tokio::select! {
        biased;
        () = lifeline.cut() => Err(WireError::Left),
        done = tokio::time::timeout(limit, work) => {
            Ok(done.map_err(|_elapsed| WireError::Timeout(limit))??)
        }
    }
}

fn server_error(mut fields: ErrorFields<'_>) -> Result<ServerError, WireError> {
    let mut error = ServerError::default();
    while let Some(field) = fields.next()? {
        let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
        // Field types: PostgreSQL documentation, "Error and Notice Message Fields".
        match field.type_() {
            b'C' => error.sqlstate = value,
            b'M' => error.message = value,
            b'D' => error.detail = Some(value),
            b'n' => error.constraint = Some(value),
            b't' => error.table = Some(value),
            _ => {}
        }
    }
    Ok(error)
}

/// A row of binary columns.
#[derive(Debug)]
pub struct Row {
    bytes: Bytes,
    columns: smallvec::SmallVec<[Option<(u32, u32)>; 10]>,
}

impl Row {
    fn new(body: &DataRowBody) -> Result<Self, WireError> {
        let mut columns = smallvec::SmallVec::new();
        let mut ranges = body.ranges();
        while let Some(range) = ranges.next()? {
            columns.push(match range {
                None => None,
                Some(range) => Some((offset(range.start)?, offset(range.end)?)),
            });
        }
        Ok(Self {
            bytes: body.buffer_bytes().clone(),
            columns,
        })
    }

    /// The bytes of a column; `None` is NULL.
    ///
    /// # Errors
    /// There is no such column.
    pub fn get(&self, index: usize) -> Result<Option<&[u8]>, WireError> {
        let column = self
            .columns
            .get(index)
            .ok_or(WireError::Protocol("a column is missing"))?;
        let Some((start, end)) = column else {
            return Ok(None);
        };
        let (start, end) = (
            usize::try_from(*start).unwrap_or(usize::MAX),
            usize::try_from(*end).unwrap_or(usize::MAX),
        );
        self.bytes
            .get(start..end)
            .map(Some)
            .ok_or(WireError::Protocol("a column past its row"))
    }

    /// A BIGINT.
    ///
    /// # Errors
    /// It is of another length.
    pub fn i64(&self, index: usize) -> Result<Option<i64>, WireError> {
        self.array(index).map(|bytes| bytes.map(i64::from_be_bytes))
    }

    /// A BIGINT that cannot be NULL.
    ///
    /// # Errors
    /// It is NULL or of another length.
    pub fn i64_or_missing(&self, index: usize) -> Result<i64, WireError> {
        self.i64(index)?
            .ok_or(WireError::Protocol("a column is null"))
    }

    /// A SMALLINT that cannot be NULL.
    ///
    /// # Errors
    /// It is NULL or of another length.
    pub fn i16_or_missing(&self, index: usize) -> Result<i16, WireError> {
        self.array(index)?
            .map(i16::from_be_bytes)
            .ok_or(WireError::Protocol("a column is null"))
    }

    /// An INTEGER that cannot be NULL.
    ///
    /// # Errors
    /// It is NULL or of another length.
    pub fn i32_or_missing(&self, index: usize) -> Result<i32, WireError> {
        self.array(index)?
            .map(i32::from_be_bytes)
            .ok_or(WireError::Protocol("a column is null"))
    }

    /// A UUID.
    ///
    /// # Errors
    /// It is of another length.
    pub fn uuid(&self, index: usize) -> Result<Option<uuid::Uuid>, WireError> {
        self.array(index)
            .map(|bytes| bytes.map(uuid::Uuid::from_bytes))
    }

    /// A UUID that cannot be NULL.
    ///
    /// # Errors
    /// It is NULL or of another length.
    pub fn uuid_or_missing(&self, index: usize) -> Result<uuid::Uuid, WireError> {
        self.uuid(index)?
            .ok_or(WireError::Protocol("a column is null"))
    }

    /// A TIMESTAMPTZ that cannot be NULL, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// It is NULL or of another length.
    pub fn unix_ms_or_missing(&self, index: usize) -> Result<i64, WireError> {
        // On the wire: microseconds since 2000-01-01 UTC.
        const EPOCH_MS: i64 = 946_684_800_000;
        Ok(self
            .i64_or_missing(index)?
            .div_euclid(1_000)
            .saturating_add(EPOCH_MS))
    }

    /// A text column.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub fn text(&self, index: usize) -> Result<Option<&str>, WireError> {
        match self.get(index)? {
            None => Ok(None),
            Some(bytes) => std::str::from_utf8(bytes)
                .map(Some)
                .map_err(|_not_utf8| WireError::Protocol("a text is not UTF-8")),
        }
    }

    fn array<const N: usize>(&self, index: usize) -> Result<Option<[u8; N]>, WireError> {
        match self.get(index)? {
            None => Ok(None),
            Some(bytes) => bytes
                .try_into()
                .map(Some)
                .map_err(|_length| WireError::Protocol("a column of another length")),
        }
    }
}

fn offset(offset: usize) -> Result<u32, WireError> {
    u32::try_from(offset).map_err(|_too_long| WireError::Protocol("a row beyond 4 GiB"))
}
