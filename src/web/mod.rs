//! The HTTP interface of a peer: listens on loopback, and serves each connection within limits.
//!
//! ```text
//! TCP ─▶ patience ─▶ hyper ─▶ guard ─▶ files, upload ─▶ Peer
//!        time-outs            Host, Origin, token
//! ```
//! One request a connection: nothing is left over that could be taken for another one.

pub mod answer;
pub mod files;
pub mod guard;
pub mod patience;
pub mod range;
pub mod token;
pub mod upload;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::guard::Gate;
use self::patience::Patient;
use self::token::Token;
use crate::net::{listen_tcp, serve_few};
use crate::peer::Peer;

/// Port of an address that names none.
pub const PORT: u16 = 7070;
/// The head of a request comes within this time.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Connections at the same time; those beyond it are closed.
const MAX_CONNECTIONS: usize = 256;
/// Largest head of a request, in bytes and in lines.
const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 64;

/// What all requests work with; cheap to clone.
#[derive(Clone)]
pub struct Shared {
    /// Whose files they are.
    pub peer: Peer,
    /// Where what is uploaded goes.
    pub uploads: PathBuf,
}

/// An address for the interface: a port of loopback, or an address of loopback with its port.
///
/// # Errors
/// When it is none, or not of loopback; the words say so.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let wrong = || format!("\"{text}\" is no address for the web; write 7070 or 127.0.0.1:7070");
    let port = |port: &str| port.parse::<u16>().map_err(|_| wrong());
    let loopback_port = text.strip_prefix("localhost:").or(text.strip_prefix(':'));
    let address: SocketAddr = match (text.parse(), text.parse()) {
        (Ok(address), _) => address,
        (Err(_), Ok(ip)) => SocketAddr::new(ip, PORT),
        (Err(_), Err(_)) => (Ipv4Addr::LOCALHOST, port(loopback_port.unwrap_or(text))?).into(),
    };
    if !address.ip().is_loopback() {
        return Err(format!(
            "{text} is not of this machine alone, and there is no TLS here: take 127.0.0.1, and reach it \
             from elsewhere with ssh -L {PORT}:127.0.0.1:{PORT} HOST"
        ));
    }
    Ok(address)
}

/// A socket that listens; nobody is answered yet.
#[derive(Debug)]
pub struct Web {
    listener: TcpListener,
    address: SocketAddr,
}

impl Web {
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
    pub async fn run(self, shared: Shared, token: Token, shutdown: CancellationToken) {
        let router = router(shared, Gate::new(self.address, token));
        let answer = |stream| serve(stream, router.clone());
        serve_few(self.listener, MAX_CONNECTIONS, shutdown, answer).await;
    }
}

async fn serve(stream: TcpStream, router: Router) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(
            TokioIo::new(Patient::new(stream)),
            TowerToHyperService::new(router),
        );
    if let Err(error) = serving.await {
        debug!(%error, "a request failed");
    }
}

fn router(shared: Shared, gate: Gate) -> Router {
    Router::new()
        .route("/list_files", get(files::list))
        .route("/download/{name}", get(files::download))
        .route(
            "/upload",
            post(upload::upload).layer(DefaultBodyLimit::disable()),
        )
        .route("/healthz", get(health))
        .fallback(answer::no_such_path)
        .method_not_allowed_fallback(answer::no_such_method)
        .with_state(shared)
        .layer(from_fn_with_state(gate, guard::guard))
}

async fn health() -> &'static str {
    "ok\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_88_only_addresses_of_loopback_are_taken() {
        for (text, address) in [
            ("7070", "127.0.0.1:7070"),
            (":7171", "127.0.0.1:7171"),
            ("localhost:1", "127.0.0.1:1"),
            ("127.0.0.1", "127.0.0.1:7070"),
            ("::1", "[::1]:7070"),
            ("[::1]:0", "[::1]:0"),
        ] {
            assert_eq!(parse_address(text), Ok(address.parse().unwrap()), "{text}");
        }
        for text in ["0.0.0.0:7070", "192.0.2.7", "[::]:7070", "::"] {
            let error = parse_address(text).unwrap_err();
            assert!(error.contains("TLS"), "{error}");
        }
        for text in ["", ":", "hub:7070", "65536", "http://x", "-1"] {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }
}
