//! Binary values: statement arguments and COPY rows.
//!
//! Shapes are PostgreSQL's binary formats: big endian, every value preceded by
//! its length in bytes as an `i32`, -1 for NULL.

use std::io;

use bytes::{BufMut, BytesMut};
use uuid::Uuid;

/// Type numbers from PostgreSQL's `pg_type.dat`; they never change.
pub mod oid {
    #![expect(missing_docs, reason = "the names are PostgreSQL's own")]
    pub const INT2: u32 = 21;
    pub const INT4: u32 = 23;
    pub const INT8: u32 = 20;
    pub const TEXT: u32 = 25;
    pub const UUID: u32 = 2950;
    pub const INT2_ARRAY: u32 = 1005;
    pub const INT4_ARRAY: u32 = 1007;
    pub const INT8_ARRAY: u32 = 1016;
    pub const TEXT_ARRAY: u32 = 1009;
    pub const UUID_ARRAY: u32 = 2951;
}

/// A value that can stand for a statement's parameter.
pub trait Argument {
    /// Writes the value without its length.
    ///
    /// # Errors
    /// It is longer than the protocol can say.
    fn write(&self, out: &mut BytesMut) -> io::Result<()>;
}

impl Argument for i32 {
    fn write(&self, out: &mut BytesMut) -> io::Result<()> {
        out.put_i32(*self);
        Ok(())
    }
}

impl Argument for i64 {
    fn write(&self, out: &mut BytesMut) -> io::Result<()> {
        out.put_i64(*self);
        Ok(())
    }
}

impl Argument for Uuid {
    fn write(&self, out: &mut BytesMut) -> io::Result<()> {
        out.put_slice(self.as_bytes());
        Ok(())
    }
}

/// An element of an array argument.
pub trait Element {
    /// The element's type.
    const OID: u32;
    /// Writes length and value.
    ///
    /// # Errors
    /// It is longer than the protocol can say.
    fn put(&self, out: &mut BytesMut) -> io::Result<()>;
}

impl Element for i64 {
    const OID: u32 = oid::INT8;
    fn put(&self, out: &mut BytesMut) -> io::Result<()> {
        put_i64(*self, out);
        Ok(())
    }
}

impl Element for i32 {
    const OID: u32 = oid::INT4;
    fn put(&self, out: &mut BytesMut) -> io::Result<()> {
        put_i32(*self, out);
        Ok(())
    }
}

impl Element for i16 {
    const OID: u32 = oid::INT2;
    fn put(&self, out: &mut BytesMut) -> io::Result<()> {
        put_i16(*self, out);
        Ok(())
    }
}

impl Element for Uuid {
    const OID: u32 = oid::UUID;
    fn put(&self, out: &mut BytesMut) -> io::Result<()> {
        put_uuid(*self, out);
        Ok(())
    }
}

impl Element for &str {
    const OID: u32 = oid::TEXT;
    fn put(&self, out: &mut BytesMut) -> io::Result<()> {
        put_bytes(self.as_bytes(), out)
    }
}

impl<T: Element> Element for Option<T> {
    const OID: u32 = T::OID;
    fn put(&self, out: &mut BytesMut) -> io::Result<()> {
        match self {
            Some(value) => value.put(out),
            None => {
                put_null(out);
                Ok(())
            }
        }
    }
}

impl<T: Element> Argument for Vec<T> {
    fn write(&self, out: &mut BytesMut) -> io::Result<()> {
        let length = i32::try_from(self.len()).map_err(|_too_long| too_long())?;
        // Dimensions, "has nulls" (only a hint), element type, length, lower bound.
        out.put_i32(i32::from(length > 0));
        out.put_i32(1);
        out.put_u32(T::OID);
        if length > 0 {
            out.put_i32(length);
            out.put_i32(1);
        }
        for element in self {
            element.put(out)?;
        }
        Ok(())
    }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "a value beyond 2 GiB")
}

/// Writes a Bind of the unnamed portal: all binary, in and out.
pub(super) fn bind(
    statement: &str,
    arguments: &[&dyn Argument],
    out: &mut BytesMut,
) -> io::Result<()> {
    out.put_u8(b'B');
    framed(out, |out| {
        out.put_u8(0);
        out.put_slice(statement.as_bytes());
        out.put_u8(0);
        out.put_i16(1);
        out.put_i16(1);
        out.put_i16(i16::try_from(arguments.len()).map_err(|_too_many| too_long())?);
        for argument in arguments {
            sized(out, |out| argument.write(out))?;
        }
        out.put_i16(1);
        out.put_i16(1);
        Ok(())
    })
}

/// Writes what `body` writes, preceded by a length that counts itself.
fn framed(
    out: &mut BytesMut,
    body: impl FnOnce(&mut BytesMut) -> io::Result<()>,
) -> io::Result<()> {
    let start = out.len();
    out.put_i32(0);
    body(out)?;
    patch(out, start, start)
}

/// Writes what `body` writes, preceded by its length.
fn sized(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> io::Result<()> {
    let start = out.len();
    out.put_i32(0);
    body(out)?;
    patch(out, start, start.saturating_add(4))
}

fn patch(out: &mut BytesMut, at: usize, counted_from: usize) -> io::Result<()> {
    let length =
        i32::try_from(out.len().saturating_sub(counted_from)).map_err(|_long| too_long())?;
    match out.get_mut(at..at.saturating_add(4)) {
        Some(place) => place.copy_from_slice(&length.to_be_bytes()),
        None => return Err(too_long()),
    }
    Ok(())
}

/// Queues a whole binary COPY: one data message of `rows`, and its end.
///
/// # Errors
/// The data is longer than one message can be (2 GiB).
pub fn copy(
    out: &mut BytesMut,
    rows: impl FnOnce(&mut BytesMut) -> io::Result<()>,
) -> io::Result<()> {
    out.put_u8(b'd');
    framed(out, |out| {
        out.put_slice(b"PGCOPY\n\xff\r\n\0");
        // Flags, then the length of an extension area that is not there.
        out.put_i32(0);
        out.put_i32(0);
        rows(out)?;
        out.put_i16(-1);
        Ok(())
    })?;
    postgres_protocol::message::frontend::copy_done(out);
    Ok(())
}

/// NULL.
pub fn put_null(out: &mut BytesMut) {
    out.put_i32(-1);
}

/// A BIGINT with its length.
pub fn put_i64(value: i64, out: &mut BytesMut) {
    out.put_i32(8);
    out.put_i64(value);
}

/// An INTEGER with its length.
pub fn put_i32(value: i32, out: &mut BytesMut) {
    out.put_i32(4);
    out.put_i32(value);
}

/// A SMALLINT with its length.
pub fn put_i16(value: i16, out: &mut BytesMut) {
    out.put_i32(2);
    out.put_i16(value);
}

/// A UUID with its length.
pub fn put_uuid(value: Uuid, out: &mut BytesMut) {
    out.put_i32(16);
    out.put_slice(value.as_bytes());
}

/// A UUID or NULL.
pub fn put_uuid_or_null(value: Option<Uuid>, out: &mut BytesMut) {
    match value {
        Some(value) => put_uuid(value, out),
        None => put_null(out),
    }
}

/// Bytes (text) with their length.
///
/// # Errors
/// They are longer than the protocol can say.
pub fn put_bytes(value: &[u8], out: &mut BytesMut) -> io::Result<()> {
    out.put_i32(i32::try_from(value.len()).map_err(|_long| too_long())?);
    out.put_slice(value);
    Ok(())
}

/// Text or NULL.
///
/// # Errors
/// It is longer than the protocol can say.
pub fn put_text_or_null(value: Option<&str>, out: &mut BytesMut) -> io::Result<()> {
    match value {
        Some(value) => put_bytes(value.as_bytes(), out),
        None => {
            put_null(out);
            Ok(())
        }
    }
}

/// A JSON text as JSONB, or NULL. JSONB's binary form is a version byte and text.
///
/// # Errors
/// It is longer than the protocol can say.
pub fn put_jsonb_or_null(value: Option<&str>, out: &mut BytesMut) -> io::Result<()> {
    match value {
        Some(value) => sized(out, |out| {
            out.put_u8(1);
            out.put_slice(value.as_bytes());
            Ok(())
        }),
        None => {
            put_null(out);
            Ok(())
        }
    }
}
