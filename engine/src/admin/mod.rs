//! The listener for operators: `/metrics`, `/livez`, `/readyz`.
//!
//! Owns: a thread and a runtime of its own, so that it answers while the main
//! runtime is busy or stuck.
//! Never: reads a request body, waits for another room, or serves clients.
//! Bound: `connections_max` connections, each one request and at most
//! `connection_time_max` long.
//! Invariant: stops last, so that a draining engine can be watched.

mod heartbeat;
mod readiness;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

pub use heartbeat::Heartbeat;
pub use readiness::{
    Check, Database, Level, Partitions, Readiness, Redis, Replication, Schema,
    Settings as ReadinessSettings, Verdict, Writes,
};

use crate::telemetry::Stopped;
use crate::telemetry::exporter::Exporter;

/// How the admin listener behaves.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Connections at once; one more is closed and counted.
    pub connections_max: usize,
    /// From accept to the head of the request.
    pub header_time_max: Duration,
    /// From accept to close.
    pub connection_time_max: Duration,
    /// Main runtime silent for so long: `/livez` asks for a restart. Generous,
    /// since a restart drops everything in flight.
    pub live_silence_max: Duration,
    /// Main runtime silent for so long: `/readyz` is 503.
    pub ready_silence_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections_max: 64,
            header_time_max: Duration::from_secs(5),
            connection_time_max: Duration::from_secs(10),
            live_silence_max: Duration::from_secs(60),
            ready_silence_max: Duration::from_secs(5),
        }
    }
}

/// What the answers are made from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The metrics page.
    pub exporter: &'static Exporter,
    /// Dependencies.
    pub readiness: Arc<Readiness>,
    /// The main runtime.
    pub heartbeat: Arc<Heartbeat>,
}

/// The running listener; dropping it stops it too, without waiting.
#[derive(Debug)]
pub struct AdminHandle {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl AdminHandle {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the listener and its connections, waiting at most `limit`.
    pub fn stop(&self, limit: Duration) -> Stopped {
        self.stop.send_replace(true);
        match self.ended.recv_timeout(limit) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Stopped::Flushed,
            Err(RecvTimeoutError::Timeout) => Stopped::Stuck,
        }
    }
}

/// Serves `listener` on a thread of its own.
///
/// # Errors
/// The operating system refused the thread, its runtime or the listener.
pub fn start(
    listener: std::net::TcpListener,
    settings: Settings,
    sources: Sources,
) -> io::Result<AdminHandle> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let listener = {
        let _inside = runtime.enter();
        TcpListener::from_std(listener)?
    };
    let (stop, stopped) = watch::channel(false);
    let (alive, ended) = bounded(0);
    thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || {
            // Returning closes the listener, dropping the runtime its
            // connections; only then is whoever waits in `stop` told.
            runtime.block_on(run(listener, settings, &sources, stopped));
            drop(runtime);
            drop(alive);
        })?;
    Ok(AdminHandle {
        address,
        stop,
        ended,
    })
}

async fn run(
    listener: TcpListener,
    settings: Settings,
    sources: &Sources,
    mut stopped: watch::Receiver<bool>,
) {
    let connections = Arc::new(Semaphore::new(settings.connections_max));
    loop {
        tokio::select! {
            // An error means that the handle is gone: stop as well.
            _ = stopped.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => match Arc::clone(&connections).try_acquire_owned() {
                    Ok(permit) => {
                        let sources = sources.clone();
                        // Not through the supervisor: its tasks live on the
                        // main runtime, this one must outlive that.
                        tokio::spawn(async move {
                            serve(stream, settings, sources).await;
                            drop(permit);
                        });
                    }
                    Err(_full) => sources.exporter.metrics().engine.admin_refused.increment(1),
                },
                Err(error) => {
                    // Out of descriptors, most likely: without the pause this
                    // loop would spin until one is free.
                    tracing::warn!(%error, "accept admin connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

async fn serve(stream: TcpStream, settings: Settings, sources: Sources) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let response = answer(request.method(), request.uri().path(), settings, &sources);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_time_max)
        .keep_alive(false)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(settings.connection_time_max, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "serve admin connection"),
        Err(_elapsed) => tracing::debug!("admin connection took too long"),
    }
}

fn answer(
    method: &Method,
    path: &str,
    settings: Settings,
    sources: &Sources,
) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let known = matches!(path, "/metrics" | "/livez" | "/readyz");
    if known && method != Method::GET && method != Method::HEAD {
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "use GET\n".into());
        let allow = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allow);
        return response;
    }
    match path {
        "/metrics" => {
            sources.readiness.publish(sources.exporter.metrics());
            let page = sources.exporter.render();
            respond(
                StatusCode::OK,
                "text/plain; version=0.0.4; charset=utf-8",
                page,
            )
        }
        "/livez" if sources.heartbeat.beats_within(settings.live_silence_max) => {
            respond(StatusCode::OK, TEXT, "alive\n".into())
        }
        "/livez" => {
            let body = "the main runtime is silent\n".into();
            respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, body)
        }
        "/readyz" => ready(settings, sources),
        _ => {
            let body = "there are /metrics, /livez and /readyz\n".into();
            respond(StatusCode::NOT_FOUND, TEXT, body)
        }
    }
}

fn ready(settings: Settings, sources: &Sources) -> Response<Full<Bytes>> {
    let mut checks = sources.readiness.checks();
    let runtime = if sources.heartbeat.beats_within(settings.ready_silence_max) {
        (Level::Ok, "beats".to_owned())
    } else {
        readiness::failed("the main runtime is silent")
    };
    checks.push(readiness::check("runtime", runtime));
    // From the checks shown, so that verdict and reasons cannot disagree.
    let (verdict, status) = if checks.iter().all(|check| check.level != Level::Failed) {
        (Verdict::Ready, StatusCode::OK)
    } else {
        (Verdict::Unready, StatusCode::SERVICE_UNAVAILABLE)
    };
    let body = readiness::to_json(verdict, &checks).to_string();
    respond(status, "application/json", body)
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
