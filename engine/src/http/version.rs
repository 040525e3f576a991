//! HTTP/1 or HTTP/2: told by a connection's first bytes.
//!
//! Owns: those bytes until the server that they call for has read them.
//! Why not hyper-util's: what it reads first it hands on as a read of its own, of
//! 24 bytes, whereupon hyper doubles its buffer. That was 8 KiB of every
//! connection, a third of its memory.
//! Bound: [`PREFACE`]'s length.

use std::io;

use hyper::Version;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What an HTTP/2 client says first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection's first bytes.
#[derive(Debug, Default)]
pub(super) struct FirstBytes {
    bytes: [u8; PREFACE.len()],
    /// Those from `start` to `end` are there.
    start: usize,
    end: usize,
}

impl FirstBytes {
    /// Reads until it is certain which version they belong to. A client that
    /// closes first has spoken HTTP/1 as far as anyone can tell.
    pub(super) async fn read(
        stream: &mut (impl AsyncRead + Unpin),
        mut heard: impl FnMut(),
    ) -> io::Result<(Version, Self)> {
        let mut first = Self::default();
        loop {
            let read = stream.read(&mut first.bytes[first.end..]).await?;
            // The reader's contract: at most what there was room for.
            first.end = first.end.saturating_add(read).min(PREFACE.len());
            let known = first.bytes.get(..first.end).unwrap_or_default();
            if read == 0 || !PREFACE.starts_with(known) {
                return Ok((Version::HTTP_11, first));
            }
            if known.len() == PREFACE.len() {
                return Ok((Version::HTTP_2, first));
            }
            heard();
        }
    }

    /// Gives the next of them, at most so many.
    pub(super) fn take(&mut self, bytes_max: usize) -> &[u8] {
        let start = self.start;
        self.start = start.saturating_add(bytes_max).min(self.end);
        self.bytes.get(start..self.start).unwrap_or_default()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(one: &[u8], other: &[u8]) -> (Version, Vec<u8>) {
        let mut stream = one.chain(other);
        let (version, mut first) = FirstBytes::read(&mut stream, || {}).await.unwrap();
        let mut bytes = Vec::new();
        while !first.is_empty() {
            bytes.extend_from_slice(first.take(7));
        }
        (version, bytes)
    }

    #[tokio::test]
    async fn the_preface_tells_and_nothing_is_lost() {
        let http2 = (Version::HTTP_2, PREFACE.to_vec());
        assert_eq!(told(PREFACE, b"").await, http2);
        assert_eq!(told(&PREFACE[..3], &PREFACE[3..]).await, http2);
        let http1 = |bytes: &[u8]| (Version::HTTP_11, bytes.to_vec());
        assert_eq!(
            told(b"GET / HTTP/1.1\r\n", b"").await,
            http1(b"GET / HTTP/1.1\r\n")
        );
        assert_eq!(
            told(b"P", b"ATCH / HTTP/1.1").await,
            http1(b"PATCH / HTTP/1.1")
        );
        assert_eq!(told(b"PR", b"").await, http1(b"PR"));
        assert_eq!(told(b"", b"").await, http1(b""));
    }
}
