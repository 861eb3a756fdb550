//! An entry: what the server says of it, and its proof for the reader's browser.

use super::layout::{Check, Part, page};
use super::{Html, in_path};
use crate::output::{printable, value};
use crate::serve::gateway::Shared;
use crate::serve::problems::{Kind, Problem};
use crate::serve::read::proofs::{self, Wanted};
use crate::serve::request::{LogName, Parameters, Reader};
use axum::extract::State;
use leaf_format::{Cbor, Columns, Leaf};
use maud::{Markup, html};

use tlog::{BundleEntry, BundleLeaf, ProofBundle};

/// `?entry=`: a leaf index or a leaf hash.
pub async fn entry(
    State(gateway): State<Shared>,
    log: Result<LogName, Problem>,
    reader: Result<Reader, Problem>,
    parameters: Result<Parameters, Problem>,
) -> Result<Html, Html> {
    let (LogName(log), reader, mut parameters) = (log?, reader?, parameters?);
    let asked = parameters.text("entry")?.unwrap_or_default();
    parameters.end()?;
    let asked = asked.trim();
    let session = gateway.session().await?;
    let index = match asked.len() {
        64 => {
            proofs::by_hash(&session, &log, hash(asked)?.as_bytes(), None)
                .await?
                .index
        }
        _ => crate::serve::request::number("the leaf index", asked)?,
    };
    drop(session);
    found(
        &gateway,
        &log,
        &Wanted::Indexes(vec![index]),
        reader.may_see_rows(&gateway, &log),
    )
    .await
}

/// `?table=&key=`, of a public log.
pub async fn row(
    State(gateway): State<Shared>,
    log: Result<LogName, Problem>,
    reader: Result<Reader, Problem>,
    parameters: Result<Parameters, Problem>,
) -> Result<Html, Html> {
    let (LogName(log), reader, wanted) = (log?, reader?, wanted_row(parameters?)?);
    reader.must_see_rows(&gateway, &log)?;
    found(&gateway, &log, &wanted, true).await
}

/// The same with a token, which a form cannot send in a header, and which must not be in an address.
pub async fn row_with_token(
    State(gateway): State<Shared>,
    log: Result<LogName, Problem>,
    body: String,
) -> Result<Html, Html> {
    let LogName(log) = log?;
    let mut parameters = Parameters::parse(&body)?;
    let token = parameters.text("token")?.unwrap_or_default();
    let wanted = wanted_row(parameters)?;
    let reader = Reader::with_token(&gateway, token.trim())?;
    reader.must_see_rows(&gateway, &log)?;
    found(&gateway, &log, &wanted, true).await
}

fn wanted_row(mut parameters: Parameters) -> Result<Wanted, Problem> {
    let table = parameters.text("table")?.unwrap_or_default();
    let keys = parameters.all("key");
    parameters.end()?;
    // A form's line ends are two characters.
    let key: Vec<String> = keys
        .iter()
        .flat_map(|key| key.lines())
        .map(str::to_owned)
        .collect();
    match table.is_empty() || key.is_empty() {
        true => Err(Problem::bad_request("a row has a table and a key")),
        false => Ok(Wanted::Row { table, key }),
    }
}

async fn found(
    gateway: &Shared,
    log: &str,
    wanted: &Wanted,
    shows_rows: bool,
) -> Result<Html, Html> {
    let session = gateway.session().await?;
    let bundle = proofs::bundle(&session, log, wanted, shows_rows).await?;
    drop(session);
    let key = super::logs::named(gateway, log).await?.verifier_key;
    let entry = bundle.entries.first();
    let entry = entry.ok_or_else(|| Problem::new(Kind::Internal, "the bundle has no entry"))?;
    let title = format!("Entry {} of {}", entry.index, printable(log));
    let check = Check {
        document: Some(&bundle.to_json()),
        proposed_key: key.as_deref(),
    };
    let content = html! {
        p class="quiet" { a href={ "/page/log/" (in_path(log)) } { (printable(log)) } }
        h1 { (title) }
        (said(&bundle, entry))
        h2 { "Check it" }
        (check.form())
    };
    Ok(Html::ok(page(&title, Some(Part::Logs), content)))
}

fn said(bundle: &ProofBundle, entry: &BundleEntry) -> Markup {
    let signed = bundle.checkpoint.text().lines().nth(1).unwrap_or_default();
    let leaf = match &entry.leaf {
        BundleLeaf::Data(data) => Leaf::decode(data).ok(),
        BundleLeaf::Hash(_) => None,
    };
    html! {
        h2 { "What the server says" }
        dl class="facts" {
            div { dt { "Leaf index" } dd { (entry.index) } }
            div { dt { "In the signed tree of" } dd { (signed) " entries" } }
            @if let Some(leaf) = &leaf {
                div { dt { "Table" } dd { (printable(&leaf.source)) } }
                div { dt { "Kind" } dd { (leaf.kind.as_str()) } }
            }
            div { dt { "Leaf hash" } dd { code class="hash" { (entry.leaf.hash().to_string()) } } }
        }
        @match leaf.as_ref().map(|leaf| &leaf.columns) {
            Some(Columns::Map(columns)) => table {
                thead { tr { th scope="col" { "Column" } th scope="col" { "Value as logged" } } }
                tbody { @for (name, column) in columns {
                    tr { th scope="row" { (printable(name)) } td { (shown(column)) } }
                } }
            },
            Some(Columns::Digest(_)) => p { "The row is long: a digest of its columns stands in the log." },
            None => p { "The row is not shown: only the hash of the leaf data is in the proof." },
        }
    }
}

/// A text as it is, so that it reads as in the report of the check.
fn shown(column: &Cbor) -> String {
    match column {
        Cbor::Text(text) => printable(text),
        column => value(column),
    }
}

fn hash(text: &str) -> Result<merkle_tree::Hash, Problem> {
    let query = format!("hash={text}");
    let hash = Parameters::parse(&query)?.hash("hash")?;
    hash.ok_or_else(|| Problem::bad_request("no leaf hash"))
}
