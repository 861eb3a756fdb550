//! Checkpoints: the newest as C2SP tlog-tiles has it, and all of them.

use super::{Problems, described};
use crate::serve::answers::{Answer, Answered, Format, tagged};
use crate::serve::exported;
use crate::serve::gateway::Shared;
use crate::serve::problems::Problem;
use crate::serve::read::checkpoints::{self, Checkpoint};
use crate::serve::request::{LogName, Parameters};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(newest))
        .routes(routes!(list))
}

/// The newest checkpoint, a signed note
#[utoipa::path(get, path = "/logs/{log}/checkpoint",
    responses((status = 200, content((String = "text/plain"))), (status = 304), Problems),
    params(("log" = String, Path, description = "The log's name")))]
async fn newest(
    State(gateway): State<Shared>,
    LogName(log): LogName,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<Response, Problem> {
    parameters.end()?;
    let note = match gateway.live().tiles.get(&log) {
        Some(directory) => exported::file(directory, "checkpoint").await?,
        None => checkpoints::newest(&*gateway.session().await?, &log)
            .await?
            .into_bytes(),
    };
    Ok(tagged(
        &headers,
        note,
        described("text/plain; charset=utf-8", "no-cache"),
    ))
}

/// Checkpoints of one answer.
const MOST: i64 = 100;

/// Checkpoints, the smallest first, at most 100 in an answer
#[utoipa::path(get, path = "/logs/{log}/checkpoints", responses((status = 200, body = Vec<Checkpoint>), Problems),
    params(
        ("log" = String, Path, description = "The log's name"),
        ("from_size" = Option<u64>, Query, description = "The smallest size; left out: 0"),
    ))]
async fn list(
    State(gateway): State<Shared>,
    LogName(log): LogName,
    format: Format,
    mut parameters: Parameters,
) -> Answered<Vec<Checkpoint>> {
    let from = parameters.number("from_size")?;
    parameters.end()?;
    let session = gateway.session().await?;
    let found = checkpoints::checkpoints(&session, &log, from.unwrap_or(0), MOST).await?;
    Ok(Answer(format, found))
}
