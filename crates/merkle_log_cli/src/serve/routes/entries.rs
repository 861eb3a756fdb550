//! Entries in leaf order.

use super::Problems;
use crate::serve::answers::{Answer, Format};
use crate::serve::gateway::Shared;
use crate::serve::problems::Problem;
use crate::serve::read::entries::{self, Entries};
use crate::serve::request::{LogName, Parameters, Reader};
use crate::serve::room::held;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Entries in the order of their indexes, at most 1,000 in an answer
///
/// Everyone is shown the leaf hashes; table, key and leaf data are left out unless the log is public or the request has
/// a token.
#[utoipa::path(get, path = "/logs/{log}/entries", responses((status = 200, body = Entries), Problems),
    params(
        ("log" = String, Path, description = "The log's name"),
        ("from" = Option<u64>, Query, description = "The first index; left out: 0"),
        ("to" = Option<u64>, Query, description = "The index behind the last; left out: the log's size"),
    ))]
async fn list(
    State(gateway): State<Shared>,
    LogName(log): LogName,
    reader: Reader,
    format: Format,
    mut parameters: Parameters,
) -> Result<Response, Problem> {
    let (from, to) = (parameters.number("from")?, parameters.number("to")?);
    parameters.end()?;
    let rows = reader.may_see_rows(&gateway, &log);
    let session = gateway.session_for_rows().await?;
    let entries = entries::entries(&session, &log, from.unwrap_or(0), to, rows).await?;
    drop(session);
    held(&gateway, Answer(format, entries).into_response()).await
}
