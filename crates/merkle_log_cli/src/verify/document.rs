//! Documents: each is known by its beginning.

use super::{Finding, Report, Trust, unhex};
use merkle_tree::{LeafIndex, leaf_hash};
use std::io::Read;
use std::path::Path;
use tlog::{
    AbsenceProof, Checkpoint, ConsistencyBundle, Content, Error, ForkProof, ProofBundle, Proven,
    ProvenEntry, ProvenGrowth, SignedNote, TlogProof, VerifiedCheckpoint,
};

pub fn verify(path: &Path, trust: &Trust) -> Result<Report, Finding> {
    let bytes = read(path).map_err(Finding::unreadable(path))?;
    let report = match kind(&bytes) {
        Kind::Bundle => Report::Bundle(bundle(&bytes, trust)?),
        Kind::Absence => {
            let proven = AbsenceProof::from_bytes(&bytes)?.verify(&trust.policy)?;
            Report::Absence(Box::new(proven))
        }
        Kind::Consistency => Report::Consistency(Box::new(consistency(&bytes, trust)?)),
        Kind::Fork => return Err(fork(&bytes, trust)),
        Kind::TlogProof => Report::Bundle(tlog_proof(&bytes, trust)?),
        Kind::Checkpoint => {
            Report::Checkpoint(trust.policy.verify(&SignedNote::from_bytes(&bytes)?)?)
        }
    };
    if trust.leaf_hash.is_some() && !matches!(report, Report::Bundle(_)) {
        let what = "it is no proof of an entry, so it has no leaf hash to compare";
        return Err(Finding::Unknown(what.to_owned()));
    }
    if let Some(since) = &trust.since {
        let shown = report.oldest_checkpoint();
        if !matches!(report, Report::Consistency(_)) {
            agrees(&shown.checkpoint, since)?;
        }
    }
    Ok(report)
}

/// A document, or what psql prints of one: it writes `bytea` in hexadecimal, and adds a newline to texts.
pub fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match path == Path::new("-") {
        true => drop(std::io::stdin().read_to_end(&mut bytes)?),
        false => bytes = std::fs::read(path)?,
    }
    if let Some(decoded) = bytes
        .strip_prefix(b"\\x")
        .and_then(|hex| unhex(hex.trim_ascii_end()))
    {
        return Ok(decoded);
    }
    // No document ends in an empty line.
    if bytes.ends_with(b"\n\n") {
        bytes.pop();
    }
    Ok(bytes)
}

enum Kind {
    Bundle,
    Absence,
    Consistency,
    Fork,
    TlogProof,
    Checkpoint,
}

fn kind(bytes: &[u8]) -> Kind {
    let has = |text: &str| {
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    };
    if bytes.starts_with(b"c2sp.org/tlog-proof") {
        Kind::TlogProof
    } else if bytes.trim_ascii_start().starts_with(b"{") || matches!(bytes, [0xa0..=0xbf, ..]) {
        // A brace, or a map of CBOR. In both, the format is a text as it is.
        match has("merkle_log/proof-bundle@") {
            false if has("merkle_log/absence-proof@") => Kind::Absence,
            false if has("merkle_log/consistency@") => Kind::Consistency,
            false if has("merkle_log/fork@") => Kind::Fork,
            _ => Kind::Bundle,
        }
    } else {
        Kind::Checkpoint
    }
}

fn bundle(bytes: &[u8], trust: &Trust) -> Result<Proven, Finding> {
    let proven = ProofBundle::from_bytes(bytes)?.verify(&trust.policy)?;
    match &trust.leaf_hash {
        Some(wanted)
            if proven
                .entries
                .iter()
                .all(|entry| entry.leaf_hash != *wanted) =>
        {
            let what = "none of its entries has the leaf hash that was given";
            Err(Finding::Bad(what.to_owned()))
        }
        _ => Ok(proven),
    }
}

fn consistency(bytes: &[u8], trust: &Trust) -> Result<ProvenGrowth, Finding> {
    let bundle = match bytes.trim_ascii_start().first() {
        Some(b'{') => ConsistencyBundle::from_json(bytes)?,
        _ => ConsistencyBundle::from_cbor(bytes)?,
    };
    // A fork convicts the log also where nobody has cosigned the other half.
    if let Some(fork) = bundle.fork(&trust.policy) {
        return Err(fork.into());
    }
    let proven = bundle.verify(&trust.policy)?;
    if let Some(since) = &trust.since {
        let ends = [&proven.old, &proven.new];
        let same_size = ends
            .iter()
            .find(|end| end.checkpoint.size() == since.size());
        match same_size {
            Some(end) => agrees(&end.checkpoint, since)?,
            None => {
                let what = "neither of its checkpoints has the size of the one that you have kept";
                return Err(Finding::Unknown(what.to_owned()));
            }
        }
    }
    Ok(proven)
}

/// A proof against a log: good evidence is what is bad, and evidence that proves nothing says nothing of the log.
fn fork(bytes: &[u8], trust: &Trust) -> Finding {
    let proof = match bytes.trim_ascii_start().first() {
        Some(b'{') => ForkProof::from_json(bytes),
        _ => ForkProof::from_cbor(bytes),
    };
    match proof.and_then(|proof| Ok((proof.verify(&trust.policy)?, proof))) {
        Err(why) => Finding::Unknown(format!("it is no evidence against a log: {why}")),
        Ok((proven, proof)) => {
            let (old, new) = (&proven.old.checkpoint, &proven.new.checkpoint);
            Finding::Bad(format!(
                "the log {:?} has signed two histories: {} entries with root {}, and {} entries of which the first {} have root {}",
                old.origin(),
                old.size(),
                old.root(),
                new.size(),
                old.size(),
                proof.prefix_root
            ))
        }
    }
}

/// A proof of one entry, as the bundle of that entry.
fn tlog_proof(bytes: &[u8], trust: &Trust) -> Result<Proven, Finding> {
    let text = std::str::from_utf8(bytes);
    let proof: TlogProof = text
        .map_err(|_| Error::TlogProof("it is not UTF-8"))?
        .parse()?;
    let (leaf_hash, content) = match (&trust.leaf_hash, &proof.extra) {
        (Some(hash), _) => (*hash, Content::Withheld),
        (None, Some(data)) => (leaf_hash(data), content(data)),
        (None, None) => {
            let what = "it does not contain the entry: give its leaf hash with --leaf-hash";
            return Err(Finding::Unknown(what.to_owned()));
        }
    };
    let checkpoint = match proof.verify(&leaf_hash, &trust.policy) {
        // Extra data are whatever the writer of the proof wanted.
        Err(Error::Inclusion { .. }) if trust.leaf_hash.is_none() => {
            let what = "its extra data are not the entry: give its leaf hash with --leaf-hash";
            return Err(Finding::Unknown(what.to_owned()));
        }
        verified => verified?,
    };
    let entry = |index: LeafIndex| ProvenEntry {
        index,
        leaf_hash,
        content,
        label: None,
    };
    Ok(Proven {
        entries: vec![entry(proof.index)],
        checkpoint,
        hub: None,
    })
}

fn content(data: &[u8]) -> Content {
    match leaf_format::Leaf::decode(data) {
        Ok(leaf) => Content::Row(Box::new(leaf)),
        Err(_) => Content::Other(data.to_vec()),
    }
}

/// That one checkpoint is the other, as far as that can be told from two checkpoints.
fn agrees(shown: &Checkpoint, kept: &Checkpoint) -> Result<(), Finding> {
    if shown.origin() != kept.origin() {
        return Err(Finding::Unknown(
            "the checkpoint that you have kept is another log's".to_owned(),
        ));
    }
    if shown.size() != kept.size() {
        let what = format!(
            "whether it agrees with the checkpoint of size {} that you have kept takes a consistency proof",
            kept.size()
        );
        return Err(Finding::Unknown(what));
    }
    match shown.root() == kept.root() {
        true => Ok(()),
        false => Err(Finding::from(Error::Fork {
            origin: kept.origin().to_owned(),
            size: kept.size().get(),
        })),
    }
}

impl Report {
    /// Every checkpoint that was verified.
    pub fn checkpoints(&self) -> Vec<&Checkpoint> {
        match self {
            Report::Bundle(proven) => {
                let levels = std::iter::successors(Some(proven), |p| p.hub.as_deref());
                levels.map(|level| &level.checkpoint.checkpoint).collect()
            }
            Report::Absence(proven) => vec![&proven.checkpoint.checkpoint],
            Report::Consistency(growth) => vec![&growth.old.checkpoint, &growth.new.checkpoint],
            Report::Checkpoint(checkpoint) => vec![&checkpoint.checkpoint],
            Report::Directory(directory) => vec![&directory.checkpoint.checkpoint],
        }
    }

    fn oldest_checkpoint(&self) -> &VerifiedCheckpoint {
        match self {
            Report::Bundle(proven) => &proven.checkpoint,
            Report::Absence(proven) => &proven.checkpoint,
            Report::Consistency(growth) => &growth.old,
            Report::Checkpoint(checkpoint) => checkpoint,
            Report::Directory(directory) => &directory.checkpoint,
        }
    }
}
