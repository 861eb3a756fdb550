//! The witness, `merkle-log witness`, as a process of its own; and logs in memory that grow, fork and are signed.

use crate::gateway::{Answer, Gateway, token_file};
use merkle_tree::{
    Hash, HashReader, TILE_WIDTH, TileId, TreeSize, consistency_proof, leaf_hash, root, tile_hash,
};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tlog::{
    AddCheckpoint, Checkpoint, KeyName, SignatureType, SignedNote, SigningKey, VerifierKey,
};

/// Each log has a public key of its own, as policies demand.
pub fn log_key(origin: &str) -> SigningKey {
    let name = KeyName::new("example.com/all").unwrap();
    SigningKey::from_seed(name, SignatureType::Ed25519, &[1; 32])
        .and_then(|key| key.of_log(KeyName::new(origin)?))
        .unwrap()
}

pub fn cosigner(seed: u8) -> SigningKey {
    let name = KeyName::new(format!("witness.example/{seed}")).unwrap();
    SigningKey::from_seed(name, SignatureType::Ed25519Cosignature, &[seed; 32]).unwrap()
}

/// A log in memory: its entries, as the hashes of complete subtrees by level.
pub struct History {
    pub origin: String,
    key: SigningKey,
    levels: Vec<Vec<Hash>>,
}

struct Tiles<'h>(&'h [Vec<Hash>]);

impl HashReader for Tiles<'_> {
    type Error = Infallible;

    fn read(&mut self, tile: TileId, first: u8, count: u16) -> Result<Vec<Hash>, Infallible> {
        let start = (tile.index * TILE_WIDTH) as usize + usize::from(first);
        Ok(self.0[usize::from(tile.level)][start..][..usize::from(count)].to_vec())
    }
}

impl History {
    /// Entries that all histories of an origin share, and then those of one.
    pub fn new(origin: &str, key: SigningKey, shared: u64, name: &str, size: u64) -> History {
        let entry = |number: u64| match number < shared {
            true => leaf_hash(&number.to_be_bytes()),
            false => leaf_hash(format!("{name} {number}").as_bytes()),
        };
        let mut levels = vec![(0..size).map(entry).collect::<Vec<_>>()];
        while let full @ [_, ..] = levels[levels.len() - 1].as_chunks::<256>().0 {
            let above = full.iter().map(|tile| tile_hash(tile)).collect();
            levels.push(above);
        }
        History {
            origin: origin.to_owned(),
            key,
            levels,
        }
    }

    pub fn size(&self) -> u64 {
        self.levels[0].len() as u64
    }

    pub fn root(&self, size: u64) -> Hash {
        root(&mut Tiles(&self.levels), tree_size(size)).unwrap()
    }

    pub fn checkpoint(&self, size: u64) -> Checkpoint {
        Checkpoint::new(&self.origin, tree_size(size), self.root(size)).unwrap()
    }

    pub fn note(&self, size: u64) -> SignedNote {
        let mut note = SignedNote::new(&self.checkpoint(size).to_string()).unwrap();
        note.sign(&self.key, 0).unwrap();
        note
    }

    pub fn proof(&self, old: u64, new: u64) -> Vec<Hash> {
        let (old, new) = (tree_size(old.min(new)), tree_size(new));
        consistency_proof(&mut Tiles(&self.levels), old, new).unwrap()
    }

    pub fn request(&self, old: u64, new: u64) -> AddCheckpoint {
        AddCheckpoint::new(tree_size(old), self.proof(old, new), self.note(new)).unwrap()
    }
}

pub fn tree_size(size: u64) -> TreeSize {
    TreeSize::new(size).unwrap()
}

/// Nothing is refused for its rate.
pub const UNLIMITED: &str = "[limits]\nrate_per_client = 1000000\nburst_per_client = 1000000";

/// What a witness has on disk, which outlives its process.
pub struct Place {
    directory: TempDir,
    key: SigningKey,
    /// Of the configuration, after what every witness has.
    more: String,
    listen: String,
}

impl Place {
    pub fn new(seed: u8, logs: &[VerifierKey], more: &str) -> Place {
        let place = Place {
            directory: tempfile::tempdir().unwrap(),
            key: cosigner(seed),
            more: more.to_owned(),
            listen: "127.0.0.1:0".to_owned(),
        };
        let secret = format!("{}\n", place.key.to_text().as_str());
        token_file(place.directory.path(), "key", &secret);
        place.knows(logs);
        place
    }

    /// From now on these are the logs, once the witness reads its policy.
    pub fn knows(&self, logs: &[VerifierKey]) {
        let lines: String = logs.iter().map(|key| format!("log {key}\n")).collect();
        std::fs::write(self.path().join("policy"), lines + "quorum none\n").unwrap();
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// From now on it listens there, so that it is found again after a restart.
    pub fn stays_at(&mut self, address: &str) {
        self.listen = address.to_owned();
    }

    pub fn configuration(&self) -> String {
        let at = self.path().display();
        format!(
            "policy = '{at}/policy'\nkey = '{at}/key'\nstate = '{at}/state'\n{}",
            self.more
        )
    }

    pub fn start(&self) -> Witness {
        let (directory, listen) = (tempfile::tempdir().unwrap(), &self.listen);
        let configuration = self.configuration();
        let program = Gateway::of_command("witness", directory, &configuration, |command| {
            command.args(["--listen", listen]);
        });
        Witness {
            program,
            key: self.key.verifier_key(),
        }
    }
}

pub struct Witness {
    pub program: Gateway,
    pub key: VerifierKey,
}

impl Witness {
    pub fn url(&self) -> String {
        format!("http://{}", self.program.address)
    }

    pub fn add(&self, request: &AddCheckpoint) -> Answer {
        self.post(&request.to_string())
    }

    pub fn post(&self, body: &str) -> Answer {
        self.program.request("POST", "/add-checkpoint", &[], body)
    }

    /// What it says that it has cosigned last.
    pub fn last(&self, origin: &str) -> Option<SignedNote> {
        let answer = self.program.get(&checkpoint_path(origin));
        match answer.status {
            200 => Some(SignedNote::from_bytes(&answer.body).unwrap()),
            _ => {
                assert_eq!(answer.status, 404, "{answer}");
                None
            }
        }
    }

    /// The value of a metric, without the prefix of all.
    pub fn metric(&self, name: &str) -> u64 {
        metric(&self.program, &format!("merkle_log_witness_{name}"))
    }
}

pub fn metric(program: &Gateway, name: &str) -> u64 {
    let text = String::from_utf8(program.get("/metrics").body).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    value.trim().parse().unwrap()
}

/// The name of a log in paths and in the state.
pub fn digest(origin: &str) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(origin.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn checkpoint_path(origin: &str) -> String {
    format!("/{}/checkpoint", digest(origin))
}

/// The cosignature in an answer, which must be one by this key over this text; its time.
pub fn cosigned_at(answer: &Answer, text: &str, key: &VerifierKey) -> u64 {
    assert_eq!(answer.status, 200, "{answer}");
    let body = std::str::from_utf8(&answer.body).unwrap();
    let mut note = SignedNote::new(text).unwrap();
    for line in body.strip_suffix('\n').unwrap().split('\n') {
        note.add(line.parse().unwrap()).unwrap();
    }
    let verified = note.verify([key]).unwrap();
    assert_eq!(verified.len(), 1, "{answer}");
    verified[0].0.time(key).unwrap()
}
