//! Administration: calls of SQL functions that change logs, for those who have a token, on a listener of its own.
//!
//! Every call is in the audit log, refused ones included: a line with the target `audit`. Calls that change a log are
//! also in the database's administration log, with the token's name in the application's name.

use super::answers::{Answer, Answered, Format};
use super::gateway::{Gateway, Shared};
use super::problems::{Kind, Problem};
use super::request::LogName;
use super::routes::bounded;
use super::routes::document::{self, Problems};
use super::tokens::Bearer;
use crate::administer::{Argument, Call, LogSettings};
use crate::http::Peer;
use crate::output::printable;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio_postgres::Row;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn router(gateway: &Shared) -> Router {
    let (router, document) = OpenApiRouter::with_openapi(document::start())
        .routes(routes!(create))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(enable))
        .routes(routes!(disable))
        .routes(routes!(run))
        .routes(routes!(schedule, unschedule))
        .split_for_parts();
    let known = middleware::from_fn_with_state(Shared::clone(gateway), authenticated);
    let router = router.route_layer(known).merge(document::router(document));
    bounded(router, gateway)
}

/// Who calls, once that is known.
#[derive(Clone, Debug)]
struct Caller {
    token: String,
    peer: String,
}

async fn authenticated(
    State(gateway): State<Shared>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = match request.extensions().get::<Peer>() {
        Some(Peer(Some(address))) => address.to_string(),
        _ => "unix".to_owned(),
    };
    let live = gateway.live();
    match live.admin_tokens.bearer(request.headers()) {
        Bearer::Known(token) => {
            let token = token.to_owned();
            request.extensions_mut().insert(Caller { token, peer });
            next.run(request).await
        }
        Bearer::None | Bearer::Unknown => {
            let (method, path) = (request.method(), request.uri().path());
            tracing::warn!(target: "audit", %peer, %method, path, "refused: the token is not known");
            let detail = "administration needs a token that is known here";
            Problem::new(Kind::Unauthorized, detail).into_response()
        }
    }
}

/// A body in JSON.
struct Body<T>(T);

impl<T: DeserializeOwned> FromRequest<Shared> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, gateway: &Shared) -> Result<Body<T>, Problem> {
        let time = Duration::from_secs(gateway.limits.header_seconds);
        let read = tokio::time::timeout(time, Json::<T>::from_request(request, gateway));
        let read = read
            .await
            .map_err(|_| Problem::new(Kind::Timeout, "the body did not arrive in time"))?;
        read.map(|Json(value)| Body(value)).map_err(|rejection| {
            let kind = match (&rejection, rejection.status()) {
                (JsonRejection::MissingJsonContentType(_), _) => Kind::UnsupportedMediaType,
                (_, StatusCode::PAYLOAD_TOO_LARGE) => Kind::TooLarge,
                _ => Kind::BadRequest,
            };
            Problem::new(kind, rejection.body_text())
        })
    }
}

/// Makes a call, and puts on record that it was made and what came of it.
async fn perform(gateway: &Gateway, caller: &Caller, call: &Call) -> Result<Vec<Row>, Problem> {
    let done = attempt(gateway, caller, call).await;
    let (token, peer, call) = (&caller.token, &caller.peer, printable(&call.to_string()));
    match &done {
        Ok(_) => tracing::info!(target: "audit", token, peer, call, "done"),
        Err(problem) => {
            let (status, detail) = (problem.kind.status().as_u16(), printable(&problem.detail));
            tracing::warn!(target: "audit", token, peer, call, status, detail, "refused");
        }
    }
    done
}

async fn attempt(gateway: &Gateway, caller: &Caller, call: &Call) -> Result<Vec<Row>, Problem> {
    let session = gateway.admin_session().await?;
    let database = session.administered();
    let database = database
        .ok_or_else(|| Problem::new(Kind::Internal, "the session is not for administration"))?;
    // The administration log has it.
    let name = format!("merkle-log serve: {}", caller.token);
    session
        .rows(
            "SELECT pg_catalog.set_config('application_name', $1, false)",
            &[&name],
        )
        .await?;
    session.fit(call.ask(database)).await
}

fn of(log: &str) -> Argument {
    Argument::text("log", "pg_catalog.text", log)
}

fn named(log: &str) -> Argument {
    Argument::text("name", "pg_catalog.text", log)
}

/// A log to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewLog {
    name: String,
    #[serde(default)]
    settings: LogSettings,
}

/// Makes a log
#[utoipa::path(post, path = "/admin/logs", request_body = NewLog, responses((status = 201), Problems))]
async fn create(
    State(gateway): State<Shared>,
    Extension(caller): Extension<Caller>,
    Body(log): Body<NewLog>,
) -> Result<StatusCode, Problem> {
    let arguments = [named(&log.name)]
        .into_iter()
        .chain(log.settings.arguments());
    perform(&gateway, &caller, &Call::new("create_log", arguments)).await?;
    Ok(StatusCode::CREATED)
}

/// Lets the background worker pass over a log
#[utoipa::path(post, path = "/admin/logs/{log}/pause", responses((status = 204), Problems),
    params(("log" = String, Path, description = "The log's name")))]
async fn pause(
    State(gateway): State<Shared>,
    Extension(caller): Extension<Caller>,
    LogName(log): LogName,
) -> Done {
    simple(&gateway, &caller, Call::new("pause_log", [named(&log)])).await
}

/// Lets the background worker run a log again
#[utoipa::path(post, path = "/admin/logs/{log}/resume", responses((status = 204), Problems),
    params(("log" = String, Path, description = "The log's name")))]
async fn resume(
    State(gateway): State<Shared>,
    Extension(caller): Extension<Caller>,
    LogName(log): LogName,
) -> Done {
    simple(&gateway, &caller, Call::new("resume_log", [named(&log)])).await
}

/// Lets batches run again
#[utoipa::path(post, path = "/admin/logs/{log}/enable", responses((status = 204), Problems),
    params(("log" = String, Path, description = "The log's name")))]
async fn enable(
    State(gateway): State<Shared>,
    Extension(caller): Extension<Caller>,
    LogName(log): LogName,
) -> Done {
    simple(&gateway, &caller, Call::new("enable_log", [named(&log)])).await
}

/// Lets no batch run
#[utoipa::path(post, path = "/admin/logs/{log}/disable", responses((status = 204), Problems),
    params(("log" = String, Path, description = "The log's name")))]
async fn disable(
    State(gateway): State<Shared>,
    Extension(caller): Extension<Caller>,
    LogName(log): LogName,
) -> Done {
    simple(&gateway, &caller, Call::new("disable_log", [named(&log)])).await
}

/// Asks the background worker to run a log now
#[utoipa::path(post, path = "/admin/logs/{log}/run", responses((status = 204), Problems),
    params(("log" = String, Path, description = "The log's name")))]
async fn run(
    State(gateway): State<Shared>,
    Extension(caller): Extension<Caller>,
    LogName(log): LogName,
) -> Done {
    simple(&gateway, &caller, Call::new("run_now", [of(&log)])).await
}

type Done = Result<StatusCode, Problem>;

async fn simple(gateway: &Gateway, caller: &Caller, call: Call) -> Done {
    perform(gateway, caller, &call).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// When pg_cron is to run a log.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Schedule {
    /// As pg_cron has it, such as `* * * * *`
    schedule: String,
}

/// A job of pg_cron.
#[derive(Serialize, ToSchema)]
struct Job {
    job: i64,
}

/// Lets pg_cron run a log
#[utoipa::path(post, path = "/admin/logs/{log}/schedule", request_body = Schedule, responses((status = 200, body = Job), Problems),
    params(("log" = String, Path, description = "The log's name")))]
async fn schedule(
    State(gateway): State<Shared>,
    Extension(caller): Extension<Caller>,
    LogName(log): LogName,
    format: Format,
    Body(Schedule { schedule }): Body<Schedule>,
) -> Answered<Job> {
    let schedule = Argument::text("schedule", "pg_catalog.text", schedule);
    let rows = perform(
        &gateway,
        &caller,
        &Call::new("schedule_log", [of(&log), schedule]),
    )
    .await?;
    let row = rows
        .first()
        .ok_or_else(|| Problem::new(Kind::Internal, "the database gave no job"))?;
    Ok(Answer(
        format,
        Job {
            job: row.try_get(0)?,
        },
    ))
}

/// Lets pg_cron run a log no more
#[utoipa::path(delete, path = "/admin/logs/{log}/schedule", responses((status = 204), Problems),
    params(("log" = String, Path, description = "The log's name")))]
async fn unschedule(
    State(gateway): State<Shared>,
    Extension(caller): Extension<Caller>,
    LogName(log): LogName,
) -> Done {
    let rows = perform(&gateway, &caller, &Call::new("unschedule_log", [of(&log)])).await?;
    let row = rows.first();
    match row.map(|row| row.try_get(0)).transpose()? {
        Some(true) => Ok(StatusCode::NO_CONTENT),
        _ => Err(Problem::new(
            Kind::NotFound,
            format!("log \"{log}\" is not scheduled"),
        )),
    }
}
