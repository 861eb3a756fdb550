//! Why a request is not answered: problem details (RFC 9457), with the extension's hint.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio_postgres::error::{DbError, SqlState};

/// The kinds of problems. Each has a section in the gateway's own documentation, which its `type` points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    Timeout,
    NotYetLogged,
    Conflict,
    Pruned,
    TooLarge,
    UnsupportedMediaType,
    TooManyRequests,
    Internal,
    Unavailable,
}

impl Kind {
    pub const ALL: [Kind; 15] = [
        Kind::BadRequest,
        Kind::Unauthorized,
        Kind::Forbidden,
        Kind::NotFound,
        Kind::MethodNotAllowed,
        Kind::NotAcceptable,
        Kind::Timeout,
        Kind::NotYetLogged,
        Kind::Conflict,
        Kind::Pruned,
        Kind::TooLarge,
        Kind::UnsupportedMediaType,
        Kind::TooManyRequests,
        Kind::Internal,
        Kind::Unavailable,
    ];

    pub fn status(self) -> StatusCode {
        match self {
            Kind::BadRequest => StatusCode::BAD_REQUEST,
            Kind::Unauthorized => StatusCode::UNAUTHORIZED,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Kind::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Kind::Timeout => StatusCode::REQUEST_TIMEOUT,
            Kind::NotYetLogged | Kind::Conflict => StatusCode::CONFLICT,
            Kind::Pruned => StatusCode::GONE,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Kind::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::BadRequest => "bad-request",
            Kind::Unauthorized => "unauthorized",
            Kind::Forbidden => "forbidden",
            Kind::NotFound => "not-found",
            Kind::MethodNotAllowed => "method-not-allowed",
            Kind::NotAcceptable => "not-acceptable",
            Kind::Timeout => "timeout",
            Kind::NotYetLogged => "not-yet-logged",
            Kind::Conflict => "conflict",
            Kind::Pruned => "pruned",
            Kind::TooLarge => "too-large",
            Kind::UnsupportedMediaType => "unsupported-media-type",
            Kind::TooManyRequests => "too-many-requests",
            Kind::Internal => "internal",
            Kind::Unavailable => "unavailable",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Kind::BadRequest => "The request is not valid",
            Kind::Unauthorized => "This needs a bearer token",
            Kind::Forbidden => "The gateway may not read this",
            Kind::NotFound => "There is no such thing",
            Kind::MethodNotAllowed => "This cannot be done with that method",
            Kind::NotAcceptable => "None of the accepted formats can be written",
            Kind::Timeout => "The request did not arrive in time",
            Kind::NotYetLogged => "This is not logged yet",
            Kind::Conflict => "The database refuses this as things stand",
            Kind::Pruned => "This was pruned",
            Kind::TooLarge => "The request is too large",
            Kind::UnsupportedMediaType => "The body is not JSON",
            Kind::TooManyRequests => "Too many requests",
            Kind::Internal => "The gateway or the database failed",
            Kind::Unavailable => "The database cannot answer now",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Problem {
    pub kind: Kind,
    pub detail: String,
    pub hint: Option<String>,
    /// Seconds.
    pub retry_after: Option<u32>,
    /// What the database said, if it was the database.
    pub sqlstate: Option<SqlState>,
}

/// The document of a problem, as it is written.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ProblemDetails<'p> {
    /// Points to the explanation of the kind.
    #[serde(rename = "type")]
    kind: String,
    title: &'p str,
    status: u16,
    detail: &'p str,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'p str>,
}

impl Problem {
    pub fn new(kind: Kind, detail: impl Into<String>) -> Problem {
        Problem {
            kind,
            detail: detail.into(),
            hint: None,
            retry_after: (kind == Kind::Unavailable || kind == Kind::TooManyRequests).then_some(1),
            sqlstate: None,
        }
    }

    pub fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(Kind::BadRequest, detail)
    }

    pub fn with_hint(self, hint: impl Into<String>) -> Problem {
        Problem {
            hint: Some(hint.into()),
            ..self
        }
    }

    pub fn unknown_log(log: &str) -> Problem {
        Problem::new(Kind::NotFound, format!("log \"{log}\" does not exist"))
            .with_hint("GET /logs lists the logs.")
    }

    /// The database cannot be asked; why is for the operator only, who finds it in the gateway's own log.
    pub fn unreachable(why: &dyn std::fmt::Display) -> Problem {
        tracing::warn!(%why, "the database cannot be reached");
        Problem::new(Kind::Unavailable, "the database cannot be reached")
            .with_hint("Try again after the time that Retry-After says.")
    }
}

impl From<tokio_postgres::Error> for Problem {
    fn from(error: tokio_postgres::Error) -> Problem {
        match error.as_db_error() {
            Some(refused) => refused_by_database(refused),
            None if error.is_closed() => Problem::unreachable(&error),
            // A value of the request that the protocol cannot carry, or an answer that this program does not expect.
            None => match std::error::Error::source(&error) {
                Some(source) if source.is::<std::io::Error>() => Problem::unreachable(source),
                source => {
                    let why = source.map_or_else(|| error.to_string(), ToString::to_string);
                    tracing::error!(%error, %why, "the database's answer was not understood");
                    Problem::new(Kind::Internal, "the database's answer was not understood")
                }
            },
        }
    }
}

/// What the extension says is passed on. What the server says of itself is for the operator.
fn refused_by_database(error: &DbError) -> Problem {
    let kind = kind_of(error.code(), error.message());
    match kind {
        Kind::Internal => {
            tracing::error!(
                sqlstate = error.code().code(),
                said = error.message(),
                "the database failed"
            );
        }
        Kind::Unavailable => {
            tracing::warn!(
                sqlstate = error.code().code(),
                said = error.message(),
                "the database is not ready"
            );
            return Problem::new(kind, "the database cannot answer now")
                .with_hint("Try again after the time that Retry-After says.");
        }
        _ => {}
    }
    Problem {
        hint: error.hint().map(str::to_owned),
        sqlstate: Some(error.code().clone()),
        ..Problem::new(kind, error.message())
    }
}

/// Several errors of the extension have one SQLSTATE; they are told apart by how their messages begin, which is before
/// any name that somebody chose.
fn kind_of(code: &SqlState, message: &str) -> Kind {
    if *code == SqlState::NO_DATA_FOUND {
        return match message {
            m if m.starts_with("entry ") || m.starts_with("the proof needs ") => Kind::Pruned,
            m if m.starts_with("row ") || m.starts_with("no checkpoint ") => Kind::NotYetLogged,
            _ => Kind::NotFound,
        };
    }
    if *code == SqlState::NUMERIC_VALUE_OUT_OF_RANGE {
        // "log … has 7 entries: leaf index 9 does not exist"; the others contradict themselves.
        return match message.starts_with("log ") {
            true => Kind::NotYetLogged,
            false => Kind::BadRequest,
        };
    }
    let state = code.code();
    match state {
        // No such log, source, table or function.
        "42704" | "42P01" | "3F000" => Kind::NotFound,
        "42501" => Kind::Forbidden,
        "42710" | "55000" | "25006" => Kind::Conflict,
        // A standby writes nothing; the others are names of tables in other databases.
        "0A000" if message.starts_with("log ") => Kind::Conflict,
        "0A000" | "42601" | "42939" | "42602" | "42804" | "42P18" | "22004" => Kind::BadRequest,
        // Locks that somebody holds; a statement that took too long.
        "55P03" | "57014" => Kind::Unavailable,
        // Resources, operator intervention, connections.
        _ if ["53", "57", "08", "40"].contains(&state.get(..2).unwrap_or("")) => Kind::Unavailable,
        _ if state.starts_with("22") => Kind::BadRequest,
        _ => Kind::Internal,
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.kind.status();
        let details = ProblemDetails {
            kind: format!("/docs#{}", self.kind.name()),
            title: self.kind.title(),
            status: status.as_u16(),
            detail: &self.detail,
            hint: self.hint.as_deref(),
        };
        // Strings and numbers always have a JSON form.
        let body = serde_json::to_vec(&details).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.kind == Kind::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_somebody_chose_does_not_change_what_went_wrong() {
        let no_data = SqlState::NO_DATA_FOUND;
        for (message, kind) in [
            (
                "entry 3 of log \"a\" was pruned: entries before 256 are gone",
                Kind::Pruned,
            ),
            (
                "row 7 of table \"entry 3\" is not in log \"the proof needs \"",
                Kind::NotYetLogged,
            ),
            (
                "log \"entry \" has no entry with leaf hash 00",
                Kind::NotFound,
            ),
        ] {
            assert_eq!(kind_of(&no_data, message), kind, "{message}");
        }
    }

    #[test]
    fn what_the_server_says_of_itself_is_no_fault_of_the_request() {
        for state in ["57P01", "57P03", "53300", "53200", "08006", "40001"] {
            assert_eq!(
                kind_of(&SqlState::from_code(state), ""),
                Kind::Unavailable,
                "{state}"
            );
        }
        assert_eq!(kind_of(&SqlState::from_code("XX001"), ""), Kind::Internal);
    }

    #[test]
    fn kinds_have_names_of_their_own() {
        let names: std::collections::BTreeSet<_> =
            Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
    }
}
