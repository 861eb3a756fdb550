//! Interoperability: logs, notes and proofs that this project makes are accepted by implementations that
//! nobody here wrote, and theirs by ours.
//!
//! What is exchanged is a directory: `log/` (C2SP tlog-tiles, with a checkpoint that the log and a witness have
//! signed), `vkey`, `witness`, and `proofs.json`, with 1,000 proofs of each kind between random sizes.

mod crates;
#[path = "../../../tlog/tests/support/mod.rs"]
mod support;
mod witness;

use merkle_tree::*;
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::log::{Log, export};
use support::{key, witness};
use tlog::{Policy, SignedNote};

const PROOFS: u64 = 1_000;

/// Marsaglia's xorshift: the same trees each time.
pub struct Random(u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A log whose entries have random lengths, none of them of leaf format 1.
pub fn random_log(size: u64) -> Log {
    let mut random = Random(size + 1);
    let entry = |_| {
        (0..random.below(60))
            .map(|_| random.below(256) as u8)
            .collect()
    };
    Log {
        origin: "example.com/log".to_owned(),
        entries: (0..size).map(entry).collect(),
    }
}

fn hashes(path: &[Hash]) -> Vec<String> {
    path.iter().map(Hash::to_string).collect()
}

fn unhash(json: &Json) -> Hash {
    let text = json.as_str().unwrap();
    let digit = |i| u8::from_str_radix(&text[i..i + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..text.len()).step_by(2).map(digit).collect();
    bytes.as_slice().try_into().unwrap()
}

fn path(json: &Json) -> Vec<Hash> {
    json.as_array().unwrap().iter().map(unhash).collect()
}

fn size(json: &Json) -> TreeSize {
    TreeSize::new(json.as_u64().unwrap()).unwrap()
}

/// What we make, for others to check.
fn make(directory: &Path, size: u64) {
    let log = random_log(size);
    let (key, witness) = (key("example.com/log", 1), witness("witness.example.com", 2));
    export(&log, &log.signed(&[&key, &witness]), &directory.join("log"));
    std::fs::write(
        directory.join("vkey"),
        key.verifier_key().to_string() + "\n",
    )
    .unwrap();
    std::fs::write(
        directory.join("witness"),
        witness.verifier_key().to_string() + "\n",
    )
    .unwrap();
    let mut random = Random(42);
    let mut tiles = log.tiles();
    let (mut inclusion, mut consistency) = (Vec::new(), Vec::new());
    for _ in 0..PROOFS {
        let new = TreeSize::new(1 + random.below(size)).unwrap();
        let index = LeafIndex::new(random.below(new.get())).unwrap();
        let old = TreeSize::new(1 + random.below(new.get())).unwrap();
        let new_root = root(&mut tiles, new).unwrap();
        inclusion.push(json!({
            "index": index.get(), "size": new.get(), "root": new_root.to_string(),
            "leaf": leaf_hash(&log.entries[index.get() as usize]).to_string(),
            "path": hashes(&inclusion_proof(&mut tiles, index, new).unwrap()),
        }));
        consistency.push(json!({
            "old": old.get(), "new": new.get(),
            "old_root": root(&mut tiles, old).unwrap().to_string(), "new_root": new_root.to_string(),
            "path": hashes(&consistency_proof(&mut tiles, old, new).unwrap()),
        }));
    }
    let proofs = json!({"size": size, "inclusion": inclusion, "consistency": consistency});
    std::fs::write(directory.join("proofs.json"), proofs.to_string()).unwrap();
}

/// What others have made.
fn check(directory: &Path) {
    let proofs = std::fs::read(directory.join("proofs.json")).unwrap();
    let proofs: Json = serde_json::from_slice(&proofs).unwrap();
    let (inclusion, consistency) = (&proofs["inclusion"], &proofs["consistency"]);
    let list = |json: &Json| json.as_array().unwrap().clone();
    assert_eq!(
        (list(inclusion).len(), list(consistency).len()),
        (PROOFS as usize, PROOFS as usize)
    );
    for proof in list(inclusion) {
        let index = LeafIndex::new(proof["index"].as_u64().unwrap()).unwrap();
        let (leaf, root) = (unhash(&proof["leaf"]), unhash(&proof["root"]));
        verify_inclusion(
            &leaf,
            index,
            size(&proof["size"]),
            &path(&proof["path"]),
            &root,
        )
        .unwrap();
    }
    for proof in list(consistency) {
        let (old, new) = (size(&proof["old"]), size(&proof["new"]));
        let (old_root, new_root) = (unhash(&proof["old_root"]), unhash(&proof["new_root"]));
        verify_consistency(old, new, &old_root, &new_root, &path(&proof["path"])).unwrap();
    }
    let vkey = std::fs::read_to_string(directory.join("vkey")).unwrap();
    let mut policy = format!("log {}\n", vkey.trim());
    match std::fs::read_to_string(directory.join("witness")) {
        Ok(witness) => policy += &format!("witness w {}\nquorum w\n", witness.trim()),
        Err(_) => policy += "quorum none\n",
    }
    std::fs::write(directory.join("policy"), &policy).unwrap();
    let note = std::fs::read(directory.join("log/checkpoint")).unwrap();
    let note = SignedNote::from_bytes(&note).unwrap();
    let verified = Policy::from_bytes(policy.as_bytes())
        .unwrap()
        .verify(&note)
        .unwrap();
    assert_eq!(verified.checkpoint.size(), size(&proofs["size"]));
    let verified = Command::new(env!("CARGO_BIN_EXE_merkle-log"))
        .args(["verify", "--policy", "policy", "log"])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

/// Runs a program of another language, which must succeed and say how much it checked.
fn other(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/interop")
        .join(name)
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target")
}

/// Go's packages as Debian has them (golang-golang-x-mod-dev).
fn go(act: &str, directory: &Path) {
    other(
        Command::new("go")
            .args([
                "run",
                source("tlog.go").to_str().unwrap(),
                act,
                directory.to_str().unwrap(),
            ])
            .env("GO111MODULE", "off")
            .env("GOPATH", "/usr/share/gocode")
            .env("GOCACHE", target().join("go")),
    );
}

/// The Python package aics-tlog, in an environment that scripts/setup.sh makes.
fn python(act: &str, directory: &Path) {
    let python = target().join("interop/bin/python");
    other(
        Command::new(python)
            .arg(source("tlog.py"))
            .arg(act)
            .arg(directory),
    );
}

#[test]
fn go_accepts_what_we_make() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path(), 66_000);
    go("check", directory.path());
}

#[test]
fn we_accept_what_go_makes() {
    let directory = tempfile::tempdir().unwrap();
    go("make", directory.path());
    check(directory.path());
}

#[test]
fn python_accepts_what_we_make() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path(), 1_500);
    python("check", directory.path());
}

#[test]
fn we_accept_what_python_makes() {
    let directory = tempfile::tempdir().unwrap();
    python("make", directory.path());
    check(directory.path());
}

#[test]
fn we_accept_what_we_make() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path(), 700);
    check(directory.path());
}
