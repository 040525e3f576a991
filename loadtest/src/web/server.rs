//! The page and its API over HTTP.
//!
//! Owns: the listener, its thread, the routes and the headers of every answer.
//! Never: answers a stranger: `guard` goes before every route.
//! Bound: [`CONNECTIONS_MAX`] connections, [`BODY_BYTES_MAX`] of a body,
//! [`ARRIVAL_TIME_MAX`] for its head and as long again for its body.
//! Invariant: everything a browser needs comes from here; the page works offline.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::desk::{Desk, REPORT_WAIT};
use super::guard::Guard;
use super::problem::Problem;
use crate::report::Form;
use crate::small_server::SmallServer;

const CONNECTIONS_MAX: usize = 64;
const BODY_BYTES_MAX: usize = 16 * 1024;
const ARRIVAL_TIME_MAX: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Nothing but the page's own files and API, no frame around it, no form.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Serves until `stop` is told or dropped.
///
/// # Errors
/// If the runtime cannot be made.
pub(super) fn serve(
    listener: TcpListener,
    desk: &Arc<Desk>,
    guard: Guard,
    stop: oneshot::Receiver<()>,
) -> std::io::Result<()> {
    let limits = SmallServer {
        connections_max: CONNECTIONS_MAX,
        head_time_max: ARRIVAL_TIME_MAX,
    };
    let (desk, guard) = (Arc::clone(desk), Arc::new(guard));
    limits.serve(listener, stop, move |request| {
        let (desk, guard) = (Arc::clone(&desk), Arc::clone(&guard));
        async move { answer(request, &desk, &guard).await }
    })
}

async fn answer(request: Request<Incoming>, desk: &Desk, guard: &Guard) -> Response<Full<Bytes>> {
    let checked = guard.check(request.method(), request.headers());
    let result = match checked {
        Ok(()) => route(request, desk).await,
        Err(problem) => Err(problem),
    };
    let mut response = result.unwrap_or_else(|problem| {
        let kind = "application/problem+json";
        let mut response = Response::new(Full::from(problem.body()));
        *response.status_mut() = problem.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    });
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(
        "cross-origin-resource-policy",
        HeaderValue::from_static("same-origin"),
    );
    response
}

async fn route(request: Request<Incoming>, desk: &Desk) -> Result<Response<Full<Bytes>>, Problem> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET, "/") => Ok(asset("text/html; charset=utf-8", include_str!("page.html"))),
        (&Method::GET, "/page.css") => {
            Ok(asset("text/css; charset=utf-8", include_str!("page.css")))
        }
        (&Method::GET, "/page.js") => Ok(asset(
            "text/javascript; charset=utf-8",
            include_str!("page.js"),
        )),
        (&Method::GET, "/chart.js") => Ok(asset(
            "text/javascript; charset=utf-8",
            include_str!("chart.js"),
        )),
        (&Method::GET, "/icon.svg") => Ok(asset("image/svg+xml", include_str!("icon.svg"))),
        (&Method::GET, "/api/state") => {
            let number = |name: &str| query(request.uri().query(), name);
            let known = usize::try_from(number("known")?).unwrap_or(usize::MAX);
            let state = desk.state(number("epoch")?, known);
            let text = serde_json::to_string(&state).map_err(|error| broken(&error))?;
            Ok(asset("application/json", text))
        }
        (&Method::POST, "/api/start") => {
            desk.start(&read(request).await?)?;
            Ok(done())
        }
        (&Method::POST, "/api/stop") => {
            desk.stop()?;
            Ok(done())
        }
        (&Method::POST, "/api/load") => {
            desk.change(read(request).await?)?;
            Ok(done())
        }
        (&Method::GET, path) if path.starts_with("/report/") => {
            let form = Form::of_file(&path["/report/".len()..]).ok_or_else(missing)?;
            download(desk, form).await
        }
        (_, "/" | "/api/state" | "/api/start" | "/api/stop" | "/api/load") => Err(Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method",
            "use GET to read and POST to start, stop and change the load",
        )),
        _ => Err(missing()),
    }
}

fn missing() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here")
}

fn broken(error: &serde_json::Error) -> Problem {
    let detail = format!("write the answer: {error}");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "broken", detail)
}

fn asset(kind: &'static str, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn done() -> Response<Full<Bytes>> {
    asset("application/json", "{}")
}

/// A number of the query; 0 if it is not there.
fn query(query: Option<&str>, name: &str) -> Result<u64, Problem> {
    let pairs = query.unwrap_or("").split('&');
    let value = pairs
        .filter_map(|pair| pair.split_once('='))
        .find(|(given, _)| *given == name);
    value.map_or(Ok(0), |(_, value)| {
        let problem = |_| Problem::invalid(format!("{name}: expected a number"));
        value.parse().map_err(problem)
    })
}

async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Problem> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    let body = tokio::time::timeout(ARRIVAL_TIME_MAX, body)
        .await
        .map_err(|_elapsed| Problem::invalid("the body did not arrive in time"))?
        .map_err(|error| Problem::invalid(format!("read the body: {error}")))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| Problem::invalid(error.to_string()))
}

async fn download(desk: &Desk, form: Form) -> Result<Response<Full<Bytes>>, Problem> {
    let ticket = desk.ask_report()?;
    let begun = Instant::now();
    let report = loop {
        if let Some(report) = desk.report(ticket) {
            break report;
        }
        if REPORT_WAIT < begun.elapsed() {
            return Err(Problem::conflict(
                "the run has nothing to report yet; try again",
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let text = report
        .render(form, &desk.thresholds())
        .map_err(|error| broken(&error))?;
    let mut response = asset(form.content_type(), text);
    let name = format!("attachment; filename=\"{}\"", form.file());
    if let Ok(name) = HeaderValue::from_str(&name) {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}
