//! How far a log is with its witnesses: which checkpoint they are asked to cosign, who has, and whether that is enough.
//!
//! All witnesses are asked for the same checkpoint. If each were asked for whatever is the newest when it answers, a log
//! that signs often would have many checkpoints with one cosignature, and none with a quorum. So the target stays until
//! it has its quorum, or for [`PATIENCE`]; then the newest checkpoint takes its place.

use merkle_tree::Hash;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tlog::{Checkpoint, Error, Policy, Signature, SignedNote, UnixSeconds, VerifiedCheckpoint};

/// How long a checkpoint is submitted that does not get its quorum, if there is a newer one.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A checkpoint that is submitted.
#[derive(Clone, Debug)]
pub struct Target {
    /// With the log's own signatures only.
    pub note: SignedNote,
    pub checkpoint: Checkpoint,
    since: Instant,
}

/// The tree head of a checkpoint. Two of one size are not the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub size: u64,
    pub root: Hash,
}

impl Head {
    fn of(checkpoint: &Checkpoint) -> Head {
        Head {
            size: checkpoint.size().get(),
            root: *checkpoint.root(),
        }
    }
}

/// A tree head that has been cosigned, or has the quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    pub head: Head,
    pub at: UnixSeconds,
}

/// What is known of one witness.
#[derive(Clone, Debug, Default)]
pub struct WitnessStanding {
    /// The last checkpoint that it has cosigned, and when.
    pub cosigned: Option<Reached>,
    /// Why the last attempt failed, if it did.
    pub error: Option<String>,
    /// Attempts that failed since the last cosignature.
    pub failures: u64,
}

#[derive(Default)]
pub struct Standing {
    pub origin: Option<String>,
    pub newest: Option<Head>,
    target: Option<Target>,
    /// The target's note with all cosignatures that were gathered.
    cosigned: Option<SignedNote>,
    pub quorum: Option<Reached>,
    /// Since when there is a checkpoint without a quorum, if there is.
    waiting_since: Option<Instant>,
    /// Why the log's newest checkpoint is not known, or not believed.
    pub problem: Option<String>,
    /// When the database said last what the newest checkpoint is.
    pub heartbeat: UnixSeconds,
    /// By their names in the policy.
    pub witnesses: BTreeMap<String, WitnessStanding>,
}

impl Standing {
    pub fn of(policy: &Policy) -> Standing {
        let names = policy.witnesses().iter();
        Standing {
            witnesses: names
                .map(|witness| (witness.name.clone(), WitnessStanding::default()))
                .collect(),
            ..Standing::default()
        }
    }

    /// Takes notice of the newest checkpoint. Returns the target if it is another one than before.
    ///
    /// # Errors
    /// If no log of the policy has signed it.
    pub fn see(
        &mut self,
        note: &SignedNote,
        policy: &Policy,
        now: Instant,
        time: UnixSeconds,
    ) -> Result<Option<Target>, Error> {
        let verified = policy.verify_log(note)?;
        let newest = &verified.checkpoint;
        self.origin = Some(newest.origin().to_owned());
        self.newest = Some(Head::of(newest));
        self.problem = None;
        self.heartbeat = time;
        if !self.gives_way_to(newest, now) {
            self.wait(now);
            return Ok(None);
        }
        let target = Target {
            note: signed_by(note, policy, false)?,
            checkpoint: newest.clone(),
            since: now,
        };
        self.cosigned = Some(signed_by(note, policy, true)?);
        self.target = Some(target.clone());
        self.count(&verified, policy);
        self.wait(now);
        Ok(Some(target))
    }

    /// Adds what a witness has said of the target. What it said of an earlier one comes too late.
    pub fn add(&mut self, text: &str, signature: &Signature, policy: &Policy, now: Instant) {
        let Some(note) = self.cosigned.as_mut().filter(|note| note.text() == text) else {
            return;
        };
        let verified = note
            .add(signature.clone())
            .and_then(|()| policy.verify_log(note));
        if let Ok(verified) = verified {
            self.count(&verified, policy);
            self.wait(now);
        }
    }

    pub fn failed(&mut self, witness: &str, error: String) {
        let standing = self.witnesses.entry(witness.to_owned()).or_default();
        standing.failures += 1;
        standing.error = Some(error);
    }

    /// Whether a witness has cosigned the target.
    pub fn has(&self, witness: &str, target: &Target) -> bool {
        let head = Head::of(&target.checkpoint);
        let standing = self.witnesses.get(witness);
        standing
            .and_then(|standing| standing.cosigned)
            .is_some_and(|cosigned| cosigned.head == head)
    }

    /// Whether the newest checkpoint has the quorum.
    pub fn is_reached(&self) -> bool {
        self.newest.is_some() && self.quorum.map(|quorum| quorum.head) == self.newest
    }

    /// For how long a checkpoint has waited for its quorum.
    pub fn waiting(&self, now: Instant) -> Duration {
        let since = self.waiting_since;
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    fn gives_way_to(&self, newest: &Checkpoint, now: Instant) -> bool {
        let Some(target) = &self.target else {
            return true;
        };
        let (had, size) = (target.checkpoint.size(), newest.size());
        if size > had {
            let had = Head::of(&target.checkpoint);
            let reached = self.quorum.map(|quorum| quorum.head) == Some(had);
            return reached || now.saturating_duration_since(target.since) >= PATIENCE;
        }
        // A database that was brought back, or another history of one size: the witnesses will say.
        *newest != target.checkpoint
    }

    fn count(&mut self, verified: &VerifiedCheckpoint, policy: &Policy) {
        let head = Head::of(&verified.checkpoint);
        for cosigned in &verified.cosigned {
            let standing = self.witnesses.entry(cosigned.witness.clone()).or_default();
            *standing = WitnessStanding {
                cosigned: Some(Reached {
                    head,
                    at: cosigned.time,
                }),
                ..WitnessStanding::default()
            };
        }
        let known = self.quorum.map(|quorum| quorum.head) == Some(head);
        if !known && policy.check_quorum(verified).is_ok() {
            let at = verified.cosigned.iter().map(|cosigned| cosigned.time).max();
            self.quorum = Some(Reached {
                head,
                at: at.unwrap_or(self.heartbeat),
            });
            self.waiting_since = None;
        }
    }

    fn wait(&mut self, now: Instant) {
        match self.is_reached() {
            true => self.waiting_since = None,
            false => self.waiting_since = self.waiting_since.or(Some(now)),
        }
    }
}

/// A note with the signatures of its log, and with those of witnesses or without.
fn signed_by(note: &SignedNote, policy: &Policy, witnesses: bool) -> Result<SignedNote, Error> {
    let logs = policy.logs().iter();
    let witnesses = policy.witnesses().iter().filter(|_| witnesses);
    let keys = logs.chain(witnesses.map(|witness| &witness.key));
    let mut kept = SignedNote::new(note.text())?;
    for (signature, _) in note.verify(keys)? {
        kept.add(signature.clone())?;
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tlog::{KeyName, SignatureType, Signer, SigningKey};

    const ORIGIN: &str = "example.com/log";

    fn key(name: &str, kind: SignatureType, seed: u8) -> SigningKey {
        SigningKey::from_seed(KeyName::new(name).unwrap(), kind, &[seed; 32]).unwrap()
    }

    fn log() -> SigningKey {
        key(ORIGIN, SignatureType::Ed25519, 1)
    }

    fn witness(seed: u8) -> SigningKey {
        key("w.example", SignatureType::Ed25519Cosignature, seed)
    }

    /// Two of three witnesses.
    fn policy() -> Policy {
        let mut text = format!("log {}\n", log().verifier_key());
        for seed in 2..5 {
            text += &format!("witness w{seed} {}\n", witness(seed).verifier_key());
        }
        text += "group most 2 w2 w3 w4\nquorum most\n";
        Policy::from_bytes(text.as_bytes()).unwrap()
    }

    fn note(size: u64) -> SignedNote {
        let root = merkle_tree::leaf_hash(&size.to_be_bytes());
        let size = merkle_tree::TreeSize::new(size).unwrap();
        let checkpoint = Checkpoint::new(ORIGIN, size, root).unwrap();
        let mut note = SignedNote::new(&checkpoint.to_string()).unwrap();
        note.sign(&log(), 0).unwrap();
        note
    }

    fn cosignature(size: u64, seed: u8) -> Signature {
        let key = witness(seed);
        Signature {
            name: key.name().clone(),
            id: key.id(),
            payload: key.sign(note(size).text(), 1000 + size).unwrap(),
        }
    }

    struct Stage {
        standing: Standing,
        start: Instant,
    }

    impl Stage {
        fn new() -> Stage {
            Stage {
                standing: Standing::of(&policy()),
                start: Instant::now(),
            }
        }

        /// The new target's size, if there is a new target.
        fn sees(&mut self, size: u64, second: u64) -> Option<u64> {
            let now = self.start + Duration::from_secs(second);
            let target = self
                .standing
                .see(&note(size), &policy(), now, second)
                .unwrap();
            target.map(|target| target.checkpoint.size().get())
        }

        fn hears(&mut self, size: u64, seed: u8, second: u64) {
            let now = self.start + Duration::from_secs(second);
            let signature = cosignature(size, seed);
            self.standing
                .add(note(size).text(), &signature, &policy(), now);
        }

        fn waiting(&self, second: u64) -> u64 {
            self.standing
                .waiting(self.start + Duration::from_secs(second))
                .as_secs()
        }
    }

    #[test]
    fn a_log_that_signs_often_gets_its_quorum() {
        let mut stage = Stage::new();
        assert_eq!(stage.sees(10, 0), Some(10));
        stage.hears(10, 2, 1);
        // A newer checkpoint does not take the target away from the second witness.
        assert_eq!(stage.sees(11, 2), None);
        assert_eq!(stage.waiting(3), 3);
        stage.hears(10, 3, 4);
        let quorum = stage.standing.quorum.unwrap();
        assert_eq!((quorum.head.size, quorum.at), (10, 1010));
        assert!(!stage.standing.is_reached());
        assert_eq!(stage.sees(12, 5), Some(12));
        stage.hears(12, 3, 6);
        stage.hears(12, 4, 7);
        assert!(stage.standing.is_reached());
        assert_eq!(stage.waiting(100), 0);
    }

    #[test]
    fn a_target_without_a_quorum_gives_way_in_the_end_and_is_waited_for_all_along() {
        let mut stage = Stage::new();
        stage.sees(10, 0);
        stage.hears(10, 2, 1);
        assert_eq!(stage.sees(11, 59), None);
        assert_eq!(stage.sees(11, 60), Some(11));
        assert_eq!(stage.waiting(61), 61);
        // What is said of the old target is no cosignature of the new one.
        stage.hears(10, 3, 62);
        assert_eq!(stage.standing.quorum, None);
        stage.hears(11, 3, 63);
        stage.hears(11, 2, 64);
        assert!(stage.standing.is_reached());
    }

    #[test]
    fn what_the_database_has_already_is_counted_and_what_nobody_known_has_signed_is_not_believed() {
        let mut cosigned = note(10);
        for seed in [2, 3, 9] {
            cosigned.sign(&witness(seed), 7).unwrap();
        }
        let mut standing = Standing::of(&policy());
        let target = standing
            .see(&cosigned, &policy(), Instant::now(), 5)
            .unwrap()
            .unwrap();
        assert!(standing.is_reached());
        assert!(standing.has("w2", &target) && !standing.has("w4", &target));
        assert_eq!(target.note, note(10));
        let mut foreign = SignedNote::new(note(11).text()).unwrap();
        foreign
            .sign(&key(ORIGIN, SignatureType::Ed25519, 9), 0)
            .unwrap();
        assert!(
            standing
                .see(&foreign, &policy(), Instant::now(), 6)
                .is_err()
        );
        assert_eq!(standing.newest.map(|newest| newest.size), Some(10));
    }

    #[test]
    fn a_failure_is_remembered_until_the_witness_cosigns() {
        let mut stage = Stage::new();
        stage.sees(10, 0);
        stage.standing.failed("w2", "gone".to_owned());
        stage.standing.failed("w2", "gone".to_owned());
        assert_eq!(stage.standing.witnesses["w2"].failures, 2);
        stage.hears(10, 2, 1);
        let standing = &stage.standing.witnesses["w2"];
        assert!(standing.error.is_none() && standing.failures == 0);
    }

    #[test]
    fn another_root_of_the_same_size_has_no_cosignature_of_the_first_one() {
        let mut stage = Stage::new();
        stage.sees(10, 0);
        stage.hears(10, 2, 1);
        stage.hears(10, 3, 2);
        assert!(stage.standing.is_reached());
        let root = merkle_tree::leaf_hash(b"another history");
        let size = merkle_tree::TreeSize::new(10).unwrap();
        let other = Checkpoint::new(ORIGIN, size, root).unwrap();
        let mut other = SignedNote::new(&other.to_string()).unwrap();
        other.sign(&log(), 0).unwrap();
        let now = stage.start + Duration::from_secs(3);
        let seen = stage.standing.see(&other, &policy(), now, 3).unwrap();
        let target = seen.unwrap();
        assert!(!stage.standing.is_reached() && !stage.standing.has("w2", &target));
        assert_eq!(stage.waiting(5), 2);
    }

    #[test]
    fn a_database_that_was_brought_back_is_submitted_as_it_is() {
        let mut stage = Stage::new();
        stage.sees(10, 0);
        assert_eq!(stage.sees(8, 1), Some(8));
        assert_eq!(stage.sees(8, 2), None);
    }
}
