//! What a request is told, to the letter of C2SP tlog-witness; and sentences where the specification has no body.

use super::log::Decision;
use crate::http::Refusal;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tlog::Verdict;

/// A status with a sentence for people.
pub fn said(status: StatusCode, what: &str) -> Response {
    with_type(status, "text/plain; charset=utf-8", format!("{what}\n"))
}

pub fn with_type(status: StatusCode, media_type: &'static str, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
    ];
    (status, headers, body).into_response()
}

/// Worth another attempt.
pub fn unavailable(what: &str) -> Response {
    let mut response = said(StatusCode::SERVICE_UNAVAILABLE, what);
    response.headers_mut().insert(header::RETRY_AFTER, 1.into());
    response
}

pub fn of(decision: Decision) -> Response {
    match decision {
        Decision::Cosigned(signature) => with_type(
            StatusCode::OK,
            "text/plain; charset=utf-8",
            format!("{signature}\n"),
        ),
        Decision::Refused(verdict) => of_verdict(verdict),
        Decision::Failed => unavailable("the checkpoint cannot be kept now, and is not cosigned"),
    }
}

pub fn of_verdict(verdict: Verdict) -> Response {
    match verdict {
        Verdict::BadRequest => said(
            StatusCode::BAD_REQUEST,
            "the old size is larger than the checkpoint's",
        ),
        Verdict::Forbidden => said(
            StatusCode::FORBIDDEN,
            "no key that is known for the log has signed the checkpoint, or a signature is false",
        ),
        Verdict::NotFound => said(StatusCode::NOT_FOUND, "the log is not known here"),
        Verdict::Conflict { size } => with_type(
            StatusCode::CONFLICT,
            "text/x.tlog.size",
            format!("{size}\n"),
        ),
        Verdict::Unprocessable => said(
            StatusCode::UNPROCESSABLE_ENTITY,
            "the proof does not show that the checkpoint continues the last one",
        ),
        // It is answered with a signature.
        Verdict::Cosign => unavailable("the checkpoint is not cosigned"),
    }
}

/// What a verdict is called where they are counted.
pub fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Cosign => "cosigned",
        Verdict::BadRequest => "bad_request",
        Verdict::Forbidden => "forbidden",
        Verdict::NotFound => "not_found",
        Verdict::Conflict { .. } => "conflict",
        Verdict::Unprocessable => "unprocessable",
    }
}

pub fn refused(refusal: Refusal) -> Response {
    match refusal {
        Refusal::NoSuchPath => said(StatusCode::NOT_FOUND, "nothing has this path"),
        Refusal::NoSuchMethod => said(
            StatusCode::METHOD_NOT_ALLOWED,
            "this path is not asked with that method",
        ),
        Refusal::TooOften => {
            let mut response = said(
                StatusCode::TOO_MANY_REQUESTS,
                "this client asks for more than it may",
            );
            response.headers_mut().insert(header::RETRY_AFTER, 1.into());
            response
        }
        Refusal::TooSlow => unavailable("the answer takes too long"),
        Refusal::Failed => said(StatusCode::INTERNAL_SERVER_ERROR, "the witness failed"),
    }
}
