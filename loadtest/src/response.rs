//! Reads HTTP/1.1 responses from whatever pieces the socket gives.
//!
//! Owns: the bytes of one connection's unfinished response.
//! Never: does I/O, or allocates for a response that came in one piece and
//! whose body nobody wants.
//! Bound: `HEAD_BYTES_MAX` of head, `BODY_BYTES_MAX` of body.
//! Invariant: the result does not depend on where the input was split.

use std::fmt;
use std::time::Duration;

const HEAD_BYTES_MAX: usize = 64 * 1024;
/// A batch answer of 8,192 items is about 1 MiB.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Whose bodies are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeepBody {
    /// Of answers outside 2xx only: they carry a problem code.
    Problems,
    /// Of every answer: a batch reports each transfer in its body.
    All,
}

/// A complete response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response<'a> {
    pub(crate) status: u16,
    /// The server will close the connection.
    pub(crate) close: bool,
    /// `Idempotency-Replayed: true`.
    pub(crate) replayed: bool,
    /// `Retry-After`, if given in seconds: the engine never gives a date.
    pub(crate) retry_after: Option<Duration>,
    /// Empty unless kept.
    pub(crate) body: &'a [u8],
}

/// Why bytes are not a response this client understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProtocolError {
    StatusLine,
    Header,
    ContentLength,
    /// No Content-Length (chunked, or until close): the engine never does that.
    Unframed,
    HeadTooLarge,
    BodyTooLarge,
    /// A TLS record.
    Encrypted,
    /// Bytes that belong to no request.
    Unsolicited,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StatusLine => "malformed status line",
            Self::Header => "malformed header",
            Self::ContentLength => "malformed or contradicting Content-Length",
            Self::Unframed => "response without Content-Length",
            Self::HeadTooLarge => "response head over 64 KiB",
            Self::BodyTooLarge => "response body over 64 MiB",
            Self::Encrypted => "the target answers in TLS: use --host https://",
            Self::Unsolicited => "bytes after the end of the response",
        })
    }
}

impl std::error::Error for ProtocolError {}

#[derive(Clone, Copy, Debug)]
struct Head {
    status: u16,
    close: bool,
    replayed: bool,
    retry_after: Option<Duration>,
    body_bytes: usize,
}

/// The parser of one connection.
#[derive(Debug)]
pub(crate) struct Parser {
    /// Of the answer to come.
    pub(crate) keep: KeepBody,
    partial_head: Vec<u8>,
    head: Option<Head>,
    body_seen: usize,
    body: Vec<u8>,
}

impl Parser {
    pub(crate) fn new(keep: KeepBody) -> Self {
        Self {
            keep,
            partial_head: Vec::new(),
            head: None,
            body_seen: 0,
            body: Vec::new(),
        }
    }

    /// Forgets an unfinished response, for a new connection.
    pub(crate) fn reset(&mut self) {
        self.partial_head.clear();
        self.head = None;
        self.body_seen = 0;
        self.body.clear();
    }

    /// Takes the next bytes; gives the response when it is complete.
    ///
    /// # Errors
    /// [`ProtocolError`]; the connection cannot be used any more.
    pub(crate) fn feed(&mut self, input: &[u8]) -> Result<Option<Response<'_>>, ProtocolError> {
        let mut rest = input;
        let head = loop {
            if let Some(head) = self.head {
                break head;
            }
            let Some((head, after)) = self.take_head(rest)? else {
                return Ok(None);
            };
            rest = after;
            // 100 Continue and its kin precede the real answer.
            if head.status >= 200 {
                self.head = Some(head);
                self.body_seen = 0;
                self.body.clear();
            }
        };
        self.body_seen += rest.len();
        if self.body_seen > head.body_bytes {
            return Err(ProtocolError::Unsolicited);
        }
        if self.keep == KeepBody::All || !(200..300).contains(&head.status) {
            self.body.extend_from_slice(rest);
        }
        if self.body_seen < head.body_bytes {
            return Ok(None);
        }
        self.head = None;
        Ok(Some(Response {
            status: head.status,
            close: head.close,
            replayed: head.replayed,
            retry_after: head.retry_after,
            body: &self.body,
        }))
    }

    /// The head, if `input` completes it, and what follows it.
    fn take_head<'a>(
        &mut self,
        input: &'a [u8],
    ) -> Result<Option<(Head, &'a [u8])>, ProtocolError> {
        let kept = self.partial_head.len();
        if kept == 0
            && let Some(end) = find(input, HEAD_END)
        {
            let (head, rest) = input.split_at(end + HEAD_END.len());
            return Ok(Some((parse_head(head)?, rest)));
        }
        self.partial_head.extend_from_slice(input);
        // The end may straddle the old and the new bytes.
        let from = kept.saturating_sub(HEAD_END.len() - 1);
        let Some(end) = find(&self.partial_head[from..], HEAD_END) else {
            // An alert (0x15) or part of a handshake (0x16), of any version 3.x.
            if let [0x15 | 0x16, 3, ..] = self.partial_head[..] {
                return Err(ProtocolError::Encrypted);
            }
            if self.partial_head.len() > HEAD_BYTES_MAX {
                return Err(ProtocolError::HeadTooLarge);
            }
            return Ok(None);
        };
        let head_bytes = from + end + HEAD_END.len();
        let head = parse_head(&self.partial_head[..head_bytes])?;
        self.partial_head.clear();
        Ok(Some((head, &input[head_bytes - kept..])))
    }
}

/// Where `needle` (not empty) first occurs.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|byte| *byte == first) {
        if haystack[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// `bytes` ends with an empty line.
fn parse_head(bytes: &[u8]) -> Result<Head, ProtocolError> {
    if bytes.len() > HEAD_BYTES_MAX {
        return Err(ProtocolError::HeadTooLarge);
    }
    let line_end = find(bytes, b"\r\n").ok_or(ProtocolError::StatusLine)?;
    let (status_line, mut rest) = bytes.split_at(line_end);
    let (status, minor) = parse_status_line(status_line)?;
    let mut head = Head {
        status,
        close: minor == 0,
        replayed: false,
        retry_after: None,
        body_bytes: 0,
    };
    let mut length = None;
    loop {
        rest = &rest[2..];
        let end = find(rest, b"\r\n").ok_or(ProtocolError::Header)?;
        let (line, after) = rest.split_at(end);
        if line.is_empty() {
            break;
        }
        rest = after;
        read_header(line, &mut head, &mut length)?;
    }
    let bodiless = head.status < 200 || head.status == 204 || head.status == 304;
    head.body_bytes = match length {
        _ if bodiless => 0,
        Some(bytes) if bytes > BODY_BYTES_MAX => return Err(ProtocolError::BodyTooLarge),
        Some(bytes) => bytes,
        None => return Err(ProtocolError::Unframed),
    };
    Ok(head)
}

fn read_header(
    line: &[u8],
    head: &mut Head,
    length: &mut Option<usize>,
) -> Result<(), ProtocolError> {
    let colon = find(line, b":").ok_or(ProtocolError::Header)?;
    let name = &line[..colon];
    let value = line[colon + 1..].trim_ascii();
    // Most headers are none of these: the length decides without a comparison.
    match name.len() {
        14 if name.eq_ignore_ascii_case(b"content-length") => {
            let bytes = std::str::from_utf8(value)
                .ok()
                .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|text| text.parse::<usize>().ok())
                .ok_or(ProtocolError::ContentLength)?;
            if length.replace(bytes).is_some_and(|before| before != bytes) {
                return Err(ProtocolError::ContentLength);
            }
        }
        17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
            return Err(ProtocolError::Unframed);
        }
        10 if name.eq_ignore_ascii_case(b"connection") => {
            if value.eq_ignore_ascii_case(b"close") {
                head.close = true;
            } else if value.eq_ignore_ascii_case(b"keep-alive") {
                head.close = false;
            }
        }
        11 if name.eq_ignore_ascii_case(b"retry-after") => {
            // Advice, not framing: what cannot be read is as good as absent.
            let text = std::str::from_utf8(value).ok();
            let seconds = text.and_then(|text| text.parse::<u32>().ok());
            head.retry_after = seconds.map(|seconds| Duration::from_secs(seconds.into()));
        }
        20 if name.eq_ignore_ascii_case(b"idempotency-replayed") => {
            head.replayed = value.eq_ignore_ascii_case(b"true");
        }
        _ => {}
    }
    Ok(())
}

/// `HTTP/1.1 200 OK`: the status and the minor version.
fn parse_status_line(line: &[u8]) -> Result<(u16, u8), ProtocolError> {
    let bad = ProtocolError::StatusLine;
    let rest = line.strip_prefix(b"HTTP/1.").ok_or(bad)?;
    let [minor @ (b'0' | b'1'), b' ', a, b, c, after @ ..] = rest else {
        return Err(bad);
    };
    if !matches!(after.first(), None | Some(b' ')) || !(b'1'..=b'5').contains(a) {
        return Err(bad);
    }
    let mut status = 0;
    for digit in [a, b, c] {
        if !digit.is_ascii_digit() {
            return Err(bad);
        }
        status = status * 10 + u16::from(digit - b'0');
    }
    Ok((status, minor - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nContent-Length: 11\r\nIdempotency-Replayed: true\r\n\r\n{\"a\":\r\n\r\n1}";
    const REFUSED: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nCONTENT-LENGTH:  3 \r\n\r\nno!";
    const EMPTY: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
    const CONTINUE: &[u8] =
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404\r\ncontent-length: 0\r\n\r\n";

    type Owned = (u16, bool, bool, Vec<u8>);

    fn feed_all(keep: KeepBody, pieces: &[&[u8]]) -> Result<Option<Owned>, ProtocolError> {
        let mut parser = Parser::new(keep);
        let mut last = None;
        for piece in pieces {
            assert_eq!(last, None, "a response before its last byte");
            last = parser
                .feed(piece)?
                .map(|r| (r.status, r.close, r.replayed, r.body.to_vec()));
        }
        Ok(last)
    }

    #[track_caller]
    fn check_splits(input: &[u8], expected: &Owned) {
        let whole = feed_all(KeepBody::All, &[input]);
        assert_eq!(whole, Ok(Some(expected.clone())));
        for a in 0..=input.len() {
            let (left, right) = input.split_at(a);
            if right.is_empty() {
                continue;
            }
            for b in 0..right.len() {
                let (middle, right) = right.split_at(b);
                let got = feed_all(KeepBody::All, &[left, middle, right]);
                assert_eq!(got, Ok(Some(expected.clone())), "split at {a} and {b}");
            }
        }
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(
            feed_all(KeepBody::All, &bytes),
            Ok(Some(expected.clone())),
            "byte by byte"
        );
    }

    #[test]
    fn a_response_is_the_same_wherever_it_is_split() {
        check_splits(OK, &(200, false, true, b"{\"a\":\r\n\r\n1}".to_vec()));
        check_splits(REFUSED, &(503, true, false, b"no!".to_vec()));
        check_splits(EMPTY, &(204, false, false, vec![]));
        check_splits(CONTINUE, &(404, true, false, vec![]));
    }

    #[test]
    fn one_connection_reads_one_response_after_another() {
        let mut parser = Parser::new(KeepBody::Problems);
        for _ in 0..3 {
            assert!(parser.feed(&OK[..70]).unwrap().is_none());
            let body = parser.feed(&OK[70..]).unwrap().unwrap().body;
            assert_eq!(body, b"", "a 2xx body is not kept");
            assert_eq!(parser.feed(REFUSED).unwrap().unwrap().body, b"no!");
        }
        assert!(parser.feed(&OK[..70]).unwrap().is_none());
        parser.reset();
        assert_eq!(parser.feed(REFUSED).unwrap().unwrap().status, 503);
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_forgotten_with_the_answer() {
        let mut parser = Parser::new(KeepBody::Problems);
        for (header, expected) in [
            ("Retry-After: 3\r\n", Some(3)),
            ("retry-after:0\r\n", Some(0)),
            ("", None),
            ("Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n", None),
            ("Retry-After: -1\r\n", None),
        ] {
            let head = format!("HTTP/1.1 503 X\r\n{header}content-length: 0\r\n\r\n");
            let response = parser.feed(head.as_bytes()).unwrap().unwrap();
            assert_eq!(
                response.retry_after,
                expected.map(Duration::from_secs),
                "{header}"
            );
        }
    }

    #[track_caller]
    fn check_refused(input: &[u8], expected: ProtocolError) {
        assert_eq!(
            feed_all(KeepBody::All, &[input]),
            Err(expected),
            "{:?}",
            String::from_utf8_lossy(input)
        );
    }

    #[test]
    fn what_is_not_a_response_is_refused() {
        check_refused(b"\x15\x03\x03\0\x02\x02\x32", ProtocolError::Encrypted);
        check_refused(b"\x16\x03", ProtocolError::Encrypted);
        check_refused(b"SSH-2.0-x\r\n\r\n", ProtocolError::StatusLine);
        check_refused(b"HTTP/2.0 200 OK\r\n\r\n", ProtocolError::StatusLine);
        check_refused(b"HTTP/1.1 2000\r\n\r\n", ProtocolError::StatusLine);
        check_refused(b"HTTP/1.1 600 X\r\n\r\n", ProtocolError::StatusLine);
        check_refused(b"HTTP/1.1 200 OK\r\nx\r\n\r\n", ProtocolError::Header);
        check_refused(b"HTTP/1.1 200 OK\r\n\r\n", ProtocolError::Unframed);
        check_refused(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            ProtocolError::Unframed,
        );
        for length in [&b"-1"[..], b"+1", b"", b"1, 1", b"99999999999999999999"] {
            let head = [b"HTTP/1.1 200 OK\r\ncontent-length: ", length, b"\r\n\r\n"].concat();
            check_refused(&head, ProtocolError::ContentLength);
        }
        check_refused(
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            ProtocolError::ContentLength,
        );
        check_refused(
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab",
            ProtocolError::Unsolicited,
        );
        check_refused(&vec![b'x'; HEAD_BYTES_MAX + 1], ProtocolError::HeadTooLarge);
        let large = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
            BODY_BYTES_MAX + 1
        );
        check_refused(large.as_bytes(), ProtocolError::BodyTooLarge);
    }
}
