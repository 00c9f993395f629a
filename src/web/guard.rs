//! Who is let in: the right host, no foreign page, the token; slower after wrong guesses.
//!
//! In this order. A page elsewhere, which the same browser shows, can reach loopback: under its own name (refused by
//! `Host`, which is never a proof of anything), or as a request across sites (refused by `Origin` and the
//! browser's metadata). What remains needs the token, which no browser adds by itself.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, ORIGIN,
    REFERRER_POLICY, UPGRADE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::answer::Refusal;
use super::token::Token;

/// Wrong tokens in a minute, after which the answer says to wait.
const MAX_GUESSES: u32 = 5;
const MINUTE: Duration = Duration::from_secs(60);
/// Said with every answer.
const HEADERS: [(HeaderName, &str); 7] = [
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// What requests are measured by; cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Hosts that are ours, in small letters.
    hosts: Vec<String>,
    token: Token,
    guesses: Mutex<Guesses>,
}

/// Wrong tokens since some moment. All come from this machine: they are counted together.
#[derive(Debug)]
struct Guesses {
    since: Instant,
    count: u32,
}

impl Gate {
    /// For a server at `own`.
    #[must_use]
    pub fn new(own: SocketAddr, token: Token) -> Self {
        let port = own.port();
        let mut hosts = vec![own.to_string(), format!("localhost:{port}")];
        if port == 80 {
            hosts.extend([own.ip().to_string(), "localhost".to_owned()]);
        }
        let guesses = Guesses {
            since: Instant::now(),
            count: 0,
        };
        Self(Arc::new(Inner {
            hosts,
            token,
            guesses: Mutex::new(guesses),
        }))
    }

    /// Does the one `Host` name us, and nothing else of the request somebody else?
    fn is_for_us(&self, request: &Request) -> bool {
        let mut hosts = request.headers().get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return false;
        };
        // A whole address in the first line is for proxies, and would win over the header elsewhere.
        request.uri().authority().is_none() && self.is_host(host.as_bytes())
    }

    fn is_host(&self, host: &[u8]) -> bool {
        let mut hosts = self.0.hosts.iter();
        hosts.any(|own| own.as_bytes().eq_ignore_ascii_case(host))
    }

    /// Does a page of somebody else ask?
    fn is_foreign(&self, headers: &HeaderMap) -> bool {
        let is_own = |origin: &HeaderValue| {
            let host = origin.as_bytes().strip_prefix(b"http://");
            host.is_some_and(|host| self.is_host(host))
        };
        let mut sites = headers.get_all("sec-fetch-site").iter();
        let is_near = |site: &HeaderValue| ["same-origin", "none"].iter().any(|near| site == near);
        !headers.get_all(ORIGIN).iter().all(is_own)
            || !sites.all(is_near)
            || headers.contains_key(UPGRADE)
    }

    fn has_token(&self, headers: &HeaderMap) -> bool {
        let mut shown = headers.get_all(AUTHORIZATION).iter();
        let (Some(shown), None) = (shown.next(), shown.next()) else {
            return false;
        };
        let shown = shown.as_bytes();
        let token = match shown.split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token,
            _ => shown,
        };
        self.0.token.fits(token.trim_ascii())
    }

    /// Counts a wrong token; were there too many?
    fn note_guess(&self) -> bool {
        let guesses = self.0.guesses.lock();
        let mut guesses = guesses.unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now.duration_since(guesses.since) >= MINUTE {
            *guesses = Guesses {
                since: now,
                count: 0,
            };
        }
        guesses.count = guesses.count.saturating_add(1);
        guesses.count > MAX_GUESSES
    }

    fn judge(&self, request: &Request) -> Result<(), Refusal> {
        if !self.is_for_us(request) {
            let line = "this is not the host that was asked for";
            return Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, line));
        }
        if self.is_foreign(request.headers()) {
            let line = "requests of other pages are refused";
            return Err(Refusal::new(StatusCode::FORBIDDEN, line));
        }
        // Whoever has the token is never kept out by those who guess.
        if request.uri().path() == "/healthz" || self.has_token(request.headers()) {
            return Ok(());
        }
        if self.note_guess() {
            let line = "too many wrong tokens; wait a minute";
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, line));
        }
        let line = "the token is missing or wrong; p2pfs web shows it";
        Err(Refusal::new(StatusCode::UNAUTHORIZED, line))
    }
}

/// Before everything else.
pub async fn guard(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let mut response = match gate.judge(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    let status = response.status();
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
