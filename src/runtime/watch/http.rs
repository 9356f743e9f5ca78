//! HTTP/1.1 for few and friendly clients, with a bound on everything: connections, the size of a request, the time for its head,
//! the life of a connection. GET and HEAD only, no bodies.
//!
//! | path | what |
//! |---|---|
//! | `/healthz` | 200, or 503 and the reason; JSON |
//! | `/metrics` | Prometheus's text format |
//! | `/status` | the process and its shards; JSON |

use super::observer::Observer;
use crate::admin::json::Json;
use crate::admin::{exposition, metrics, status};
use crate::runtime::clock;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Connections served at once, a listener; one more is accepted and waits, those behind it are not.
const CONNECTIONS_MAX: usize = 32;
/// The longest request line and headers, in bytes.
const HEAD_SIZE_MAX: usize = 16 << 10;
/// From the connection, or the last response, to the end of a request's headers.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Then a connection takes no further request.
const LIFE_MAX: Duration = Duration::from_secs(120);
/// Then it is cut, whatever it is in: no response takes longer.
const LAST_WORDS_MAX: Duration = Duration::from_secs(10);
/// Accepting fails when descriptors run out: it is tried again after a while.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Between two warnings about too many connections.
const QUIET_MS: u64 = 60_000;

/// Serves whoever connects, until it is dropped.
pub(super) async fn serve(listener: TcpListener, observer: Arc<Observer>) {
    let router = Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(metrics_page))
        .route("/status", get(status_page))
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is /healthz, /metrics and /status\n") })
        .with_state(observer);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut quiet_until = clock::now().mono;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!("a connection to the metrics was not accepted: {error}");
                sleep(RETRY_AFTER).await;
                continue;
            }
        };
        if places.available_permits() == 0 && quiet_until <= clock::now().mono {
            quiet_until = clock::now().mono.plus_ms(QUIET_MS);
            tracing::warn!(
                "{CONNECTIONS_MAX} connections to the health and metrics pages are open: the next one waits until one of them \
                 ends; let fewer ask, or have them close"
            );
        }
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        let router = router.clone();
        tokio::spawn(async move {
            converse(stream, router).await;
            drop(place);
        });
    }
}

/// One connection, from its first request to its last.
async fn converse(stream: TcpStream, router: Router) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move {
            if !request.body().is_end_stream() {
                let refusal = (StatusCode::PAYLOAD_TOO_LARGE, "no body is expected\n");
                return Ok::<Response<Body>, Infallible>(refusal.into_response());
            }
            router.call(request).await
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX).max_buf_size(HEAD_SIZE_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // How a client ends is its own matter.
        _ = connection.as_mut() => {}
        () = sleep(LIFE_MAX) => {
            connection.as_mut().graceful_shutdown();
            let _ = timeout(LAST_WORDS_MAX, connection).await;
        }
    }
}

async fn health(State(observer): State<Arc<Observer>>) -> Response<Body> {
    let (is_well, view) = status::health(&observer.check().await);
    let code = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(code, &view)
}

async fn status_page(State(observer): State<Arc<Observer>>) -> Response<Body> {
    json(StatusCode::OK, &status::status(&observer.report().await))
}

async fn metrics_page(State(observer): State<Arc<Observer>>) -> Response<Body> {
    let overview = observer.report().await;
    if !observer.has_reports() {
        // Sums without a shard would look as if everything had been lost.
        return (StatusCode::SERVICE_UNAVAILABLE, "a shard has not reported yet\n").into_response();
    }
    ([(CONTENT_TYPE, exposition::CONTENT_TYPE)], metrics::page(&overview)).into_response()
}

fn json(code: StatusCode, view: &Json) -> Response<Body> {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (code, headers, format!("{view}\n")).into_response()
}
