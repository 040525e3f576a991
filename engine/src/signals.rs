//! SIGTERM and Ctrl-C, as something to await.

use std::io;

use futures_util::stream::{self, Stream};
use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};

/// Listens from its creation on: a signal before the first wait is not lost.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
}

impl Signals {
    /// Needs a runtime.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
        })
    }

    /// One item for each request to stop.
    pub(crate) fn all(self) -> impl Stream<Item = ()> + Unpin + Send {
        Box::pin(stream::unfold(self, async |mut signals| {
            signals.next().await;
            Some(((), signals))
        }))
    }

    /// The next request to stop.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
        }
    }
}
