//! One log as the witness knows it: the last checkpoint that it has cosigned, and evidence. One request at a time, and
//! what is cosigned is on disk before anyone is told.

use super::evidence::{self, Evidence};
use crate::files;
use crate::output::{Failure, hex, printable};
use merkle_log_client::Kept;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;
use tlog::{
    AddCheckpoint, Checkpoint, ConsistencyBundle, Doubt, Signature, SignedNote, SigningKey,
    UnixSeconds, Verdict, VerifierKey,
};
use tokio::sync::Mutex;

pub struct Log {
    pub origin: String,
    kept: Kept,
    /// Of the witness and of the log: what is kept must be signed by one of them, and by none of them falsely.
    keys: Vec<VerifierKey>,
    /// The directory of the evidence.
    evidence: PathBuf,
    memory: Arc<Mutex<Memory>>,
    /// What others are told, without waiting for a request that is being decided.
    shown: RwLock<Shown>,
    /// Pieces of evidence that were not kept: there were enough, or the disk failed.
    pub evidence_lost: AtomicU64,
    /// Forks among them of which nothing is kept.
    pub forks_lost: AtomicU64,
    /// Checkpoints that could not be kept, and were not cosigned therefore.
    pub failures: AtomicU64,
}

/// What one request at a time reads and changes.
struct Memory {
    last: Last,
    evidence: Evidence,
}

enum Last {
    /// This process has written it.
    OnDisk(Option<SignedNote>),
    /// It was found, and whoever wrote it may have been killed before it was certain to survive a failure of power.
    Found(Option<SignedNote>),
    /// Writing failed: either of these is on disk, which must be read again.
    Unknown {
        before: Option<SignedNote>,
        tried: SignedNote,
    },
}

/// The log as others see it.
#[derive(Clone, Default)]
pub struct Shown {
    pub note: Option<SignedNote>,
    /// What was to be kept last could not be.
    pub failing: bool,
    pub forks: Vec<String>,
    pub unproven: usize,
}

impl Last {
    fn note(&self) -> Option<&SignedNote> {
        match self {
            Last::OnDisk(last) | Last::Found(last) => last.as_ref(),
            Last::Unknown { .. } => None,
        }
    }
}

/// What is answered to a request whose checkpoint a key of the log has signed.
pub enum Decision {
    Cosigned(Signature),
    Refused(Verdict),
    /// The disk does not take it.
    Failed,
}

/// The name of a log in paths and files.
pub fn digest(origin: &str) -> String {
    hex(&Sha256::digest(origin.as_bytes()))
}

impl Log {
    /// The log as the state's directory has it.
    pub fn read(state: &Path, origin: &str, keys: Vec<VerifierKey>) -> Result<Log, Failure> {
        let digest = digest(origin);
        let all_evidence = state.join("evidence");
        files::make_directory(&all_evidence).map_err(Failure::of(&all_evidence))?;
        let kept = Kept::new(state.join(format!("{digest}.checkpoint")));
        let last = read(&kept, origin, &keys)?;
        if last.is_some() {
            files::settle(kept.path()).map_err(Failure::of(kept.path()))?;
        }
        let directory = all_evidence.join(digest);
        let evidence = Evidence::read(directory.clone())?;
        let log = Log {
            origin: origin.to_owned(),
            kept,
            keys,
            evidence: directory,
            memory: Arc::new(Mutex::new(Memory {
                last: Last::Found(last),
                evidence,
            })),
            shown: RwLock::default(),
            evidence_lost: AtomicU64::new(0),
            forks_lost: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        };
        if let Ok(memory) = log.memory.try_lock() {
            log.show(&memory);
        }
        Ok(log)
    }

    pub fn shown(&self) -> Shown {
        let shown = self.shown.read();
        shown.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Decides about a request. `admitted` is its checkpoint with the log's signatures alone.
    pub async fn decide(
        self: Arc<Log>,
        request: AddCheckpoint,
        admitted: SignedNote,
        key: SigningKey,
    ) -> Decision {
        let memory = Arc::clone(&self.memory).lock_owned().await;
        // Whoever asked may go away meanwhile: what is begun here ends by itself, and holds the lock until then.
        let decided = tokio::task::spawn_blocking(move || {
            let mut memory = memory;
            let decision = self.decided(&mut memory, &request, admitted, &key);
            self.show(&memory);
            decision
        });
        decided.await.unwrap_or(Decision::Failed)
    }

    fn decided(
        &self,
        memory: &mut Memory,
        request: &AddCheckpoint,
        admitted: SignedNote,
        key: &SigningKey,
    ) -> Decision {
        if let Err(why) = self.find_again(memory) {
            return self.failed(&why);
        }
        let last = memory.last.note().cloned();
        let checkpoint = last.as_ref().and_then(checkpoint_of);
        let ruling = request.rule(checkpoint.as_ref());
        if let (Some(doubt), Some(last)) = (ruling.doubt, &last) {
            let bundle = ConsistencyBundle {
                old: last.clone(),
                new: admitted.clone(),
                path: request.path().to_vec(),
            };
            self.keep_evidence(&mut memory.evidence, doubt, &bundle);
        }
        if ruling.verdict != Verdict::Cosign {
            return Decision::Refused(ruling.verdict);
        }
        match self.cosign(memory, last, admitted, key) {
            Ok(signature) => Decision::Cosigned(signature),
            Err(why) => self.failed(&why),
        }
    }

    /// Signs, and keeps what is signed before it is given away.
    fn cosign(
        &self,
        memory: &mut Memory,
        last: Option<SignedNote>,
        admitted: SignedNote,
        key: &SigningKey,
    ) -> Result<Signature, Failure> {
        // A later cosignature never has an earlier time, and none has a time that the clock does not show.
        let (time, before) = (now(), last.as_ref().map_or(0, |last| time_of(last, key)));
        if time < before {
            return Err(Failure::Said(format!(
                "the clock is {} s behind the last cosignature",
                before - time
            )));
        }
        let mut note = admitted;
        note.sign(key, time)?;
        let signature = own(&note, key).cloned();
        let on_disk = matches!(memory.last, Last::OnDisk(_));
        if !on_disk || last.as_ref() != Some(&note) {
            let lock = self.kept.lock()?;
            // What is signed must continue what is on disk, whoever has written that.
            if read(&self.kept, &self.origin, &self.keys)? != last {
                return Err(self.altered());
            }
            memory.last = Last::Unknown {
                before: last,
                tried: note.clone(),
            };
            self.kept.replace(&note, &lock)?;
            if let Err(error) = memory.evidence.cleared(note.text()) {
                tracing::warn!(origin = self.name(), %error, "evidence that means nothing any more was not removed");
            }
            memory.last = Last::OnDisk(Some(note));
        }
        signature.ok_or_else(|| Failure::Said("the cosignature is not in the note".to_owned()))
    }

    fn find_again(&self, memory: &mut Memory) -> Result<(), Failure> {
        if let Last::Unknown { before, tried } = &memory.last {
            let found = read(&self.kept, &self.origin, &self.keys)?;
            if found != *before && found.as_ref() != Some(tried) {
                return Err(self.altered());
            }
            memory.last = Last::Found(found);
        }
        Ok(())
    }

    fn altered(&self) -> Failure {
        Failure::Said(format!(
            "{} does not hold what this witness has kept: another process, or somebody, has changed it",
            self.kept.path().display()
        ))
    }

    fn keep_evidence(&self, evidence: &mut Evidence, doubt: Doubt, bundle: &ConsistencyBundle) {
        let (origin, size) = (self.name(), size_of(&bundle.new));
        match evidence.keep(doubt, bundle) {
            Ok(evidence::Kept::New(file)) => {
                let (file, kept) = (file.display().to_string(), size_of(&bundle.old));
                match doubt {
                    Doubt::Fork => {
                        tracing::error!(
                            origin,
                            kept,
                            size,
                            file,
                            "the log has signed two histories"
                        )
                    }
                    Doubt::Unproven => {
                        tracing::warn!(
                            origin,
                            kept,
                            size,
                            file,
                            "a checkpoint was not shown to continue the log"
                        )
                    }
                }
            }
            Ok(evidence::Kept::Already) => {}
            Ok(evidence::Kept::Enough) => {
                self.evidence_lost.fetch_add(1, Relaxed);
            }
            Err(error) => {
                self.evidence_lost.fetch_add(1, Relaxed);
                if doubt == Doubt::Fork {
                    self.forks_lost.fetch_add(1, Relaxed);
                }
                // All of it is in the line, since it is nowhere else.
                let evidence = bundle.to_json();
                tracing::error!(origin, %error, evidence, "evidence cannot be kept");
            }
        }
    }

    fn failed(&self, why: &Failure) -> Decision {
        self.failures.fetch_add(1, Relaxed);
        let why = match why {
            Failure::Said(why) => why.as_str(),
            Failure::Unheard => "",
        };
        tracing::error!(
            origin = self.name(),
            why,
            "a checkpoint cannot be kept, and is not cosigned"
        );
        Decision::Failed
    }

    fn show(&self, memory: &Memory) {
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        if let Last::OnDisk(last) | Last::Found(last) = &memory.last {
            shown.note.clone_from(last);
        }
        shown.forks.clone_from(&memory.evidence.forks);
        shown.unproven = memory.evidence.unproven.len();
        shown.failing = matches!(memory.last, Last::Unknown { .. });
    }

    pub fn evidence_file(&self, name: &str) -> PathBuf {
        self.evidence.join(name)
    }

    fn name(&self) -> String {
        printable(&self.origin)
    }
}

/// What is kept of a log. A file that is damaged, or not of it, is never taken for an absent one.
fn read(kept: &Kept, origin: &str, keys: &[VerifierKey]) -> Result<Option<SignedNote>, Failure> {
    let wrong = |what: &str| Failure::Said(format!("{}: {what}", kept.path().display()));
    let Some(note) = kept.read().map_err(|error| match error {
        merkle_log_client::Error::Tlog(error) => wrong(&error.to_string()),
        error => error.into(),
    })?
    else {
        return Ok(None);
    };
    match checkpoint_of(&note) {
        Some(checkpoint) if checkpoint.origin() != origin => {
            Err(wrong("it is a checkpoint of another log"))
        }
        Some(_) => match note.verify(keys) {
            Ok(_) => Ok(Some(note)),
            Err(error) => Err(wrong(&format!("it is damaged: {error}"))),
        },
        None => Err(wrong("it is not a checkpoint")),
    }
}

pub fn checkpoint_of(note: &SignedNote) -> Option<Checkpoint> {
    note.text().parse().ok()
}

fn size_of(note: &SignedNote) -> u64 {
    checkpoint_of(note).map_or(0, |checkpoint| checkpoint.size().get())
}

/// The witness' own signature below a note.
fn own<'n>(note: &'n SignedNote, key: &SigningKey) -> Option<&'n Signature> {
    let key = key.verifier_key();
    let mut signatures = note.signatures().iter();
    signatures.find(|signature| (&signature.name, signature.id) == (key.name(), key.id()))
}

/// When the witness cosigned a note; 0 if it did not.
pub fn time_of(note: &SignedNote, key: &SigningKey) -> UnixSeconds {
    let time = own(note, key).and_then(|signature| signature.time(&key.verifier_key()));
    time.unwrap_or_default()
}

pub fn now() -> UnixSeconds {
    let passed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    passed.map_or(0, |passed| passed.as_secs())
}
