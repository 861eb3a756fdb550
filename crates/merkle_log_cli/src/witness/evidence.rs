//! Files that convict a log, or may: what the witness had cosigned, what it was shown instead, and the proof, as a
//! consistency proof that `merkle-log verify` refuses.
//!
//! Forks are kept for good, the first of them, since one is enough to convict. What is merely unproven anyone can make
//! of an honest checkpoint: the newest of those are kept, and one that is cosigned after all is removed.

use crate::files;
use crate::output::{Failure, hex};
use sha2::{Digest, Sha256};
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::SystemTime;
use tlog::{ConsistencyBundle, Doubt};

/// Files of each kind for each log.
const MOST_FORKS: usize = 100;
const MOST_UNPROVEN: usize = 20;

/// The evidence about one log, each piece known by its file's name.
pub struct Evidence {
    directory: PathBuf,
    pub forks: Vec<String>,
    /// The oldest first.
    pub unproven: Vec<String>,
}

/// What became of a piece of evidence.
#[derive(Debug, PartialEq, Eq)]
pub enum Kept {
    New(PathBuf),
    Already,
    /// There are as many as are kept.
    Enough,
}

impl Evidence {
    /// What is in the directory, which need not be there.
    pub fn read(directory: PathBuf) -> Result<Evidence, Failure> {
        let mut evidence = Evidence {
            forks: Vec::new(),
            unproven: Vec::new(),
            directory,
        };
        let entries = match std::fs::read_dir(&evidence.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(evidence),
            entries => entries.map_err(Failure::of(&evidence.directory))?,
        };
        let mut found: Vec<(SystemTime, String)> = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Failure::of(&evidence.directory))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".json") {
                let modified = entry.metadata().and_then(|metadata| metadata.modified());
                found.push((modified.map_err(Failure::of(&entry.path()))?, name));
            }
        }
        found.sort();
        for (_, name) in found {
            match name.starts_with("fork-") {
                true => evidence.forks.push(name),
                false => evidence.unproven.push(name),
            }
        }
        Ok(evidence)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Keeps a piece; it is on disk when this returns.
    pub fn keep(&mut self, doubt: Doubt, bundle: &ConsistencyBundle) -> io::Result<Kept> {
        let [fork, unproven] = names(bundle.new.text());
        if self.forks.contains(&fork) {
            return Ok(Kept::Already);
        }
        let name = match doubt {
            Doubt::Fork if self.forks.len() >= MOST_FORKS => return Ok(Kept::Enough),
            Doubt::Fork => &fork,
            Doubt::Unproven if self.unproven.contains(&unproven) => return Ok(Kept::Already),
            Doubt::Unproven => &unproven,
        };
        self.write(name, bundle.to_json().as_bytes())?;
        match doubt {
            Doubt::Fork => {
                self.forks.push(fork.clone());
                self.remove(&unproven)?;
            }
            Doubt::Unproven => {
                self.unproven.push(unproven.clone());
                if self.unproven.len() > MOST_UNPROVEN {
                    self.remove(&self.unproven[0].clone())?;
                }
            }
        }
        Ok(Kept::New(self.path(name)))
    }

    /// A checkpoint that was unproven continues the log after all.
    pub fn cleared(&mut self, text: &str) -> io::Result<()> {
        let [_, unproven] = names(text);
        self.remove(&unproven)
    }

    fn remove(&mut self, unproven: &str) -> io::Result<()> {
        let Some(place) = self.unproven.iter().position(|name| name == unproven) else {
            return Ok(());
        };
        self.unproven.remove(place);
        std::fs::remove_file(self.path(unproven))
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        files::make_directory(&self.directory)?;
        files::replace(&self.path(name), content)
    }
}

/// The names of the two kinds of evidence that a checkpoint can be. One checkpoint is one piece, however often it is shown.
fn names(text: &str) -> [String; 2] {
    let digest = hex(&Sha256::digest(text.as_bytes())[..16]);
    ["fork", "unproven"].map(|kind| format!("{kind}-{digest}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tlog::{Checkpoint, KeyName, SignatureType, SignedNote, SigningKey};

    fn bundle(size: u64) -> ConsistencyBundle {
        let name = KeyName::new("example.com/log").unwrap();
        let key = SigningKey::from_seed(name, SignatureType::Ed25519, &[1; 32]).unwrap();
        let note = |size: u64| {
            let root = merkle_tree::leaf_hash(&size.to_be_bytes());
            let size = merkle_tree::TreeSize::new(size).unwrap();
            let checkpoint = Checkpoint::new("example.com/log", size, root).unwrap();
            let mut note = SignedNote::new(&checkpoint.to_string()).unwrap();
            note.sign(&key, 0).unwrap();
            note
        };
        ConsistencyBundle {
            old: note(1),
            new: note(size),
            path: Vec::new(),
        }
    }

    #[test]
    fn evidence_is_bounded_and_forks_are_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut evidence = Evidence::read(path.clone()).unwrap();
        for size in 2..200 {
            let kept = evidence.keep(Doubt::Unproven, &bundle(size)).unwrap();
            assert!(matches!(kept, Kept::New(_)));
            assert_eq!(
                evidence.keep(Doubt::Unproven, &bundle(size)).unwrap(),
                Kept::Already
            );
        }
        let first: Vec<_> = (2..102)
            .map(|size| evidence.keep(Doubt::Fork, &bundle(size)))
            .collect();
        assert!(first.iter().all(|kept| matches!(kept, Ok(Kept::New(_)))));
        assert_eq!(
            evidence.keep(Doubt::Fork, &bundle(102)).unwrap(),
            Kept::Enough
        );
        assert_eq!(
            evidence.keep(Doubt::Fork, &bundle(2)).unwrap(),
            Kept::Already
        );
        assert_eq!(
            evidence.keep(Doubt::Unproven, &bundle(2)).unwrap(),
            Kept::Already
        );
        assert_eq!(
            (evidence.forks.len(), evidence.unproven.len()),
            (MOST_FORKS, MOST_UNPROVEN)
        );
        let files = std::fs::read_dir(&path).unwrap().count();
        assert_eq!(files, MOST_FORKS + MOST_UNPROVEN);
        // It is what is found at the next start.
        let again = Evidence::read(path).unwrap();
        let sorted = |names: &[String]| {
            names
                .iter()
                .cloned()
                .collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(sorted(&again.forks), sorted(&evidence.forks));
        assert_eq!(sorted(&again.unproven), sorted(&evidence.unproven));
    }

    #[test]
    fn what_was_unproven_is_cleared_by_a_proof_and_a_fork_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let mut evidence = Evidence::read(directory.path().join("log")).unwrap();
        evidence.keep(Doubt::Unproven, &bundle(7)).unwrap();
        evidence.cleared(bundle(7).new.text()).unwrap();
        assert!(evidence.unproven.is_empty());
        evidence.keep(Doubt::Unproven, &bundle(8)).unwrap();
        evidence.keep(Doubt::Fork, &bundle(8)).unwrap();
        evidence.cleared(bundle(8).new.text()).unwrap();
        assert_eq!((evidence.forks.len(), evidence.unproven.len()), (1, 0));
    }
}
