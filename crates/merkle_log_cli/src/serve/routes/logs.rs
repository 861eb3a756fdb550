//! Logs, their sizes and roots, and whether they have a hash.

use super::Problems;
use crate::serve::answers::{Answer, Answered, Format};
use crate::serve::gateway::Shared;
use crate::serve::problems::Problem;
use crate::serve::read::logs::{self, Found, Head, Log, Root, Size};
use crate::serve::request::{LogName, Parameters};
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(one))
        .routes(routes!(root))
        .routes(routes!(size))
        .routes(routes!(head))
        .routes(routes!(has_leaf))
        .routes(routes!(has_root))
}

/// All logs
#[utoipa::path(get, path = "/logs", responses((status = 200, body = Vec<Log>), Problems))]
async fn list(
    State(gateway): State<Shared>,
    format: Format,
    parameters: Parameters,
) -> Answered<Vec<Log>> {
    parameters.end()?;
    Ok(Answer(format, gateway.logs().await?))
}

/// One log
#[utoipa::path(get, path = "/logs/{log}", responses((status = 200, body = Log), Problems),
    params(("log" = String, Path, description = "The log's name")))]
async fn one(
    State(gateway): State<Shared>,
    LogName(log): LogName,
    format: Format,
    parameters: Parameters,
) -> Answered<Log> {
    parameters.end()?;
    let mut logs = gateway.logs().await?.into_iter();
    let found = logs.find(|known| known.name == log);
    Ok(Answer(
        format,
        found.ok_or_else(|| Problem::unknown_log(&log))?,
    ))
}

/// The root of the tree of a size
#[utoipa::path(get, path = "/logs/{log}/root", responses((status = 200, body = Root), Problems),
    params(
        ("log" = String, Path, description = "The log's name"),
        ("size" = Option<u64>, Query, description = "Entries of the tree; left out: all"),
    ))]
async fn root(
    State(gateway): State<Shared>,
    LogName(log): LogName,
    format: Format,
    mut parameters: Parameters,
) -> Answered<Root> {
    let size = parameters.number("size")?;
    parameters.end()?;
    let session = gateway.session().await?;
    let root = match size {
        Some(size) => logs::root(&session, &log, size).await?,
        None => {
            let Head { size, root, .. } = logs::head(&session, &log).await?;
            Root { size, root }
        }
    };
    Ok(Answer(format, root))
}

/// How many entries the log has
#[utoipa::path(get, path = "/logs/{log}/size", responses((status = 200, body = Size), Problems),
    params(("log" = String, Path, description = "The log's name")))]
async fn size(
    State(gateway): State<Shared>,
    LogName(log): LogName,
    format: Format,
    parameters: Parameters,
) -> Answered<Size> {
    parameters.end()?;
    Ok(Answer(
        format,
        logs::size(&*gateway.session().await?, &log).await?,
    ))
}

/// Size, root and time of the latest batch
#[utoipa::path(get, path = "/logs/{log}/head", responses((status = 200, body = Head), Problems),
    params(("log" = String, Path, description = "The log's name")))]
async fn head(
    State(gateway): State<Shared>,
    LogName(log): LogName,
    format: Format,
    parameters: Parameters,
) -> Answered<Head> {
    parameters.end()?;
    Ok(Answer(
        format,
        logs::head(&*gateway.session().await?, &log).await?,
    ))
}

/// Whether an entry has a leaf hash
#[utoipa::path(get, path = "/logs/{log}/has_leaf", responses((status = 200, body = Found), Problems),
    params(
        ("log" = String, Path, description = "The log's name"),
        ("hash" = String, Query, description = "The leaf hash, in hexadecimal"),
    ))]
async fn has_leaf(
    State(gateway): State<Shared>,
    LogName(log): LogName,
    format: Format,
    mut parameters: Parameters,
) -> Answered<Found> {
    let hash = parameters.hash("hash")?;
    parameters.end()?;
    let hash = hash.ok_or_else(|| Problem::bad_request("hash is missing"))?;
    let session = gateway.session().await?;
    Ok(Answer(
        format,
        logs::has_leaf(&session, &log, hash.as_bytes()).await?,
    ))
}

/// Whether the log ever had a root: that of one of its tree heads
#[utoipa::path(get, path = "/logs/{log}/has_root", responses((status = 200, body = Found), Problems),
    params(
        ("log" = String, Path, description = "The log's name"),
        ("root" = String, Query, description = "The root, in hexadecimal"),
    ))]
async fn has_root(
    State(gateway): State<Shared>,
    LogName(log): LogName,
    format: Format,
    mut parameters: Parameters,
) -> Answered<Found> {
    let root = parameters.hash("root")?;
    parameters.end()?;
    let root = root.ok_or_else(|| Problem::bad_request("root is missing"))?;
    let session = gateway.session().await?;
    Ok(Answer(
        format,
        logs::has_root(&session, &log, root.as_bytes()).await?,
    ))
}
