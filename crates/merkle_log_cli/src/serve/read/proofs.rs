//! Inclusion and consistency proofs, and proof bundles.

use crate::serve::answers::Bytes;
use crate::serve::pool::Session;
use crate::serve::problems::{Kind, Problem};
use serde::Serialize;
use tlog::{BundleLeaf, ProofBundle};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use utoipa::ToSchema;

/// The proof that an entry is in the tree of a size (RFC 9162 §2.1.3).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Inclusion {
    pub index: i64,
    pub size: i64,
    pub leaf_hash: Bytes,
    pub root: Bytes,
    /// The leaf's sibling first
    pub path: Vec<Bytes>,
}

fn inclusion(row: Option<Row>) -> Result<Inclusion, Problem> {
    let row = row.ok_or_else(no_proof)?;
    Ok(Inclusion {
        index: row.try_get(0)?,
        size: row.try_get(1)?,
        leaf_hash: Bytes(row.try_get(2)?),
        root: Bytes(row.try_get(3)?),
        path: path(&row)?,
    })
}

fn path(row: &Row) -> Result<Vec<Bytes>, Problem> {
    let path: Vec<Vec<u8>> = row.try_get(4)?;
    Ok(path.into_iter().map(Bytes).collect())
}

fn no_proof() -> Problem {
    Problem::new(Kind::Internal, "the database gave no proof")
}

pub async fn by_index(
    session: &Session,
    log: &str,
    index: i64,
    size: Option<i64>,
) -> Result<Inclusion, Problem> {
    let sql = "SELECT leaf_index, tree_size, leaf_hash, root_hash, path
                 FROM @extschema@.inclusion_proof($1, $2::pg_catalog.int8, $3::pg_catalog.int8)";
    inclusion(session.row(sql, &[&log, &index, &size]).await?)
}

pub async fn by_hash(
    session: &Session,
    log: &str,
    hash: &[u8],
    size: Option<i64>,
) -> Result<Inclusion, Problem> {
    let sql = "SELECT leaf_index, tree_size, leaf_hash, root_hash, path
                 FROM @extschema@.inclusion_proof_by_hash($1, $2, $3)";
    inclusion(session.row(sql, &[&log, &hash, &size]).await?)
}

/// Of the row's latest entry, in the latest tree.
pub async fn by_row(
    session: &Session,
    log: &str,
    table: &str,
    key: &[String],
) -> Result<Inclusion, Problem> {
    let sql = "SELECT leaf_index, tree_size, leaf_hash, root_hash, path
                 FROM @extschema@.inclusion_proof_of($1, $2::pg_catalog.text::pg_catalog.regclass, VARIADIC $3::pg_catalog.text[])";
    let row = session.row(sql, &[&log, &table, &key]).await;
    inclusion(row.map_err(|problem| of_source(problem, log, table))?)
}

/// Whether a table is there that is no source of the log is nobody's business.
fn of_source(problem: Problem, log: &str, table: &str) -> Problem {
    const NAMES: [SqlState; 3] = [
        SqlState::UNDEFINED_TABLE,
        SqlState::INVALID_SCHEMA_NAME,
        SqlState::UNDEFINED_OBJECT,
    ];
    match &problem.sqlstate {
        Some(state) if NAMES.contains(state) => {
            let detail =
                format!("log \"{log}\" does not exist, or \"{table}\" is not one of its sources");
            Problem::new(Kind::NotFound, detail)
        }
        _ => problem,
    }
}

/// The proof that the tree of one size begins with that of another (RFC 9162 §2.1.4).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Consistency {
    pub old_size: i64,
    pub new_size: i64,
    pub old_root: Bytes,
    pub new_root: Bytes,
    pub path: Vec<Bytes>,
}

fn consistency(row: Option<Row>) -> Result<Consistency, Problem> {
    let row = row.ok_or_else(no_proof)?;
    Ok(Consistency {
        old_size: row.try_get(0)?,
        new_size: row.try_get(1)?,
        old_root: Bytes(row.try_get(2)?),
        new_root: Bytes(row.try_get(3)?),
        path: path(&row)?,
    })
}

pub async fn from_size(
    session: &Session,
    log: &str,
    old: i64,
    new: Option<i64>,
) -> Result<Consistency, Problem> {
    let sql = "SELECT old_size, new_size, old_root, new_root, path FROM @extschema@.consistency_proof($1, $2, $3)";
    consistency(session.row(sql, &[&log, &old, &new]).await?)
}

pub async fn from_root(
    session: &Session,
    log: &str,
    old: &[u8],
    new: Option<i64>,
) -> Result<Consistency, Problem> {
    let sql = "SELECT old_size, new_size, old_root, new_root, path
                 FROM @extschema@.consistency_proof_by_root($1, $2, $3)";
    consistency(session.row(sql, &[&log, &old, &new]).await?)
}

/// Which entries a bundle is to prove.
pub enum Wanted {
    Indexes(Vec<i64>),
    Row { table: String, key: Vec<String> },
}

/// A proof bundle (docs/proof-format.md), with rows only if they may be shown.
pub async fn bundle(
    session: &Session,
    log: &str,
    wanted: &Wanted,
    rows: bool,
) -> Result<ProofBundle, Problem> {
    let row = match wanted {
        Wanted::Indexes(indexes) => {
            let sql =
                "SELECT cbor FROM @extschema@.proof_bundle($1, VARIADIC $2::pg_catalog.int8[])";
            session.row(sql, &[&log, indexes]).await?
        }
        Wanted::Row { table, key } => {
            let sql = "SELECT cbor FROM @extschema@.proof_bundle_of($1, $2::pg_catalog.text::pg_catalog.regclass,
                                                                     VARIADIC $3::pg_catalog.text[])";
            let row = session.row(sql, &[&log, table, key]).await;
            row.map_err(|problem| of_source(problem, log, table))?
        }
    };
    let cbor: Vec<u8> = row.ok_or_else(no_proof)?.try_get(0)?;
    let bundle = ProofBundle::from_cbor(&cbor).map_err(|error| {
        tracing::error!(log, %error, "the database's proof bundle is malformed");
        Problem::new(Kind::Internal, "the database's proof bundle is malformed")
    })?;
    match rows {
        true => Ok(bundle),
        false => Ok(without_rows(bundle)),
    }
}

/// The hashes of a bundle, which prove the same entries and show nothing of them.
fn without_rows(mut bundle: ProofBundle) -> ProofBundle {
    for entry in &mut bundle.entries {
        entry.leaf = BundleLeaf::Hash(entry.leaf.hash());
        entry.label = None;
    }
    bundle
}

#[cfg(test)]
mod tests {
    use super::*;
    use merkle_tree::LeafIndex;
    use tlog::{BundleEntry, Label, SignedNote};

    #[test]
    fn a_bundle_without_rows_has_the_same_leaf_hashes_and_no_names() {
        let bundle = ProofBundle {
            checkpoint: SignedNote::new("example.com/log\n1\nx\n").unwrap(),
            entries: vec![BundleEntry {
                index: LeafIndex::new(0).unwrap(),
                leaf: BundleLeaf::Data(b"the secret".to_vec()),
                path: Vec::new(),
                label: Some(Label {
                    source: "public.secrets".to_owned(),
                    key: vec![("id".to_owned(), "7".to_owned())],
                }),
            }],
            multiproof: None,
            hub: None,
        };
        let shown = without_rows(bundle.clone());
        assert_eq!(shown.entries[0].leaf.hash(), bundle.entries[0].leaf.hash());
        assert!(!shown.to_json().contains("secret") && shown.entries[0].label.is_none());
        assert!(matches!(shown.entries[0].leaf, BundleLeaf::Hash(_)));
    }
}
