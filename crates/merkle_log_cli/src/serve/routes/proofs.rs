//! Inclusion and consistency proofs.

use super::Problems;
use crate::serve::answers::{Answer, Answered, Format};
use crate::serve::gateway::Shared;
use crate::serve::problems::Problem;
use crate::serve::read::proofs::{self, Consistency, Inclusion};
use crate::serve::request::{LogName, Parameters, Reader};
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(proof))
        .routes(routes!(consistency))
}

/// The proof that an entry is in the log
///
/// The entry is named by its index, its leaf hash, or the table and the key of its row, which needs a token unless the
/// log is public.
#[utoipa::path(get, path = "/logs/{log}/proof", responses((status = 200, body = Inclusion), Problems),
    params(
        ("log" = String, Path, description = "The log's name"),
        ("index" = Option<u64>, Query, description = "The leaf index; or"),
        ("hash" = Option<String>, Query, description = "the leaf hash, in hexadecimal; or"),
        ("table" = Option<String>, Query, description = "the table, such as public.orders, and"),
        ("key" = Option<Vec<String>>, Query, description = "the row's key, a parameter for each of its columns"),
        ("size" = Option<u64>, Query, description = "Entries of the tree, with index and hash; left out: all"),
    ))]
async fn proof(
    State(gateway): State<Shared>,
    LogName(log): LogName,
    reader: Reader,
    format: Format,
    mut parameters: Parameters,
) -> Answered<Inclusion> {
    let (index, hash) = (parameters.number("index")?, parameters.hash("hash")?);
    let (table, key) = (parameters.text("table")?, parameters.all("key"));
    let size = parameters.number("size")?;
    parameters.end()?;
    let session = async || gateway.session().await;
    let proof = match (index, hash, table) {
        (Some(index), None, None) if key.is_empty() => {
            proofs::by_index(&*session().await?, &log, index, size).await?
        }
        (None, Some(hash), None) if key.is_empty() => {
            proofs::by_hash(&*session().await?, &log, hash.as_bytes(), size).await?
        }
        (None, None, Some(table)) if !key.is_empty() && size.is_none() => {
            reader.must_see_rows(&gateway, &log)?;
            proofs::by_row(&*session().await?, &log, &table, &key).await?
        }
        _ => {
            return Err(
                Problem::bad_request("it is not clear which entry is meant").with_hint(
                    "Give index, or hash, or table and key; size goes with the first two.",
                ),
            );
        }
    };
    Ok(Answer(format, proof))
}

/// The proof that the log only grew
#[utoipa::path(get, path = "/logs/{log}/consistency", responses((status = 200, body = Consistency), Problems),
    params(
        ("log" = String, Path, description = "The log's name"),
        ("old_size" = Option<u64>, Query, description = "Entries of the older tree; or"),
        ("old_root" = Option<String>, Query, description = "its root, if it is that of a tree head, in hexadecimal"),
        ("new_size" = Option<u64>, Query, description = "Entries of the newer tree; left out: all"),
    ))]
async fn consistency(
    State(gateway): State<Shared>,
    LogName(log): LogName,
    format: Format,
    mut parameters: Parameters,
) -> Answered<Consistency> {
    let (size, root) = (parameters.number("old_size")?, parameters.hash("old_root")?);
    let new = parameters.number("new_size")?;
    parameters.end()?;
    let session = async || gateway.session().await;
    let proof = match (size, root) {
        (Some(size), None) => proofs::from_size(&*session().await?, &log, size, new).await?,
        (None, Some(root)) => {
            proofs::from_root(&*session().await?, &log, root.as_bytes(), new).await?
        }
        _ => return Err(Problem::bad_request("give either old_size or old_root")),
    };
    Ok(Answer(format, proof))
}
