//! The tracker's numbers over HTTP, for Prometheus: `/metrics` and `/healthz`, to be read and nothing else.
//!
//! Whoever reaches the address may read them, so it is loopback unless another one was given plainly. A web
//! page in a browser on this machine reaches loopback too: hence no answer to a name that is not ours.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::exposition;
use super::metrics::Metrics;
use crate::net::{listen_tcp, serve_few};

/// The head of a request comes within this time.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// A connection ends within this time, whatever it does.
const CONNECTION_TIME: Duration = Duration::from_secs(15);
/// Connections at the same time; those beyond it are closed.
const MAX_CONNECTIONS: usize = 16;
/// Largest head of a request, in bytes and in lines.
const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 64;

/// An address for the numbers: `9100` and `:9100` are loopback's port, everything else is meant as it stands.
///
/// # Errors
/// When it is none; the words say so.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let wrong = || format!("\"{text}\" is no address for metrics; write 9100 or 127.0.0.1:9100");
    let port = |port: &str| port.parse::<u16>().map_err(|_| wrong());
    if let Some(rest) = text.strip_prefix("localhost:").or(text.strip_prefix(':')) {
        return Ok((Ipv4Addr::LOCALHOST, port(rest)?).into());
    }
    match text.parse() {
        Ok(address) => Ok(address),
        Err(_) => Ok((Ipv4Addr::LOCALHOST, port(text)?).into()),
    }
}

/// A socket that listens; nobody is answered yet.
#[derive(Debug)]
pub struct Scrape {
    listener: TcpListener,
    address: SocketAddr,
}

impl Scrape {
    /// Listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = listen_tcp(Some(address.ip()), address.port())?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown`.
    pub async fn run(self, metrics: Arc<Metrics>, shutdown: CancellationToken) {
        let answer = |stream| {
            let serving = serve(stream, Arc::clone(&metrics));
            async move {
                let _ = timeout(CONNECTION_TIME, serving).await;
            }
        };
        serve_few(self.listener, MAX_CONNECTIONS, shutdown, answer).await;
    }
}

async fn serve(stream: TcpStream, metrics: Arc<Metrics>) {
    let Ok(own) = stream.local_addr() else { return };
    let pages = TowerToHyperService::new(pages(metrics, own));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), pages);
    if let Err(error) = serving.await {
        debug!(%error, "a scrape failed");
    }
}

fn pages(metrics: Arc<Metrics>, own: SocketAddr) -> Router {
    Router::new()
        .route("/metrics", get(numbers))
        .route("/healthz", get(health))
        .with_state(metrics)
        .layer(from_fn_with_state(own, guard))
}

/// Before everything else: is this request meant for us?
async fn guard(State(own): State<SocketAddr>, request: Request, next: Next) -> Response {
    if !is_for(own, request.headers()) {
        let text = "this is not the host that was asked for\n";
        return (StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, "no-store".parse().expect("letters"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, "nosniff".parse().expect("letters"));
    response
}

/// Does the one `Host` say the very address that was connected to? Any other name may be that of a page
/// elsewhere that had itself resolved to us.
fn is_for(own: SocketAddr, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let Ok(host) = host.to_str() else {
        return false;
    };
    let (ip, port) = (own.ip().to_canonical(), own.port());
    let name = match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    };
    let names = [Some(name.as_str()), ip.is_loopback().then_some("localhost")];
    let is_name = |host: &str| {
        let mut names = names.iter().flatten();
        names.any(|name| name.eq_ignore_ascii_case(host))
    };
    match host.strip_suffix(&format!(":{port}")) {
        Some(host) => is_name(host),
        None => port == 80 && is_name(host),
    }
}

async fn numbers(State(metrics): State<Arc<Metrics>>) -> Response {
    match exposition::render(&metrics) {
        Ok(text) => ([(CONTENT_TYPE, exposition::MEDIA_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn health(State(metrics): State<Arc<Metrics>>) -> Response {
    if metrics.is_alive(Instant::now()) {
        "ok\n".into_response()
    } else {
        let text = "a loop of the tracker hangs\n";
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_host_is_loopback() {
        for (text, address) in [
            ("9100", "127.0.0.1:9100"),
            (":9100", "127.0.0.1:9100"),
            ("localhost:9100", "127.0.0.1:9100"),
            ("[::1]:9100", "[::1]:9100"),
            ("0.0.0.0:9100", "0.0.0.0:9100"),
            ("192.0.2.7:0", "192.0.2.7:0"),
        ] {
            assert_eq!(parse_address(text), Ok(address.parse().unwrap()), "{text}");
        }
        for text in [
            "",
            ":",
            "192.0.2.7",
            "::1",
            "hub:9100",
            "65536",
            "http://x",
            "-1",
        ] {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_the_address_that_was_connected_to_is_a_host() {
        let is_for = |own: &str, hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, host.parse().unwrap());
            }
            is_for(own.parse().unwrap(), &headers)
        };
        for (own, host) in [
            ("127.0.0.1:9100", "127.0.0.1:9100"),
            ("127.0.0.1:9100", "LocalHost:9100"),
            ("[::1]:9100", "[::1]:9100"),
            ("[::ffff:192.0.2.7]:9100", "192.0.2.7:9100"),
            ("127.0.0.1:80", "localhost"),
        ] {
            assert!(is_for(own, &[host]), "{own} {host}");
        }
        for (own, host) in [
            ("127.0.0.1:9100", "evil.example:9100"),
            ("127.0.0.1:9100", "localhost.evil.example:9100"),
            ("127.0.0.1:9100", "127.0.0.1:9101"),
            ("127.0.0.1:9100", "127.0.0.1"),
            ("127.0.0.1:9100", "localhost:19100"),
            ("127.0.0.1:9100", ""),
            ("192.0.2.7:9100", "localhost:9100"),
        ] {
            assert!(!is_for(own, &[host]), "{own} {host}");
        }
        assert!(!is_for("127.0.0.1:9100", &[]));
        assert!(!is_for(
            "127.0.0.1:9100",
            &["127.0.0.1:9100", "evil.example"]
        ));
    }
}
