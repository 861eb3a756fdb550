//! `verify`: what files prove to someone who trusts certain keys.

mod directory;
mod document;
mod report;

use crate::output::Failure;
use merkle_tree::Hash;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tlog::{Checkpoint, Error, Policy, SignedNote, VerifierKey};

pub use report::Report;

#[derive(clap::Args)]
pub struct Options {
    /// Proof bundles, tlog-proofs, consistency proofs, checkpoints, exported directories; - is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The verifier key of a log that you trust, or a file that holds it; may be given several times
    #[arg(long, required_unless_present = "policy", conflicts_with = "policy")]
    key: Vec<String>,
    /// A policy file (C2SP tlog-policy): logs, witnesses, quorum
    #[arg(long)]
    policy: Option<PathBuf>,
    /// A checkpoint that you have kept: a file must agree with it
    #[arg(long)]
    since: Option<PathBuf>,
    /// The leaf hash that the entry must have (hexadecimal); a tlog-proof without leaf data needs it
    #[arg(long, value_parser = leaf_hash)]
    leaf_hash: Option<merkle_tree::Hash>,
}

/// Why a file is not good.
#[derive(Debug)]
pub enum Finding {
    /// It claims what is not so.
    Bad(String),
    /// It cannot be read, or nobody known vouches for it.
    Unknown(String),
}

/// Whom and what the files are checked against.
pub struct Trust {
    pub policy: Policy,
    pub since: Option<Checkpoint>,
    pub leaf_hash: Option<merkle_tree::Hash>,
}

impl From<Error> for Finding {
    fn from(error: Error) -> Finding {
        match error.is_proof_of_falsehood() {
            true => Finding::Bad(error.to_string()),
            false => Finding::Unknown(error.to_string()),
        }
    }
}

impl Finding {
    pub fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> Finding {
        move |error| Finding::Unknown(format!("{}: {error}", path.display()))
    }
}

pub fn run(options: &Options, json: bool) -> Result<ExitCode, Failure> {
    let trust = Trust {
        policy: policy(options)?,
        since: None,
        leaf_hash: options.leaf_hash,
    };
    let trust = Trust {
        since: since(options, &trust.policy)?,
        ..trust
    };
    let (mut bad, mut unknown) = (false, false);
    let mut seen = Seen::default();
    for file in &options.files {
        let found = match file.is_dir() {
            true => directory::verify(file, &trust),
            false => document::verify(file, &trust),
        };
        let found = found.and_then(|report| seen.agree(file, &report).map(|()| report));
        bad |= matches!(found, Err(Finding::Bad(_)));
        unknown |= matches!(found, Err(Finding::Unknown(_)));
        report::print(file, &found, json)?;
    }
    Ok(match (bad, unknown) {
        (true, _) => ExitCode::from(1),
        (false, true) => ExitCode::from(2),
        (false, false) => ExitCode::SUCCESS,
    })
}

/// The tree heads that the files have shown, with the first file that did: two files may prove that a log forked, although
/// each is good by itself.
#[derive(Default)]
struct Seen(HashMap<(String, u64), (Hash, PathBuf)>);

impl Seen {
    fn agree(&mut self, file: &Path, report: &Report) -> Result<(), Finding> {
        for checkpoint in report.checkpoints() {
            let (origin, size) = (checkpoint.origin().to_owned(), checkpoint.size().get());
            let shown = (*checkpoint.root(), file.to_owned());
            let (root, first) = self.0.entry((origin.clone(), size)).or_insert(shown);
            if root != checkpoint.root() {
                let fork = Error::Fork { origin, size };
                let first = first.display();
                return Err(Finding::Bad(format!("{fork}: {first} shows the other one")));
            }
        }
        Ok(())
    }
}

fn policy(options: &Options) -> Result<Policy, Failure> {
    if let Some(path) = &options.policy {
        let file = std::fs::read(path).map_err(Failure::of(path))?;
        return Ok(Policy::from_bytes(&file)?);
    }
    let keys = options.key.iter().map(|key| verifier_key(key));
    Ok(Policy::of_logs(keys.collect::<Result<Vec<_>, _>>()?))
}

/// A key as such, or a file that holds one. A key has a plus in two places; a file's name seldom has.
pub fn verifier_key(key: &str) -> Result<VerifierKey, Failure> {
    match key.parse::<VerifierKey>() {
        Ok(key) => Ok(key),
        Err(error) => match std::fs::read_to_string(key) {
            Ok(text) => Ok(text.trim_end_matches('\n').parse()?),
            Err(_) => Err(Failure::Said(format!(
                "{key}: {error}, and no file of that name can be read"
            ))),
        },
    }
}

fn since(options: &Options, policy: &Policy) -> Result<Option<Checkpoint>, Failure> {
    let Some(path) = &options.since else {
        return Ok(None);
    };
    let note = SignedNote::from_bytes(&document::read(path).map_err(Failure::of(path))?)?;
    Ok(Some(policy.verify_log(&note)?.checkpoint))
}

fn leaf_hash(text: &str) -> Result<merkle_tree::Hash, String> {
    let hash = unhex(text.as_bytes()).and_then(|bytes| bytes.as_slice().try_into().ok());
    hash.ok_or_else(|| "a leaf hash has 64 hexadecimal digits".to_owned())
}

fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    pairs
        .iter()
        .map(|[high, low]| Some((digit(high)? << 4 | digit(low)?) as u8))
        .collect()
}
