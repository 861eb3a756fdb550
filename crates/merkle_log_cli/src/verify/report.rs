//! What was found, for a person or as JSON.

use super::Finding;
use super::directory::Directory;
use crate::output::{Failure, hex, printable, say, time, value};
use leaf_format::{Columns, Leaf};
use serde_json::{Value as Json, json};
use std::fmt::Write as _;
use std::path::Path;
use tlog::{Content, Label, Proven, ProvenEntry, ProvenGrowth, ProvenKey, VerifiedCheckpoint};

/// What a file proved.
#[derive(Debug)]
pub enum Report {
    Bundle(Proven),
    Absence(Box<ProvenKey>),
    Consistency(Box<ProvenGrowth>),
    Checkpoint(VerifiedCheckpoint),
    Directory(Directory),
}

pub fn print(file: &Path, found: &Result<Report, Finding>, json: bool) -> Result<(), Failure> {
    let name = printable(&file.to_string_lossy());
    if json {
        let mut object = match found {
            Ok(report) => report.json(),
            Err(Finding::Bad(why)) => json!({"verdict": "bad", "why": why}),
            Err(Finding::Unknown(why)) => json!({"verdict": "unknown", "why": why}),
        };
        object["file"] = file.to_string_lossy().into();
        return say!("{object}");
    }
    match found {
        Ok(report) => say!("{name}: proven\n{}", report.text()),
        Err(Finding::Bad(why)) => say!("{name}: BAD: {}", printable(why)),
        Err(Finding::Unknown(why)) => say!("{name}: could not tell: {}", printable(why)),
    }
}

impl Report {
    fn text(&self) -> String {
        let mut text = String::new();
        match self {
            Report::Bundle(proven) => bundle_text(proven, &mut text),
            Report::Absence(proven) => absence_text(proven, &mut text),
            Report::Consistency(growth) => {
                checkpoint_text(&growth.new, &mut text);
                line(&mut text, "grew from", &tree_head(&growth.old));
            }
            Report::Checkpoint(checkpoint) => checkpoint_text(checkpoint, &mut text),
            Report::Directory(directory) => directory_text(directory, &mut text),
        }
        for what in self.not_proven() {
            line(&mut text, "NOT proven", what);
        }
        text.truncate(text.trim_end().len());
        text
    }

    fn json(&self) -> Json {
        let (kind, proven) = match self {
            Report::Bundle(proven) => ("bundle", bundle_json(proven)),
            Report::Absence(proven) => ("absence", absence_json(proven)),
            Report::Consistency(growth) => (
                "consistency",
                json!({"checkpoint": checkpoint_json(&growth.new), "since": checkpoint_json(&growth.old)}),
            ),
            Report::Checkpoint(checkpoint) => (
                "checkpoint",
                json!({"checkpoint": checkpoint_json(checkpoint)}),
            ),
            Report::Directory(directory) => ("directory", directory_json(directory)),
        };
        json!({"verdict": "good", "kind": kind, "proven": proven, "not_proven": self.not_proven()})
    }

    /// What a reader may take for proven, and is not.
    fn not_proven(&self) -> Vec<&'static str> {
        let (checkpoint, what) = match self {
            Report::Bundle(proven) => (
                proven.outermost(),
                "that the rows are still so in the database, or that no later entry is about them",
            ),
            Report::Absence(proven) => (
                &proven.checkpoint,
                "that the log has sealed the right keys: who has all entries, or one more of this key, can tell",
            ),
            Report::Consistency(growth) => (&growth.new, "what the entries are"),
            Report::Checkpoint(checkpoint) => (
                checkpoint,
                "what the entries are, or that this continues an earlier checkpoint",
            ),
            Report::Directory(directory) => (
                &directory.checkpoint,
                "that the rows in the database are what was logged",
            ),
        };
        let one_history =
            "that the log shows everyone this history: no known witness has cosigned it";
        let mut not_proven = vec![what];
        not_proven.extend(checkpoint.cosigned.is_empty().then_some(one_history));
        not_proven
    }
}

trait Outermost {
    fn outermost(&self) -> &VerifiedCheckpoint;
}

impl Outermost for Proven {
    fn outermost(&self) -> &VerifiedCheckpoint {
        match &self.hub {
            Some(hub) => hub.outermost(),
            None => &self.checkpoint,
        }
    }
}

fn line(text: &mut String, what: &str, content: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "  {what:<11} {content}");
}

fn tree_head(verified: &VerifiedCheckpoint) -> String {
    let checkpoint = &verified.checkpoint;
    format!("{} entries, root {}", checkpoint.size(), checkpoint.root())
}

fn checkpoint_text(verified: &VerifiedCheckpoint, text: &mut String) {
    let head = tree_head(verified);
    line(
        text,
        "log",
        &format!("{}, {head}", printable(verified.checkpoint.origin())),
    );
    line(
        text,
        "signed by",
        &printable(&format!("{:?}", verified.log)),
    );
    for cosigned in &verified.cosigned {
        let witness = printable(&cosigned.witness);
        line(
            text,
            "cosigned by",
            &format!("{witness} at {}", time(cosigned.time)),
        );
    }
}

fn bundle_text(proven: &Proven, text: &mut String) {
    checkpoint_text(&proven.checkpoint, text);
    for entry in &proven.entries {
        line(
            text,
            "entry",
            &format!("{}: {}", entry.index, entry_text(entry)),
        );
    }
    if let Some(hub) = &proven.hub {
        line(text, "in a hub", "the checkpoint is an entry of this log:");
        bundle_text(hub, text);
    }
}

fn absence_text(proven: &ProvenKey, text: &mut String) {
    checkpoint_text(&proven.checkpoint, text);
    let (from, to) = (proven.range.start, proven.range.end);
    let key = format!("{} ({})", proven.source, proven.key.join(", "));
    let count = match proven.entries.len() {
        0 => "no entry".to_owned(),
        1 => "one entry and no other".to_owned(),
        n => format!("{n} entries and no others"),
    };
    let what = format!("{} has {count} from {from} up to {to}", printable(&key));
    line(text, "key", &what);
    for entry in &proven.entries {
        let what = format!("{}: {}", entry.index, entry_text(entry));
        line(text, "entry", &what);
    }
}

fn entry_text(entry: &ProvenEntry) -> String {
    match &entry.content {
        Content::Withheld => {
            let claim = entry.label.as_ref().map_or(String::new(), |label| {
                format!(
                    "; it is said to be {}, which is NOT proven",
                    label_text(label)
                )
            });
            format!(
                "an entry with leaf hash {}, which is withheld{claim}",
                entry.leaf_hash
            )
        }
        Content::Row(leaf) => row_text(leaf),
        Content::Other(data) => match std::str::from_utf8(data) {
            Ok(text) => format!("{} bytes: {:?}", data.len(), printable(text)),
            Err(_) => format!("{} bytes: {}", data.len(), hex(data)),
        },
    }
}

fn label_text(label: &Label) -> String {
    let key = label
        .key
        .iter()
        .map(|(name, value)| format!("{name} = {value}"));
    printable(&format!(
        "{} ({})",
        label.source,
        key.collect::<Vec<_>>().join(", ")
    ))
}

fn row_text(leaf: &Leaf) -> String {
    let columns = match &leaf.columns {
        Columns::Digest(digest) => format!("columns with SHA-256 {}", hex(digest)),
        Columns::Map(columns) => {
            let columns = columns
                .iter()
                .map(|(name, value)| format!("{} = {}", printable(name), self::value(value)));
            columns.collect::<Vec<_>>().join(", ")
        }
    };
    format!(
        "{} {}: {columns}",
        leaf.kind.as_str(),
        printable(&leaf.source)
    )
}

fn directory_text(directory: &Directory, text: &mut String) {
    checkpoint_text(&directory.checkpoint, text);
    let size = directory.checkpoint.checkpoint.size().get();
    let entries = size - directory.first_entry - directory.withheld;
    let tiles = directory.tiles;
    line(
        text,
        "hashed",
        &format!("{entries} entries and {tiles} tiles again"),
    );
    let (pruned, first) = (directory.pruned_to, directory.first_entry);
    if pruned > 0 {
        let what =
            format!("of the first {pruned} entries only the hashes of whole tiles are there");
        line(text, "pruned", &what);
    }
    if first > pruned {
        let count = first - pruned;
        let what =
            format!("{count} entries from {pruned} on: there are their hashes, and no bundles");
        line(text, "no entries", &what);
    }
    if directory.withheld > 0 {
        let withheld = directory.withheld;
        line(
            text,
            "withheld",
            &format!("{withheld} entries are there as hashes only"),
        );
    }
    if let Some(since) = &directory.since {
        line(
            text,
            "grew from",
            &format!("{} entries, root {}", since.size(), since.root()),
        );
    }
}

fn checkpoint_json(verified: &VerifiedCheckpoint) -> Json {
    let checkpoint = &verified.checkpoint;
    let cosigned = verified.cosigned.iter();
    json!({
        "origin": checkpoint.origin(),
        "size": checkpoint.size().get(),
        "root": checkpoint.root().to_string(),
        "key": verified.log.to_string(),
        "cosigned": cosigned.map(|by| json!({"witness": by.witness, "time": by.time})).collect::<Vec<_>>(),
    })
}

fn bundle_json(proven: &Proven) -> Json {
    let entries: Vec<_> = proven.entries.iter().map(entry_json).collect();
    let mut object = json!({"checkpoint": checkpoint_json(&proven.checkpoint), "entries": entries});
    if let Some(hub) = &proven.hub {
        object["hub"] = bundle_json(hub);
    }
    object
}

fn absence_json(proven: &ProvenKey) -> Json {
    json!({
        "checkpoint": checkpoint_json(&proven.checkpoint),
        "source": proven.source,
        "key": proven.key,
        "from": proven.range.start,
        "to": proven.range.end,
        "entries": proven.entries.iter().map(entry_json).collect::<Vec<_>>(),
    })
}

fn entry_json(entry: &ProvenEntry) -> Json {
    let mut object = json!({"index": entry.index.get(), "leaf_hash": entry.leaf_hash.to_string()});
    match &entry.content {
        Content::Withheld => {}
        Content::Other(data) => object["leaf_data"] = hex(data).into(),
        Content::Row(leaf) => {
            object["kind"] = leaf.kind.as_str().into();
            object["source"] = leaf.source.as_str().into();
            match &leaf.columns {
                Columns::Digest(digest) => object["columns_sha256"] = hex(digest).into(),
                Columns::Map(columns) => {
                    let columns = columns
                        .iter()
                        .map(|(name, value)| (name.clone(), self::value(value).into()));
                    object["columns"] = Json::Object(columns.collect());
                }
            }
        }
    }
    if let Some(label) = &entry.label {
        object["claimed"] = json!({"source": label.source, "key": label.key});
    }
    object
}

fn directory_json(directory: &Directory) -> Json {
    json!({
        "checkpoint": checkpoint_json(&directory.checkpoint),
        "first_entry": directory.first_entry,
        "pruned_to": directory.pruned_to,
        "withheld": directory.withheld,
        "tiles": directory.tiles,
        "since": directory.since.as_ref().map(|since| json!({"size": since.size().get(), "root": since.root().to_string()})),
    })
}
