//! C2SP tlog-tiles: a client of such logs reads them below /logs/{log}.

use super::{Problems, described};
use crate::serve::answers::tagged;
use crate::serve::exported;
use crate::serve::gateway::Shared;
use crate::serve::problems::Problem;
use crate::serve::read::tiles;
use crate::serve::request::{LogName, Parameters, Reader};
use crate::serve::room::held;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use std::collections::HashMap;
use tlog::{TileLevel, TilePath};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(tile))
}

/// No later entry changes a tile.
const HASHES: &str = "public, max-age=31536000, immutable";
/// Entries may be redacted.
const PUBLIC_ENTRIES: &str = "public, max-age=600";
/// What only some readers are shown, no cache may give to others.
const PRIVATE_ENTRIES: &str = "private, no-cache";

/// A tile or an entry bundle
///
/// Entries that are withheld have length 0: all of them, unless the log is public or the request has a token.
#[utoipa::path(get, path = "/logs/{log}/tile/{*path}",
    responses((status = 200, content((Vec<u8> = "application/octet-stream"))), (status = 304), Problems),
    params(
        ("log" = String, Path, description = "The log's name"),
        ("path" = String, Path, description = "As in C2SP tlog-tiles: <level>/<index>[.p/<width>], or entries/<index>[.p/<width>]"),
    ))]
async fn tile(
    State(gateway): State<Shared>,
    LogName(log): LogName,
    Path(path): Path<HashMap<String, String>>,
    reader: Reader,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<Response, Problem> {
    parameters.end()?;
    let path = path.get("path").map(String::as_str).unwrap_or_default();
    let path: TilePath = format!("tile/{path}")
        .parse()
        .map_err(|error: tlog::Error| Problem::bad_request(error.to_string()))?;
    let live = gateway.live();
    let is_public = live.is_public(&log);
    let rows = reader.may_see_rows(&gateway, &log);
    let content = match live.tiles.get(&log) {
        Some(directory) => {
            let content = exported::file(directory, &path.to_string()).await?;
            match path.level() {
                TileLevel::Entries if !rows => tiles::withheld(path.width()),
                _ => content,
            }
        }
        None => {
            let session = match path.level() {
                TileLevel::Entries => gateway.session_for_rows().await?,
                TileLevel::Hashes(_) => gateway.session().await?,
            };
            tiles::tile(&session, &log, &path, rows).await?
        }
    };
    let cache = match path.level() {
        TileLevel::Hashes(_) => HASHES,
        TileLevel::Entries if is_public => PUBLIC_ENTRIES,
        TileLevel::Entries => PRIVATE_ENTRIES,
    };
    let mut response = tagged(
        &headers,
        content,
        described("application/octet-stream", cache),
    );
    if cache == PRIVATE_ENTRIES {
        response
            .headers_mut()
            .insert(header::VARY, HeaderValue::from_static("Authorization"));
    }
    held(&gateway, response).await
}
