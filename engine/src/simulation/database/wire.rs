//! PostgreSQL's protocol as the server speaks it: just what the engine uses.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

/// PostgreSQL counts time from 2000-01-01.
const EPOCH_MS: i64 = 946_684_800_000;

/// An error or a warning of the server.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) sqlstate: &'static str,
    pub(super) constraint: Option<String>,
    /// The session ends with it.
    pub(super) fatal: bool,
}

impl Said {
    pub(super) const fn error(sqlstate: &'static str) -> Self {
        Self {
            sqlstate,
            constraint: None,
            fatal: false,
        }
    }

    pub(super) const fn fatal(sqlstate: &'static str) -> Self {
        Self {
            sqlstate,
            constraint: None,
            fatal: true,
        }
    }

    pub(super) fn constraint(sqlstate: &'static str, name: impl Into<String>) -> Self {
        Self {
            sqlstate,
            constraint: Some(name.into()),
            fatal: false,
        }
    }
}

fn framed(kind: u8, out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    let start = out.len();
    out.put_i32(0);
    body(out);
    let length = i32::try_from(out.len() - start).unwrap_or(i32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

pub(super) fn bare(kind: u8, out: &mut BytesMut) {
    framed(kind, out, |_| {});
}

pub(super) fn authenticated(pid: i32, out: &mut BytesMut) {
    framed(b'R', out, |out| out.put_i32(0));
    framed(b'K', out, |out| {
        out.put_i32(pid);
        out.put_i32(7);
    });
}

pub(super) fn ready(state: u8, out: &mut BytesMut) {
    framed(b'Z', out, |out| out.put_u8(state));
}

pub(super) fn complete(tag: &str, out: &mut BytesMut) {
    framed(b'C', out, |out| {
        out.put_slice(tag.as_bytes());
        out.put_u8(0);
    });
}

pub(super) fn copy_in(out: &mut BytesMut) {
    framed(b'G', out, |out| {
        out.put_u8(1);
        out.put_i16(0);
    });
}

pub(super) fn said(kind: u8, said: &Said, out: &mut BytesMut) {
    framed(kind, out, |out| {
        let mut field = |kind: u8, value: &str| {
            out.put_u8(kind);
            out.put_slice(value.as_bytes());
            out.put_u8(0);
        };
        field(b'S', if said.fatal { "FATAL" } else { "ERROR" });
        field(b'C', said.sqlstate);
        field(b'M', "simulated");
        if let Some(constraint) = &said.constraint {
            field(b'n', constraint);
        }
        out.put_u8(0);
    });
}

/// A column of a row.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    I64(i64),
    I16(i16),
    Uuid(Uuid),
    /// Milliseconds since the Unix epoch.
    Time(i64),
    Text(String),
}

impl Value {
    pub(super) fn or_null<T>(value: Option<T>, kind: impl FnOnce(T) -> Self) -> Self {
        value.map_or(Self::Null, kind)
    }
}

pub(super) fn row(values: &[Value], out: &mut BytesMut) {
    framed(b'D', out, |out| {
        out.put_i16(i16::try_from(values.len()).unwrap_or(i16::MAX));
        for value in values {
            match value {
                Value::Null => out.put_i32(-1),
                Value::I64(number) => {
                    out.put_i32(8);
                    out.put_i64(*number);
                }
                Value::I16(number) => {
                    out.put_i32(2);
                    out.put_i16(*number);
                }
                Value::Uuid(uuid) => {
                    out.put_i32(16);
                    out.put_slice(uuid.as_bytes());
                }
                Value::Time(unix_ms) => {
                    out.put_i32(8);
                    out.put_i64((unix_ms - EPOCH_MS) * 1_000);
                }
                Value::Text(text) => {
                    out.put_i32(i32::try_from(text.len()).unwrap_or(i32::MAX));
                    out.put_slice(text.as_bytes());
                }
            }
        }
    });
}

/// Text up to the next zero byte.
pub(super) fn text(body: &mut BytesMut) -> String {
    let end = body.iter().position(|byte| *byte == 0);
    let text = body.split_to(end.unwrap_or(body.len()));
    if body.has_remaining() {
        body.advance(1);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// A Bind message: the statement's name and its parameters.
pub(super) fn bind(mut body: BytesMut) -> (String, Vec<Field>) {
    drop(text(&mut body));
    let statement = text(&mut body);
    let formats = body.get_i16();
    for _ in 0..formats {
        body.get_i16();
    }
    let count = body.get_i16();
    let mut body = body.freeze();
    (statement, (0..count).map(|_| field(&mut body)).collect())
}

/// The rows of a binary COPY.
pub(super) fn copied(data: BytesMut) -> Vec<Vec<Field>> {
    let mut data = data.freeze();
    // The signature, flags, and the length of the extension area.
    data.advance(11 + 4 + 4);
    let mut rows = Vec::new();
    loop {
        let columns = data.get_i16();
        if columns < 0 {
            return rows;
        }
        rows.push((0..columns).map(|_| field(&mut data)).collect());
    }
}

fn field(body: &mut Bytes) -> Field {
    let length = body.get_i32();
    Field(
        usize::try_from(length)
            .ok()
            .map(|length| body.split_to(length)),
    )
}

/// A parameter, an element or a column, in binary.
#[derive(Clone, Debug)]
pub(super) struct Field(Option<Bytes>);

impl Field {
    fn fixed<const N: usize>(&self) -> Option<[u8; N]> {
        let bytes = self.0.as_ref()?;
        Some(bytes[..].try_into().expect("a column of its type's length"))
    }

    pub(super) fn i64(&self) -> i64 {
        self.fixed().map_or(0, i64::from_be_bytes)
    }

    pub(super) fn i64_or_null(&self) -> Option<i64> {
        self.fixed().map(i64::from_be_bytes)
    }

    pub(super) fn i32(&self) -> i32 {
        self.fixed().map_or(0, i32::from_be_bytes)
    }

    pub(super) fn i16(&self) -> i16 {
        self.fixed().map_or(0, i16::from_be_bytes)
    }

    pub(super) fn uuid(&self) -> Uuid {
        self.uuid_or_null().unwrap_or_default()
    }

    pub(super) fn uuid_or_null(&self) -> Option<Uuid> {
        self.fixed().map(Uuid::from_bytes)
    }

    pub(super) fn text(&self) -> Option<String> {
        let bytes = self.0.as_ref()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }

    /// The elements of an array.
    pub(super) fn array(&self) -> Vec<Self> {
        let mut bytes = self.0.clone().unwrap_or_default();
        let dimensions = bytes.get_i32();
        bytes.advance(8);
        if dimensions == 0 {
            return Vec::new();
        }
        let length = bytes.get_i32();
        bytes.advance(4);
        (0..length).map(|_| field(&mut bytes)).collect()
    }
}
