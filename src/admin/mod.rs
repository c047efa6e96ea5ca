//! # admin: what operators and their tools see over HTTP
//!
//! Owns the admin port: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever starts and stops nodes, and the status
//! page. Promises: nothing here changes a node, and the way of a command pays nothing for it. Numbers are kept by those who do the
//! work, once a chunk or a batch, and copied here once a second and once a scrape. The page is served whole from the binary and
//! loads nothing from elsewhere.
//!
//! [`history`] remembers the last minutes, [`metrics`] writes Prometheus's text, [`status`] what the page shows.

mod history;
mod metrics;
mod status;

use crate::base::Epoch;
use crate::gateway::Shared;
use crate::gateway::backend::{Backend, Consistency};
use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use history::History;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Connections at once; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 64;
/// A request's head arrives in this time, or the connection ends.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// A node that cannot answer a strong read in this time is not ready.
const READY_MAX: Duration = Duration::from_secs(1);

/// The page and its parts: path, content type, contents.
const PAGE: &[(&str, &str, &str)] = &[
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("page/page.js")),
    ("/uplot.min.css", "text/css; charset=utf-8", include_str!("page/uplot.min.css")),
    ("/uplot.min.js", "text/javascript; charset=utf-8", include_str!("page/uplot.min.js")),
    ("/uplot.LICENSE", "text/plain; charset=utf-8", include_str!("page/uplot.LICENSE")),
];

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The running admin port. Ends when dropped.
pub struct Admin {
    address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

struct Inner<B: Backend> {
    shared: Arc<Shared<B>>,
    history: Mutex<History>,
    /// Only this machine may come in, by a name that cannot be another machine's.
    loopback: bool,
}

impl Admin {
    /// Listens, and begins to remember. To be called within a tokio runtime.
    pub async fn start<B: Backend>(listen: SocketAddr, shared: Arc<Shared<B>>) -> io::Result<Admin> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let history = Mutex::new(History::new(&shared));
        let inner = Arc::new(Inner { shared, history, loopback: address.ip().is_loopback() });
        let remember = tokio::spawn(remember(inner.clone()));
        let serve = tokio::spawn(serve(listener, router(inner)));
        Ok(Admin { address, tasks: vec![remember, serve] })
    }

    /// Where it listens: with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|task| task.abort());
    }
}

async fn remember<B: Backend>(inner: Arc<Inner<B>>) {
    let mut second = tokio::time::interval(history::EVERY);
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        second.tick().await;
        lock(&inner.history).sample(&inner.shared);
    }
}

async fn serve(listener: TcpListener, router: Router) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
            if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!("admin connection: {error}");
            }
            drop(place);
        });
    }
}

fn router<B: Backend>(inner: Arc<Inner<B>>) -> Router {
    let mut router = Router::new()
        .route("/metrics", get(scrape::<B>))
        .route("/healthz", get(healthy::<B>))
        .route("/readyz", get(ready::<B>))
        .route("/status.json", get(state::<B>));
    for &(path, kind, contents) in PAGE {
        router = router.route(path, get(async move || ([(header::CONTENT_TYPE, kind)], contents)));
    }
    router.layer(middleware::from_fn_with_state(inner.clone(), guard::<B>)).with_state(inner)
}

/// Browsers are told to load nothing from elsewhere, and a page of elsewhere that calls itself by a name of this machine's
/// address (DNS rebinding) gets nothing.
async fn guard<B: Backend>(State(inner): State<Arc<Inner<B>>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if inner.loopback && !host.is_none_or(is_local_name) {
        let text = "this port answers to its address or localhost only; set admin-bind to use it by another name\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let mut response = next.run(request).await;
    let headers: [(HeaderName, &str); 3] = [
        (header::CONTENT_SECURITY_POLICY, "default-src 'self'; frame-ancestors 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// An address, or `localhost`; with or without a port.
fn is_local_name(host: &str) -> bool {
    let name =
        host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(n, _)| n);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

async fn scrape<B: Backend>(State(inner): State<Arc<Inner<B>>>) -> Response {
    let recent = lock(&inner.history).recent();
    match metrics::text(&inner.shared, recent) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// 200 while the process need not be started again.
async fn healthy<B: Backend>(State(inner): State<Arc<Inner<B>>>) -> Response {
    match inner.shared.backend.facts().failure {
        None => "ok\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// 200 while clients are served: a strong read finds a leader and a quorum.
async fn ready<B: Backend>(State(inner): State<Arc<Inner<B>>>) -> Response {
    match readiness(&inner.shared).await {
        None => "ok\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// Why this node cannot serve, if so.
async fn readiness<B: Backend>(shared: &Shared<B>) -> Option<String> {
    if let Some(why) = shared.backend.facts().failure {
        return Some(why);
    }
    let fence = shared.backend.fence(Consistency::Strong, Epoch::ZERO);
    match tokio::time::timeout(READY_MAX, fence).await {
        Ok(Ok(())) => None,
        Ok(Err(refused)) => Some(refused.0.into_owned()),
        Err(_) => Some("no quorum has answered within a second".into()),
    }
}

/// `?after=T`: samples younger than that.
#[derive(serde::Deserialize)]
struct After {
    after: Option<i64>,
}

async fn state<B: Backend>(State(inner): State<Arc<Inner<B>>>, Query(query): Query<After>) -> Response {
    let not_ready = readiness(&inner.shared).await;
    let samples = lock(&inner.history).after(query.after.unwrap_or(0));
    Json(status::status(&inner.shared, not_ready, samples)).into_response()
}

#[cfg(test)]
mod tests {
    use super::is_local_name;

    #[test]
    fn a_name_that_a_stranger_can_point_here_is_not_local() {
        for host in ["localhost", "LOCALHOST:9121", "127.0.0.1", "127.0.0.1:9121", "[::1]:9121", "[::1]"] {
            assert!(is_local_name(host), "{host}");
        }
        for host in ["evil.example", "evil.example:9121", "127.0.0.1.evil.example", "localhost.evil.example:1", ""] {
            assert!(!is_local_name(host), "{host}");
        }
    }
}
