//! How a listener closes without losing a client that is half inside.
//!
//! Owns: the moment between the last handshake begun and the socket's end.
//! Why: what the kernel has accepted and nobody took is reset when a listener
//! closes, and with it the request that its client sent at once. Between the last
//! `accept` and the close such a connection can always slip in, unless nobody may
//! knock any more: new handshakes are dropped first, unanswered, so that their
//! clients try again a second later and then are refused in order.
//! Bound: the caller's; closing itself waits for nobody.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

/// No new handshake from now on; those begun come to their end and wait to be
/// accepted. Where it cannot be had, closing loses them as everywhere else.
pub(super) fn let_nobody_knock(listener: &TcpListener) {
    #[cfg(target_os = "linux")]
    if let Err(error) = socket2::SockRef::from(listener).attach_filter(&NO_HANDSHAKE) {
        tracing::debug!(%error, "a listener closes without a filter");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = listener;
}

/// Takes in whoever waits, and closes.
pub(super) fn close(listener: TcpListener) -> Vec<(TcpStream, SocketAddr)> {
    // Straight from the kernel: the runtime may not have heard of them yet.
    let Ok(listener) = listener.into_std() else {
        return Vec::new();
    };
    all_of(|| listener.accept())
        .into_iter()
        .filter_map(|(stream, client)| match in_runtime(stream) {
            Ok(stream) => Some((stream, client)),
            Err(error) => {
                tracing::debug!(%error, "a connection closed before it was served");
                None
            }
        })
        .collect()
}

/// Until nobody waits any more: one that went away while it waited is not the last.
fn all_of<T>(mut accept: impl FnMut() -> io::Result<T>) -> Vec<T> {
    let mut inside = Vec::new();
    loop {
        match accept() {
            Ok(one) => inside.push(one),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return inside,
            Err(error) if !is_of_process(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "a listener closes on connections that it cannot accept");
                return inside;
            }
        }
    }
}

/// Errors of the connection itself concern nobody else; those of the process,
/// such as no file descriptor left, would come back at once.
pub(super) fn is_of_process(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

fn in_runtime(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// A filter of the listening socket (`man 7 socket`, `SO_ATTACH_FILTER`), over the
/// segment from its TCP header on: one with SYN, in the flags of byte 13 (RFC 9293,
/// section 3.1), is dropped, every other passes.
#[cfg(target_os = "linux")]
const NO_HANDSHAKE: [socket2::SockFilter; 4] = {
    // linux/bpf_common.h.
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const FLAGS: u32 = 13;
    const SYN: u32 = 2;
    [
        socket2::SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        socket2::SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        socket2::SockFilter::new(RETURN, 0, 0, 0),
        socket2::SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
};

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// All that came before `end`, which stands for the kernel's last word.
    #[track_caller]
    fn check(between: io::ErrorKind, end: io::ErrorKind, expected: &[u8]) {
        let told = [Ok(1), Err(between), Ok(2), Err(end)];
        let mut told = told.into_iter().map(|one| one.map_err(io::Error::from));
        assert_eq!(all_of(|| told.next().unwrap()), expected, "{between}");
    }

    #[test]
    fn one_that_went_away_does_not_lose_those_behind_it() {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, OutOfMemory, WouldBlock};
        check(ConnectionAborted, WouldBlock, &[1, 2]);
        check(ConnectionReset, WouldBlock, &[1, 2]);
        check(io::ErrorKind::Interrupted, OutOfMemory, &[1, 2]);
        check(OutOfMemory, WouldBlock, &[1]);
        check(WouldBlock, WouldBlock, &[1]);
    }

    #[tokio::test]
    async fn who_is_half_inside_comes_in_and_nobody_else() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inside = TcpStream::connect(address).await.unwrap();
        let_nobody_knock(&listener);
        let late = tokio::spawn(TcpStream::connect(address));
        tokio::time::sleep(Duration::from_millis(50)).await;
        // Neither taken nor refused.
        assert!(!late.is_finished());
        let taken = close(listener);
        let clients: Vec<_> = taken.iter().map(|(_, client)| *client).collect();
        assert_eq!(clients, [inside.local_addr().unwrap()]);
        // Its next try is refused in order.
        let refused = late.await.unwrap().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
