//! Proof bundles: all that an outsider needs to check entries, but the key.

use super::{Problems, described};
use crate::serve::answers::preferred;
use crate::serve::gateway::Shared;
use crate::serve::problems::{Kind, Problem};
use crate::serve::read::proofs::{self, Wanted};
use crate::serve::request::{LogName, Parameters, Reader, number};
use crate::serve::room::held;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(bundle))
}

/// Entries of one bundle.
const MOST: usize = 256;

const OFFERED: [&str; 3] = ["application/json", "application/cbor", "text/plain"];

/// A proof bundle of entries, up to the newest checkpoint
///
/// As text/plain, a C2SP tlog-proof of one entry. Leaf data are withheld unless the log is public or the request has a
/// token; so is the way by table and key.
#[utoipa::path(get, path = "/logs/{log}/bundle",
    responses((status = 200, content((serde_json::Value = "application/json"), (Vec<u8> = "application/cbor"), (String = "text/plain"))), Problems),
    params(
        ("log" = String, Path, description = "The log's name"),
        ("index" = Option<Vec<u64>>, Query, description = "A leaf index, up to 256 times; or"),
        ("table" = Option<String>, Query, description = "the table, such as public.orders, and"),
        ("key" = Option<Vec<String>>, Query, description = "the row's key, a parameter for each of its columns"),
    ))]
async fn bundle(
    State(gateway): State<Shared>,
    LogName(log): LogName,
    reader: Reader,
    headers: HeaderMap,
    mut parameters: Parameters,
) -> Result<Response, Problem> {
    let form = preferred(&headers, &OFFERED)?;
    let indexes = parameters.all("index");
    let (table, key) = (parameters.text("table")?, parameters.all("key"));
    parameters.end()?;
    let wanted = match (table, indexes.len()) {
        (None, 1..=MOST) if key.is_empty() => {
            let indexes = indexes.iter().map(|text| number("index", text));
            Wanted::Indexes(indexes.collect::<Result<_, _>>()?)
        }
        (Some(table), 0) if !key.is_empty() => {
            reader.must_see_rows(&gateway, &log)?;
            Wanted::Row { table, key }
        }
        _ => {
            return Err(
                Problem::bad_request("it is not clear which entries are meant")
                    .with_hint("Give index once or up to 256 times, or table and key."),
            );
        }
    };
    let session = gateway.session_for_rows().await?;
    let rows = reader.may_see_rows(&gateway, &log);
    let bundle = proofs::bundle(&session, &log, &wanted, rows).await?;
    drop(session);
    let single = || match bundle.entries.as_slice() {
        [entry] => bundle.tlog_proof(entry),
        _ => None,
    };
    let content = match OFFERED[form] {
        "application/json" => bundle.to_json().into_bytes(),
        "application/cbor" => bundle.to_cbor(),
        _ => {
            let of_one = "a tlog-proof is of one entry";
            let proof = single().ok_or_else(|| Problem::new(Kind::NotAcceptable, of_one))?;
            proof.to_string().into_bytes()
        }
    };
    let vary = [(
        header::VARY,
        HeaderValue::from_static("Accept, Authorization"),
    )];
    let response = (described(OFFERED[form], "no-cache"), vary, content).into_response();
    held(&gateway, response).await
}
