//! An error as HTTP says it.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use catbird_db::{Error, ErrorKind};
use serde_json::json;

pub struct Failure(Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Failure(error) = self;
        let status = match error.kind() {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::Denied => StatusCode::FORBIDDEN,
            ErrorKind::Retryable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let current_epoch = match error {
            Error::EpochConflict { current, .. } => Some(current),
            _ => None,
        };
        // What is wrong inside, and what its operator can do, is for the server's own log.
        let kind = error.kind();
        let inside = matches!(kind, ErrorKind::Internal | ErrorKind::Retryable);
        if inside {
            tracing::error!(?error, hint = error.hint(), "{error}");
        }
        let message = match kind {
            ErrorKind::Internal => "internal error".to_owned(),
            _ => error.to_string(),
        };
        let hint = error.hint().filter(|_| !inside);
        let body = json!({ "error": message, "hint": hint, "current_epoch": current_epoch });
        (status, Json(body)).into_response()
    }
}
