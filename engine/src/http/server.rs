//! Listening, accepting, and the life of a connection.
//!
//! Owns: every connection's task; they end with the future of [`serve`].
//! Bound: `connections_max` connections are served; past it [`REFUSALS_MAX`]
//! are told so at a time, and others are closed unheard.
//! Invariant: a connection's place is given back when its task ends, however it
//! ends; a request on its way when the stop came is answered, not cut.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::Version;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::activity::{Activity, Patience, Watcher};
use super::door;
use super::edge::{Connection, Edge};
use super::ports::{Ledger, Observer};
use super::socket::{self, Socket};
use super::version::FirstBytes;

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

/// How far a stop has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stopping {
    /// Nobody asked for one.
    #[default]
    No,
    /// Everything is still accepted and answered, and each answer asks its client
    /// to leave: `Connection: close`, or GOAWAY on HTTP/2.
    Leaving,
    /// Nothing new is accepted; what is on its way is answered.
    Closing,
}

/// Serves a listener until `stop` says [`Stopping::Closing`] (or its sender is
/// gone), then lets every request in flight or on its way finish. Dropping the
/// future closes all connections.
///
/// Several listeners may share one edge, also from several runtimes.
pub async fn serve<L: Ledger, O: Observer>(
    edge: Arc<Edge<L, O>>,
    listener: TcpListener,
    stop: watch::Receiver<Stopping>,
) {
    let mut hall = Hall::new(edge, stop.clone());
    let mut trouble = AcceptTrouble::default();
    {
        let mut last_came = pin!(last_came(&listener, stop, hall.edge.settings.leave_time));
        loop {
            tokio::select! {
                biased;
                () = last_came.as_mut() => break,
                Some(ended) = hall.tasks.join_next() => report(ended),
                Some(ended) = hall.refusals.join_next() => report(ended),
                accepted = listener.accept() => match accepted {
                    Ok((stream, client)) => {
                        trouble.is_over();
                        hall.take_in(stream, client);
                    }
                    Err(error) if door::is_of_process(&error) => {
                        hall.edge.observer.accept_failed();
                        trouble.is(&error);
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    Err(_) => {}
                },
            }
        }
    }
    // No new connections: the socket closes, and a balancer turns elsewhere.
    for (stream, client) in door::close(listener) {
        hall.take_in(stream, client);
    }
    while let Some(ended) = hall.tasks.join_next().await {
        report(ended);
    }
    while let Some(ended) = hall.refusals.join_next().await {
        report(ended);
    }
}

/// The connections of one listener.
struct Hall<L: Ledger, O: Observer> {
    edge: Arc<Edge<L, O>>,
    protocols: Arc<Protocols>,
    stop: watch::Receiver<Stopping>,
    tasks: JoinSet<()>,
    refusals: JoinSet<()>,
}

impl<L: Ledger, O: Observer> Hall<L, O> {
    fn new(edge: Arc<Edge<L, O>>, stop: watch::Receiver<Stopping>) -> Self {
        Self {
            edge,
            protocols: Arc::new(Protocols::new()),
            stop,
            tasks: JoinSet::new(),
            refusals: JoinSet::new(),
        }
    }

    fn take_in(&mut self, stream: TcpStream, client: SocketAddr) {
        // Answers are small and complete: waiting to fill a packet only delays.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection closed before it was served");
            return;
        }
        if let Some(place) = Place::take(&self.edge) {
            let (protocols, stop) = (Arc::clone(&self.protocols), self.stop.clone());
            self.tasks.spawn(async move {
                converse(&protocols, &place.edge, stream, client, stop).await;
            });
        } else {
            self.edge.observer.connection_refused();
            if self.refusals.len() < REFUSALS_MAX {
                let answer = socket::no_room(&self.edge.ids);
                self.refusals.spawn(refuse(stream, answer));
            }
        }
    }
}

/// Until the listener may close: nobody new is on the way any more.
async fn last_came(
    listener: &TcpListener,
    mut stop: watch::Receiver<Stopping>,
    leave_time: Duration,
) {
    until(&mut stop, Stopping::Closing).await;
    door::let_nobody_knock(listener);
    tokio::time::sleep(leave_time).await;
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
    stop: watch::Receiver<Stopping>,
) {
    converse(&Protocols::new(), edge, stream, client, stop).await;
}

/// How each version is spoken.
struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

impl Protocols {
    fn new() -> Self {
        let mut http1 = http1::Builder::new();
        http1
            // Our watcher keeps this limit without a timer for every request.
            .header_read_timeout(None)
            .max_buf_size(HEAD_BUFFER_BYTES);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(HEAD_BUFFER_BYTES_H2);
        Self { http1, http2 }
    }
}

async fn converse<L: Ledger, O: Observer>(
    protocols: &Protocols,
    edge: &Arc<Edge<L, O>>,
    mut stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    client: SocketAddr,
    stop: watch::Receiver<Stopping>,
) {
    let activity = Arc::new(Activity::default());
    let mut bored = pin!(bored(&activity, edge.patience()));
    let mut fell_silent = pin!(fell_silent(edge, &activity, stop.clone()));
    let heard = || activity.heard();
    let told = tokio::select! {
        biased;
        told = FirstBytes::read(&mut stream, heard) => told,
        // Whoever has asked nothing by now is owed nothing.
        () = fell_silent.as_mut() => return,
        () = bored.as_mut() => return,
    };
    let (version, first) = match told {
        Ok(told) => told,
        Err(error) => return ended_early(&error, client),
    };
    let socket = Socket::new(stream, first, edge.manners(), Arc::clone(&activity));
    let shared = Arc::new(Connection {
        edge: Arc::clone(edge),
        client,
        activity: Arc::clone(&activity),
    });
    let service = service_fn(move |request| Arc::clone(&shared).serve(request));
    let ended = if version == Version::HTTP_2 {
        activity.is_multiplexed();
        let conversation = protocols.http2.serve_connection(socket, service);
        let unheard = goodbye_unheard(edge, &activity, stop.clone());
        let farewell = pin!(can_go_away(edge, &activity, stop));
        let given_up = pin!(async {
            tokio::select! {
                () = bored.as_mut() => {}
                () = unheard => {}
            }
        });
        to_its_end(pin!(conversation), farewell, given_up).await
    } else {
        let conversation = protocols.http1.serve_connection(socket, service);
        to_its_end(pin!(conversation), fell_silent, bored).await
    };
    if let Err(error) = ended {
        ended_early(&error, client);
    }
}

/// Lets a conversation go on until it ends, or until the client is not worth
/// waiting for any more; after `farewell` its present requests are its last.
async fn to_its_end<C: GracefulConnection>(
    mut conversation: Pin<&mut C>,
    mut farewell: Pin<&mut impl Future<Output = ()>>,
    mut bored: Pin<&mut impl Future<Output = ()>>,
) -> Result<(), C::Error> {
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            ended = conversation.as_mut() => return ended,
            () = farewell.as_mut(), if !stopping => {
                stopping = true;
                conversation.as_mut().graceful_shutdown();
            }
            () = bored.as_mut() => return Ok(()),
        }
    }
}

/// Until nothing is on its way any more over a connection that stops. Each answer
/// until then asks the client to leave, so only idle connections get here.
///
/// HTTP/1 has no word for "I close": a request sent at that moment has no answer,
/// and its client cannot know whether it was done. So the engine listens a moment
/// longer than a request takes to arrive, and never closes on half a request,
/// which `bored` gives its time.
async fn fell_silent<L: Ledger, O: Observer>(
    edge: &Edge<L, O>,
    activity: &Activity,
    mut stop: watch::Receiver<Stopping>,
) {
    until(&mut stop, Stopping::Leaving).await;
    edge.leave();
    until(&mut stop, Stopping::Closing).await;
    loop {
        tokio::time::sleep(edge.settings.leave_time).await;
        if !activity.is_hearing() {
            return;
        }
    }
}

/// Until an HTTP/2 connection that stops may say so: GOAWAY names the last request
/// that will be answered, so nothing on its way is in doubt. Not before the first
/// one: a client that has just come would have come in vain.
async fn can_go_away<L: Ledger, O: Observer>(
    edge: &Edge<L, O>,
    activity: &Activity,
    mut stop: watch::Receiver<Stopping>,
) {
    until(&mut stop, Stopping::Leaving).await;
    edge.leave();
    let waited_enough = async {
        until(&mut stop, Stopping::Closing).await;
        tokio::time::sleep(edge.settings.leave_time).await;
    };
    tokio::select! {
        () = activity.asked_something() => {}
        () = waited_enough => {}
    }
}

/// Until an HTTP/2 client that is owed nothing has had time to answer the goodbye. A
/// PING goes out with GOAWAY, and the conversation ends when that comes back: from a
/// machine that is gone it never does.
async fn goodbye_unheard<L: Ledger, O: Observer>(
    edge: &Edge<L, O>,
    activity: &Activity,
    mut stop: watch::Receiver<Stopping>,
) {
    until(&mut stop, Stopping::Closing).await;
    // GOAWAY is said by then.
    tokio::time::sleep(edge.settings.leave_time).await;
    loop {
        tokio::time::sleep(edge.settings.linger).await;
        if activity.owes_nothing() {
            return;
        }
    }
}

/// A client's doing: it went away or spoke no HTTP.
fn ended_early(error: &dyn std::error::Error, client: SocketAddr) {
    tracing::debug!(%error, %client, "a connection ended early");
}

/// Until the client has been quiet for too long.
async fn bored(activity: &Activity, patience: Patience) {
    let look_every = patience.look_every();
    let mut watcher = Watcher::new(patience);
    loop {
        tokio::time::sleep(look_every).await;
        if watcher.has_enough(activity, look_every) {
            return;
        }
    }
}

/// Until the stop has come so far, or nobody can say so any more.
async fn until(stop: &mut watch::Receiver<Stopping>, stage: Stopping) {
    if stop.wait_for(|now| stage <= *now).await.is_err() {
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

/// Whether accepting fails: said when it begins and when it is over, for in
/// between it fails twenty times a second.
#[derive(Debug, Default)]
struct AcceptTrouble {
    said: bool,
}

impl AcceptTrouble {
    fn is(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.said, true) {
            tracing::warn!(
                %error,
                "no connection can be accepted; those that are open are served, others wait"
            );
        }
    }

    fn is_over(&mut self) {
        if std::mem::take(&mut self.said) {
            tracing::info!("connections are accepted again");
        }
    }
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
