//! `loadtest serve-worker`: a machine that others may make send load.
//!
//! Owns: the listener, who may ask, and when the process ends.
//! Never: does anything for a request without the token, but tell that it lives.
//! Bound: [`CONNECTIONS_MAX`] connections, [`BODY_BYTES_MAX`] of a body,
//! [`HEAD_TIME_MAX`] for a request to arrive.
//! Invariant: when the process ends, nothing is being sent.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::args::{ServePlan, Serves};
use super::shift::{Over, Refused, Shift};
use super::token::Token;
use super::wire::{Clock, Problem};
use crate::live::Interrupt;
use crate::small_server::SmallServer;
use crate::web::Guard;

/// A conductor needs one; probes and mistakes some more.
const CONNECTIONS_MAX: usize = 32;
/// The most classes and tasks with the longest names take a quarter.
const BODY_BYTES_MAX: usize = 4 << 20;
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
const TICK_EVERY: Duration = Duration::from_millis(20);
const SO_FAR_TIME: Duration = Duration::from_secs(1);
/// For the run before to end: its threads close their connections and journals.
const LET_GO_TIME: Duration = Duration::from_secs(2);

/// Who may ask.
#[derive(Debug)]
enum Door {
    Token(Token),
    /// Programs on this machine, but no web page that is open on it.
    ThisMachine(Guard),
}

/// Serves until it is told to end, or with `--once` until the first run is over.
///
/// # Errors
/// Why it cannot serve.
pub(crate) fn serve(plan: ServePlan) -> Result<(), String> {
    let interrupt = Interrupt::listen().map_err(|error| format!("listen for signals: {error}"))?;
    let listener = TcpListener::bind(plan.listen).map_err(|error| {
        format!(
            "--listen {}: {error}; is another one running there?",
            plan.listen
        )
    })?;
    let bound = listener.local_addr().map_err(|error| error.to_string())?;
    let door = match plan.token.clone() {
        Some(token) => Door::Token(token),
        None => Door::ThisMachine(Guard::new(&[])),
    };
    let serves = plan.serves;
    let shift = Arc::new(Shift::new(plan));
    let (stop, stopped) = oneshot::channel();
    let shared = Arc::clone(&shift);
    let door = Arc::new(door);
    let limits = SmallServer {
        connections_max: CONNECTIONS_MAX,
        head_time_max: HEAD_TIME_MAX,
    };
    // A conductor that goes away is missed by its lease, not by its connection.
    let server = std::thread::spawn(move || {
        limits.serve(listener, stopped, move |request| {
            let (shift, door) = (Arc::clone(&shared), Arc::clone(&door));
            async move { answer(request, &shift, &door).await }
        })
    });
    announce(bound);
    while !server.is_finished() {
        let quitting = interrupt.came();
        if quitting {
            shift.quit("it was told to end (a signal)");
        }
        let over = shift.tick(quitting);
        if (serves == Serves::OneRun && over == Some(Over::Begun)) || (quitting && shift.is_free())
        {
            break;
        }
        std::thread::sleep(TICK_EVERY);
    }
    // The server may have ended by itself; then nobody listens.
    stop.send(()).ok();
    match server.join() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("serve: {error}")),
        Err(_panic) => Err("serve: its thread panicked".to_owned()),
    }
}

fn announce(bound: SocketAddr) {
    eprintln!(
        "loadtest: the worker is at {bound} (Ctrl-C ends it); share a run over it with: loadtest \
         run --workers {bound}"
    );
}

type Answer = (StatusCode, Bytes);

async fn answer(request: Request<Incoming>, shift: &Shift, door: &Door) -> Response<Full<Bytes>> {
    let lives = request.method() == Method::GET && request.uri().path() == "/livez";
    let result = match enter(&request, door) {
        _ if lives => say(&()),
        Ok(()) => route(request, shift).await,
        Err(answer) => Err(answer),
    };
    let (status, body) = result.unwrap_or_else(|refused| refused);
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Whether the request may do anything.
fn enter(request: &Request<Incoming>, door: &Door) -> Result<(), Answer> {
    let headers = request.headers();
    match door {
        Door::Token(token) => {
            let given = headers.get(header::AUTHORIZATION);
            if token.is_in(given.map(HeaderValue::as_bytes)) {
                return Ok(());
            }
            let detail = match given {
                None => "it wants a token: give --workers-token-file",
                Some(_) => "its token is another one: is --workers-token-file the right file?",
            };
            Err(refuse(StatusCode::UNAUTHORIZED, "token", detail))
        }
        Door::ThisMachine(guard) => guard
            .check(request.method(), headers)
            .map_err(|problem| refuse(StatusCode::FORBIDDEN, "foreign", problem.detail())),
    }
}

async fn route(request: Request<Incoming>, shift: &Shift) -> Result<Answer, Answer> {
    let path = request.uri().path().to_owned();
    let mut parts = path.trim_start_matches('/').split('/');
    let (version, what) = (parts.next(), parts.next());
    if version != Some("v1") {
        let detail = "it does not speak protocol version 1: use one version everywhere";
        return Err(refuse(StatusCode::NOT_FOUND, "version", detail));
    }
    let (run, verb) = (parts.next(), parts.next());
    match (request.method().as_str(), what, run, verb) {
        ("GET", Some("hello"), None, None) => say(&Shift::hello()),
        ("GET", Some("clock"), None, None) => say(&Clock { now: shift.clock() }),
        ("POST", Some("run"), None, None) => {
            let job = read(request).await?;
            // A run after the other is no mistake: the first is put away at the next tick.
            let begun = Instant::now();
            while shift.is_letting_go() && begun.elapsed() < LET_GO_TIME {
                tokio::time::sleep(TICK_EVERY).await;
            }
            say(&shift.take(job).map_err(explain)?)
        }
        ("GET", Some("run"), Some(run), None) => say(&shift.state(run).map_err(explain)?),
        ("DELETE", Some("run"), Some(run), None) => say(&shift.release(run).map_err(explain)?),
        ("POST", Some("run"), Some(run), Some("begin")) => {
            let begin = read(request).await?;
            say(&shift.begin(run, begin).map_err(explain)?)
        }
        ("POST", Some("run"), Some(run), Some("order")) => {
            let ordered = read(request).await?;
            say(&shift.order(run, ordered).map_err(explain)?)
        }
        ("POST", Some("run"), Some(run), Some("stop")) => say(&shift.stop(run).map_err(explain)?),
        ("GET", Some("run"), Some(run), Some("report")) => {
            Ok((StatusCode::OK, shift.report(run).map_err(explain)?.into()))
        }
        ("GET", Some("run"), Some(run), Some("so-far")) => so_far(shift, run).await,
        _ => Err(refuse(
            StatusCode::NOT_FOUND,
            "not_found",
            "there is nothing here",
        )),
    }
}

async fn so_far(shift: &Shift, run: &str) -> Result<Answer, Answer> {
    let request = shift.want_so_far(run).map_err(explain)?;
    let begun = Instant::now();
    loop {
        if let Some(text) = shift.so_far(run, request).map_err(explain)? {
            return Ok((StatusCode::OK, text.into()));
        }
        if SO_FAR_TIME < begun.elapsed() {
            return Err(explain(Refused::NotNow("not yet".to_owned())));
        }
        tokio::time::sleep(TICK_EVERY).await;
    }
}

fn explain(refused: Refused) -> Answer {
    let (status, code, detail) = match refused {
        Refused::Busy => {
            let detail = "another run goes on there; wait for its end".to_owned();
            (StatusCode::CONFLICT, "busy", detail)
        }
        Refused::Gone => {
            let detail = "it has no such run any more: it was restarted, or did not hear of \
                          this one for too long";
            (StatusCode::GONE, "gone", detail.to_owned())
        }
        Refused::NotNow(detail) => (StatusCode::CONFLICT, "not_now", detail),
        Refused::Invalid(detail) => (StatusCode::BAD_REQUEST, "invalid", detail),
    };
    refuse(status, code, &detail)
}

fn refuse(status: StatusCode, code: &str, detail: &str) -> Answer {
    let problem = Problem {
        code: code.to_owned(),
        detail: detail.to_owned(),
    };
    // Two texts cannot fail to be written.
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    (status, body.into())
}

fn say(what: &impl Serialize) -> Result<Answer, Answer> {
    let body = serde_json::to_vec(what).map_err(|error| {
        let detail = format!("write the answer: {error}");
        refuse(StatusCode::INTERNAL_SERVER_ERROR, "broken", &detail)
    })?;
    Ok((StatusCode::OK, body.into()))
}

async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Answer> {
    let invalid = |detail: String| refuse(StatusCode::BAD_REQUEST, "invalid", &detail);
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| invalid(format!("read the body: {error}")))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| invalid(error.to_string()))
}
