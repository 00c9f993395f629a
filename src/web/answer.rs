//! What is answered when something does not work: a status, a line, and a class for scripts.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why a request is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// The class, as in the objects of `--json`.
    pub class: &'static str,
    /// The line.
    pub error: String,
}

impl Refusal {
    /// With this status; the class follows from it.
    #[must_use]
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        let class = match status {
            StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS => "auth",
            StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST => "refused",
            StatusCode::NOT_FOUND
            | StatusCode::CONFLICT
            | StatusCode::RANGE_NOT_SATISFIABLE
            | StatusCode::INSUFFICIENT_STORAGE => "file",
            StatusCode::BAD_GATEWAY => "network",
            StatusCode::INTERNAL_SERVER_ERROR => "other",
            _ => "usage",
        };
        Self {
            status,
            class,
            error: error.into(),
        }
    }

    /// 400: what came makes no sense.
    #[must_use]
    pub fn nonsense(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({"error": self.error, "class": self.class});
        (self.status, Json(body)).into_response()
    }
}

/// For a path that is not there.
pub async fn no_such_path() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "no such path")
}

/// For a path that is there for another method.
pub async fn no_such_method() -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "that is not done with this method",
    )
}
