//! A small HTTP/1.1 server for the pages and machines of one run.
//!
//! Owns: the accepting loop, its connections and their limits.
//! Never: reads a body or decides who may ask: that is its caller's `answer`.
//! Bound: `connections_max` connections at a time, `head_time_max` for a request's head.
//! Invariant: when [`SmallServer::serve`] returns, no connection of it is left.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

/// After a failed accept: out of files, most likely, and some may be closed soon.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// The limits of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SmallServer {
    pub(crate) connections_max: usize,
    pub(crate) head_time_max: Duration,
}

impl SmallServer {
    /// Serves on this thread until `stop` is told or dropped.
    ///
    /// # Errors
    /// If the runtime cannot be made.
    pub(crate) fn serve<F, A>(
        self,
        listener: TcpListener,
        stop: oneshot::Receiver<()>,
        answer: F,
    ) -> std::io::Result<()>
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
        A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::select! {
                () = self.accept(listener, answer) => {}
                _ = stop => {}
            }
            Ok(())
        })
    }

    /// Its connections end with it.
    async fn accept<F, A>(self, listener: tokio::net::TcpListener, answer: F)
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
        A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let room = Arc::new(Semaphore::new(self.connections_max));
        let mut connections = JoinSet::new();
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            while connections.try_join_next().is_some() {}
            // Clocks are compared by round trips: none shall wait for a full packet.
            stream.set_nodelay(true).ok();
            let answer = answer.clone();
            connections.spawn(async move {
                let service = service_fn(move |request| {
                    let answering = answer(request);
                    async move { Ok::<_, Infallible>(answering.await) }
                });
                let mut http = hyper::server::conn::http1::Builder::new();
                http.timer(TokioTimer::new())
                    .header_read_timeout(self.head_time_max);
                // A client that goes away is no error of anybody.
                http.serve_connection(TokioIo::new(stream), service)
                    .await
                    .ok();
                drop(permit);
            });
        }
    }
}
