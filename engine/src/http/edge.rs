//! What all requests share, and one request from its head to its answer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::sync::Semaphore;

use super::activity::{Activity, Patience};
use super::answers::{Held, Outgoing};
use super::body::{BATCH_BYTES_MAX, Budget};
use super::handle::{self, Call};
use super::ports::{Ledger, Observer, RequestFacts};
use super::request_id::RequestIds;
use super::respond::{Answer, Occasion, response};
use super::route::Route;
use super::socket::Manners;
use crate::clock::Clock;

/// Large bodies parsed at once. Each thread that parses keeps memory of its own:
/// on as many as there were calls, a burst of them cost most of a GiB.
const PARSED_AT_ONCE_MAX: usize = 4;

/// The limits of the HTTP edge.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The principal that requests without authentication belong to: part of
    /// the scope of their idempotency keys. Never changed once in use.
    pub anonymous_principal: Arc<str>,
    /// From the head of a request to its answer. Default 10 s.
    pub request_deadline: Duration,
    /// Connections at once. Default 20,000: twice the 10,000 idle ones that must
    /// never be in the way of those that work.
    pub connections_max: usize,
    /// Bytes of all bodies in flight. Default 64 MiB: eight batches of the
    /// largest size, or 4,096 single bodies of theirs.
    pub bodies_bytes_max: usize,
    /// Bytes of large answers that clients have not read yet. Default 64 MiB: some
    /// 200 of the longest lists.
    pub answers_bytes_max: usize,
    /// Bytes of one request's line and header. Default 16 KiB.
    pub header_bytes_max: usize,
    /// For a header to arrive once it has begun. Default 10 s.
    pub header_timeout: Duration,
    /// For a connection without a request. Default 75 s, above the 60 s of
    /// common load balancers, so that they close first.
    pub idle_timeout: Duration,
    /// For a client to read on while an answer waits for it. Default 30 s: longer than
    /// a network that lost its way for a moment.
    pub write_timeout: Duration,
    /// For a client to read its last answer, when more was sent than was read, and for
    /// one of HTTP/2 to hear that the engine leaves. Default 2 s.
    pub linger: Duration,
    /// For what is on its way when the listener closes: a handshake begun, a request
    /// over an idle connection. Default 300 ms, a round trip around the world.
    pub leave_time: Duration,
    /// What `Retry-After` says, in whole seconds. Default 1 s.
    pub retry_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            anonymous_principal: Arc::from("anonymous"),
            request_deadline: Duration::from_secs(10),
            connections_max: 20_000,
            bodies_bytes_max: 64 * 1024 * 1024,
            answers_bytes_max: 64 * 1024 * 1024,
            header_bytes_max: 16 * 1024,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            linger: Duration::from_secs(2),
            leave_time: Duration::from_millis(300),
            retry_after: Duration::from_secs(1),
        }
    }
}

impl Settings {
    /// The least budget that lets one batch of the largest size in.
    pub const BODIES_BYTES_MIN: usize = BATCH_BYTES_MAX;
}

/// The HTTP edge: shared by all listeners and connections.
#[derive(Debug)]
pub struct Edge<L, O> {
    pub(super) settings: Settings,
    pub(super) ledger: L,
    pub(super) observer: O,
    pub(super) clock: Clock,
    pub(super) budget: Arc<Budget>,
    /// Bytes of large answers that are not written yet.
    pub(super) answers: Arc<Held>,
    /// Large bodies that may be parsed at once.
    pub(super) parsing: Arc<Semaphore>,
    pub(super) ids: Arc<RequestIds>,
    /// Open connections, the refused ones excepted.
    pub(super) connections: AtomicUsize,
    /// Whether each answer asks its client to leave; never reset.
    leaving: AtomicBool,
    retry_after: HeaderValue,
}

impl<L: Ledger, O: Observer> Edge<L, O> {
    /// `seed` must differ between engines: it keeps their request ids apart.
    pub fn new(settings: Settings, ledger: L, observer: O, clock: Clock, seed: u64) -> Self {
        Self {
            budget: Arc::new(Budget::new(settings.bodies_bytes_max)),
            answers: Arc::new(Held::default()),
            parsing: Arc::new(Semaphore::new(PARSED_AT_ONCE_MAX)),
            ids: Arc::new(RequestIds::new(seed)),
            connections: AtomicUsize::new(0),
            leaving: AtomicBool::new(false),
            // The unit is whole seconds; less than one would be "at once".
            retry_after: HeaderValue::from(settings.retry_after.as_secs().max(1)),
            settings,
            ledger,
            observer,
            clock,
        }
    }

    /// Bytes of bodies in flight, and how many there may be.
    #[must_use]
    pub fn body_bytes(&self) -> (usize, usize) {
        let max = self.settings.bodies_bytes_max;
        (max.saturating_sub(self.budget.free_bytes()), max)
    }

    /// From now on each answer is the last of its connection.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Bytes of large answers that are not read yet, and how many there may be.
    #[must_use]
    pub fn answer_bytes(&self) -> (usize, usize) {
        (self.answers.bytes(), self.settings.answers_bytes_max)
    }

    /// Connections that may be open.
    #[must_use]
    pub const fn connections_max(&self) -> usize {
        self.settings.connections_max
    }

    pub(super) fn manners(&self) -> Manners {
        Manners {
            ids: Arc::clone(&self.ids),
            header_bytes_max: self.settings.header_bytes_max,
            linger: self.settings.linger,
        }
    }

    pub(super) fn patience(&self) -> Patience {
        Patience {
            header: self.settings.header_timeout,
            idle: self.settings.idle_timeout,
            write: self.settings.write_timeout,
        }
    }
}

/// One connection, as its requests see it.
#[derive(Debug)]
pub(super) struct Connection<L, O> {
    pub(super) edge: Arc<Edge<L, O>>,
    pub(super) client: SocketAddr,
    pub(super) activity: Arc<Activity>,
}

impl<L: Ledger, O: Observer> Connection<L, O> {
    /// Answers one request. Dropped early when the client goes away.
    pub(super) async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Outgoing>, Infallible> {
        let edge = &*self.edge;
        let started = edge.clock.now();
        let (parts, incoming) = request.into_parts();
        let request_id = edge.ids.of(&parts.headers);
        let (method, version) = (parts.method.clone(), parts.version);
        let mut ending = Ending::new(&self, started, &method, request_id.clone());
        let mut call = Call {
            edge,
            activity: &self.activity,
            parts,
            deadline: started + edge.settings.request_deadline,
            request_id: request_id.to_str().unwrap_or_default(),
        };
        let answer = handle::answer(&mut call, incoming, &mut ending.route).await;
        let mut answer = answer.unwrap_or_else(Answer::from);
        let sliced =
            version == Version::HTTP_2 && ending.route.is_some_and(Route::answers_at_length);
        let told = sliced.then(|| Arc::clone(&self.activity));
        ending.answered(&answer);
        answer.closes |= edge.leaving.load(Ordering::Relaxed);
        if answer.closes {
            self.activity.must_linger();
        }
        let occasion = Occasion {
            method: &method,
            version,
            request_id,
            retry_after: &edge.retry_after,
        };
        Ok(response(answer, occasion).map(|body| Outgoing::new(body, told)))
    }
}

/// Tells the observer how the request ended, also when it is dropped.
struct Ending<'a, L: Ledger, O: Observer> {
    connection: &'a Connection<L, O>,
    started: Instant,
    method: &'a Method,
    request_id: HeaderValue,
    route: Option<Route>,
    answered: bool,
}

impl<'a, L: Ledger, O: Observer> Ending<'a, L, O> {
    fn new(
        connection: &'a Connection<L, O>,
        started: Instant,
        method: &'a Method,
        request_id: HeaderValue,
    ) -> Self {
        connection.activity.request_begins();
        Self {
            connection,
            started,
            method,
            request_id,
            route: None,
            answered: false,
        }
    }

    fn answered(&mut self, answer: &Answer) {
        self.answered = true;
        self.tell(RequestFacts {
            status: answer.status,
            code: answer.code,
            txn_id: answer.txn_id,
            replayed: answer.replayed,
            ..self.facts()
        });
    }

    fn facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            request_id: self.request_id.to_str().unwrap_or_default(),
            client: self.connection.client,
            method: self.method,
            route: self.route,
            // Not registered, but widely read as "client closed request".
            status: StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            code: None,
            txn_id: None,
            duration: self.started.elapsed(),
            replayed: false,
        }
    }

    fn tell(&self, facts: RequestFacts<'_>) {
        self.connection.edge.observer.finished(&facts);
    }
}

impl<L: Ledger, O: Observer> Drop for Ending<'_, L, O> {
    fn drop(&mut self) {
        self.connection.activity.request_ends();
        if !self.answered {
            self.tell(self.facts());
        }
    }
}
