//! Proofs as JSON, and their checking without any ledger.

use crate::key::{hex, unhex};
use crate::output::{Failure, say};
use clap::Args;
use geometric_ledger::Reader;
use merkle_tree::{Hash, LeafIndex, TreeSize};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
#[group(skip)]
pub struct Wanted {
    /// Prove that this batch is in the log
    #[arg(required_unless_present = "from", conflicts_with = "from")]
    batch: Option<u64>,
    /// … among the first so many batches, instead of all
    #[arg(long, conflicts_with = "from")]
    size: Option<u64>,
    /// Prove that the log begins with what it was when it had so many batches
    #[arg(long)]
    from: Option<u64>,
    /// … and has grown to so many, instead of all there are
    #[arg(long, requires = "from")]
    to: Option<u64>,
}

#[derive(Args)]
#[group(skip)]
pub struct Check {
    /// What `proof` wrote
    file: PathBuf,
    /// The root that you hold, 64 hexadecimal digits: what the batch is in, or the log began with
    #[arg(long)]
    root: String,
}

pub fn prove(mut ledger: Reader, wanted: &Wanted) -> Result<(), Failure> {
    let found = ledger.describe()?;
    let id = hex(&found.info.id);
    let hashes = |path: &[Hash]| {
        path.iter()
            .map(|hash| hex(hash.as_bytes()))
            .collect::<Vec<_>>()
    };
    let proof = match (wanted.batch, wanted.from) {
        (Some(batch), _) => {
            let proof = ledger.prove_batch(batch, wanted.size)?;
            json!({
                "kind": "inclusion",
                "ledger": id,
                "leaf_index": proof.leaf_index.get(),
                "tree_size": proof.tree_size.get(),
                "leaf_data": hex(&proof.leaf_data),
                "path": hashes(&proof.path),
                "root": hex(proof.root.as_bytes()),
            })
        }
        (None, from) => {
            let (old, new) = (
                TreeSize::new(from.unwrap_or(0))?,
                TreeSize::new(wanted.to.unwrap_or(found.head.sequence))?,
            );
            let (path, old_root, new_root) = ledger.prove_consistency(old, new)?;
            json!({
                "kind": "consistency",
                "ledger": id,
                "old_size": old.get(),
                "old_root": hex(old_root.as_bytes()),
                "tree_size": new.get(),
                "path": hashes(&path),
                "root": hex(new_root.as_bytes()),
            })
        }
    };
    say!("{proof:#}")
}

impl Check {
    pub fn run(&self) -> Result<ExitCode, Failure> {
        let named = |error: &dyn std::fmt::Display| {
            Failure::new(format!("{}: {error}", self.file.display()))
        };
        let text = std::fs::read_to_string(&self.file).map_err(|error| named(&error))?;
        let proof: Value = serde_json::from_str(&text).map_err(|error| named(&error))?;
        let root =
            hash(&self.root).ok_or_else(|| Failure::new("a root is 64 hexadecimal digits"))?;
        match check(&proof, root).map_err(|what| named(&what))? {
            Ok(proved) => {
                say!("{proved}")?;
                Ok(ExitCode::SUCCESS)
            }
            Err(why) => {
                say!("the proof proves nothing for this root: {why}")?;
                Ok(ExitCode::FAILURE)
            }
        }
    }
}

/// What a proof proves to whoever holds a root, or why it does not. Fails if it is no proof.
fn check(proof: &Value, root: Hash) -> Result<Result<String, String>, String> {
    let missing =
        |name: &str| format!("the field {name:?} is missing, or is not what it should be");
    let number = |name: &str| proof[name].as_u64().ok_or_else(|| missing(name));
    let size = |name: &str| TreeSize::new(number(name)?).map_err(|error| error.to_string());
    let text = |name: &str| proof[name].as_str().ok_or_else(|| missing(name));
    let path = proof["path"].as_array().ok_or_else(|| missing("path"))?;
    let path: Option<Vec<Hash>> = path.iter().map(|it| it.as_str().and_then(hash)).collect();
    let path = path.ok_or_else(|| missing("path"))?;
    match text("kind")? {
        "inclusion" => {
            let data = unhex(text("leaf_data")?).ok_or_else(|| missing("leaf_data"))?;
            let index = LeafIndex::new(number("leaf_index")?).map_err(|error| error.to_string())?;
            let leaf = merkle_tree::leaf_hash(&data);
            let verified =
                merkle_tree::verify_inclusion(&leaf, index, size("tree_size")?, &path, &root);
            let batch = index.get() + 1;
            Ok(verified
                .map(|()| format!("batch {batch} is in the log whose root this is"))
                .map_err(|error| error.to_string()))
        }
        "consistency" => {
            let (old, new) = (size("old_size")?, size("tree_size")?);
            let new_root = hash(text("root")?).ok_or_else(|| missing("root"))?;
            let verified = merkle_tree::verify_consistency(old, new, &root, &new_root, &path);
            let proved = format!(
                "the log of {old} batches whose root this is has grown to {new}, with the root {}",
                hex(new_root.as_bytes())
            );
            Ok(verified.map(|()| proved).map_err(|error| error.to_string()))
        }
        other => Err(format!("there is no proof of kind {other:?}")),
    }
}

fn hash(text: &str) -> Option<Hash> {
    let bytes: [u8; 32] = unhex(text)?.try_into().ok()?;
    Some(bytes.into())
}
