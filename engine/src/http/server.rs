//! Listening, accepting, and the life of a connection.
//!
//! Owns: every connection's task; they end with the future of [`serve`].
//! Bound: `connections_max` connections are served; past it [`REFUSALS_MAX`]
//! are told so at a time, and others are closed unheard.
//! Invariant: a connection's place is given back when its task ends, however it
//! ends.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::activity::{Activity, Watcher};
use super::edge::{Connection, Edge};
use super::ports::{Ledger, Observer};
use super::socket::{self, Socket};

/// Refused connections being told so at once.
const REFUSALS_MAX: usize = 64;
/// For a refused connection to read why.
const REFUSAL_TIME: Duration = Duration::from_secs(1);
/// Before accepting again when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// hyper's buffer for a head: our own, smaller limit speaks first, so that only
/// a flood meets hyper's, whose bare answer [`socket`] replaces.
const HEAD_BUFFER_BYTES: usize = 64 * 1024;
const HEAD_BUFFER_BYTES_H2: u32 = 64 * 1024;
/// Streams of one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// What one HTTP/2 stream may send ahead of being read, outside the budget.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// The same for one connection.
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

/// Serves a listener until `stop` turns true (or its sender is gone), then lets
/// every request in flight finish. Dropping the future closes all connections.
///
/// Several listeners may share one edge, also from several runtimes.
pub async fn serve<L: Ledger, O: Observer>(
    edge: Arc<Edge<L, O>>,
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
) {
    let builder = Arc::new(builder());
    let mut tasks = JoinSet::new();
    let mut refusals = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(ended) = tasks.join_next() => {
                report(ended);
                continue;
            }
            Some(ended) = refusals.join_next() => {
                report(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        // Answers are small and complete: waiting to fill a packet only delays.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection closed before it was served");
            continue;
        }
        if let Some(place) = Place::take(&edge) {
            let (builder, stop) = (Arc::clone(&builder), stop.clone());
            tasks.spawn(async move {
                converse(&builder, &place.edge, stream, client, stop).await;
            });
        } else if refusals.len() < REFUSALS_MAX {
            refusals.spawn(refuse(stream, socket::no_room(&edge.ids)));
        }
    }
    // No new connections: the socket closes, and a balancer turns elsewhere.
    drop(listener);
    while let Some(ended) = tasks.join_next().await {
        report(ended);
    }
    while let Some(ended) = refusals.join_next().await {
        report(ended);
    }
}

/// A connection's task fails by a panic only: its client sees a reset, all
/// others go on, and a person must look.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}

/// Serves one connection that was made elsewhere, such as under TLS, for as long
/// as it lasts. It takes no place of `connections_max`.
pub async fn serve_stream<L: Ledger, O: Observer>(
    edge: &Arc<Edge<L, O>>,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    client: SocketAddr,
    stop: watch::Receiver<bool>,
) {
    converse(&builder(), edge, stream, client, stop).await;
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        // Our watcher keeps this limit without a timer for every request.
        .header_read_timeout(None)
        .max_buf_size(HEAD_BUFFER_BYTES);
    builder
        .http2()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEAD_BUFFER_BYTES_H2);
    builder
}

async fn converse<L: Ledger, O: Observer>(
    builder: &Builder<TokioExecutor>,
    edge: &Arc<Edge<L, O>>,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    client: SocketAddr,
    mut stop: watch::Receiver<bool>,
) {
    let activity = Arc::new(Activity::default());
    let socket = Socket::new(stream, edge.manners(), Arc::clone(&activity));
    let shared = Arc::new(Connection {
        edge: Arc::clone(edge),
        client,
        activity: Arc::clone(&activity),
    });
    let service = service_fn(move |request| Arc::clone(&shared).serve(request));
    let mut conversation = pin!(builder.serve_connection(socket, service));
    let mut watcher = Watcher::new(edge.patience());
    let look_every = edge.patience().look_every();
    let mut look = pin!(tokio::time::sleep(look_every));
    let mut stopped = pin!(stopped(&mut stop));
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            ended = conversation.as_mut() => {
                if let Err(error) = ended {
                    // A client's doing: it went away or spoke no HTTP.
                    tracing::debug!(error, %client, "a connection ended early");
                }
                return;
            }
            () = stopped.as_mut(), if !stopping => {
                stopping = true;
                conversation.as_mut().graceful_shutdown();
            }
            () = look.as_mut() => {
                if watcher.has_enough(&activity, look_every) {
                    return;
                }
                look.as_mut().reset(tokio::time::Instant::now() + look_every);
            }
        }
    }
}

/// Until `stop` is true or nobody can say so any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        tracing::debug!("the one who could say stop is gone, so this listener stops");
    }
}

async fn refuse(mut stream: TcpStream, answer: bytes::Bytes) {
    let telling = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        // Reading on lets the answer arrive; see `socket`.
        let mut rest = [0; 4096];
        while stream.read(&mut rest).await? != 0 {}
        io::Result::Ok(())
    };
    match tokio::time::timeout(REFUSAL_TIME, telling).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a refused connection ended early"),
    }
}

/// Errors of the connection itself concern nobody else; those of the process,
/// such as no file descriptor left, would come back at once.
async fn pause_after(error: &io::Error) {
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    ) {
        return;
    }
    tracing::warn!(%error, "no connection can be accepted at the moment");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// A place among the connections served.
struct Place<L: Ledger, O: Observer> {
    edge: Arc<Edge<L, O>>,
}

impl<L: Ledger, O: Observer> Place<L, O> {
    fn take(edge: &Arc<Edge<L, O>>) -> Option<Self> {
        let open = edge
            .connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                (open < edge.settings.connections_max).then_some(open + 1)
            })
            .ok()?;
        edge.observer.connections(open + 1);
        Some(Self {
            edge: Arc::clone(edge),
        })
    }
}

impl<L: Ledger, O: Observer> Drop for Place<L, O> {
    fn drop(&mut self) {
        let open = self.edge.connections.fetch_sub(1, Ordering::Relaxed);
        self.edge.observer.connections(open.saturating_sub(1));
    }
}
