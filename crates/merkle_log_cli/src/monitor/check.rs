//! One check of one log: its checkpoint, its history, and every entry and tile that is new.

use super::event::{Condition, Trouble};
use super::state::State;
use crate::files;
use crate::follow::{Followed, Newest, Refusal, now};
use crate::output::Failure;
use crate::rehash::{Fault, Rehash, Saved, Tree, Wanted};
use merkle_log_client::Kept;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tlog::{Checkpoint, ForkProof, SignedNote};

/// Files that convict a log, at most: one is enough.
const MOST_EVIDENCE: usize = 100;

/// A log, and what is kept of it.
pub struct Watched {
    pub followed: Followed,
    pub state: Mutex<State>,
    pub wanted: Wanted,
    pub stale_seconds: Option<u64>,
    /// While entries are hashed, the log's newest checkpoint is looked at again after so long.
    pub interval: Duration,
    /// Seconds that a checkpoint may be without its quorum before this is told.
    pub quorum_seconds: u64,
}

/// Why a check came to no result. It says nothing of the log.
#[derive(Debug)]
pub struct Undone(pub String);

impl From<Failure> for Undone {
    fn from(failure: Failure) -> Undone {
        Undone(match failure {
            Failure::Said(what) => what,
            Failure::Unheard => "nobody listens".to_owned(),
        })
    }
}

/// What was found wrong and right, of all that was looked at.
#[derive(Default)]
struct Found {
    wrong: Vec<(Trouble, Condition)>,
    right: Vec<Trouble>,
}

impl Found {
    fn wrong(&mut self, kind: Trouble, proven: bool, same: impl ToString, detail: impl ToString) {
        let condition = Condition {
            same: same.to_string(),
            detail: detail.to_string(),
            proven,
            evidence: None,
        };
        self.is_wrong(kind, condition);
    }

    /// What was right at an earlier look is so no more.
    fn is_wrong(&mut self, kind: Trouble, condition: Condition) {
        self.right.retain(|right| *right != kind);
        self.wrong.push((kind, condition));
    }
}

/// How far everything was read again, and up to where it shall be.
#[derive(Serialize, Deserialize)]
struct Reread {
    saved: Saved,
    note: String,
}

impl Watched {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.state().directory.join(name)
    }

    /// Looks at the log, and records what came of it.
    pub fn check(&self) -> Result<(), Undone> {
        let mut found = Found::default();
        let done = self.look(&mut found);
        let Found { wrong, mut right } = found;
        if done.is_ok() {
            right.push(Trouble::Unreachable);
        }
        let mut state = self.state();
        let changed = state.change(wrong, &right, |recorded| {
            if done.is_ok() {
                recorded.checked = now();
            }
        });
        let done = done.and(changed.map_err(Undone::from));
        state.undone = done.as_ref().err().map(|why| why.0.clone());
        done
    }

    fn look(&self, found: &mut Found) -> Result<(), Undone> {
        match self.take_newest(found)? {
            Some(checkpoint) => self.hash(&checkpoint, found),
            None => Ok(()),
        }
    }

    /// Takes the newest checkpoint, if it is one to rely on. If not, what is wrong is recorded.
    fn take_newest(&self, found: &mut Found) -> Result<Option<Checkpoint>, Undone> {
        let newest = match self.followed.newest() {
            Ok(newest) => newest,
            Err(Refusal::Signature { what, proven }) => {
                found.wrong(Trouble::BadSignature, proven, &what, &what);
                return Ok(None);
            }
            Err(refusal) => return Err(Undone(refusal.to_string())),
        };
        found.right.push(Trouble::BadSignature);
        let kept = Kept::new(self.path("checkpoint"));
        let before = kept.read().map_err(|error| Undone(error.to_string()))?;
        if let Some(before) = &before
            && !self.continues(before, &newest, found)?
        {
            return Ok(None);
        }
        if let Err(why) = self.followed.policy.check_quorum(&newest.verified) {
            self.lacks_quorum(why, found)?;
            return Ok(None);
        }
        found.right.push(Trouble::QuorumLost);
        self.state().recorded.without_quorum = 0;
        if before.as_ref() != Some(&newest.note) {
            let replaced = kept
                .lock()
                .and_then(|lock| kept.replace(&newest.note, &lock));
            replaced.map_err(|error| Undone(error.to_string()))?;
        }
        self.grew(&before, &newest, found)?;
        Ok(Some(newest.verified.checkpoint))
    }

    /// Witnesses come a moment after the log has signed; until then the checkpoint is not one to rely on, and nothing is
    /// wrong yet.
    fn lacks_quorum(&self, why: tlog::Error, found: &mut Found) -> Result<(), Undone> {
        let mut state = self.state();
        let since = state.recorded.without_quorum;
        if since == 0 {
            state.change(Vec::new(), &[], |recorded| recorded.without_quorum = now())?;
        }
        let lacked = if since == 0 {
            0
        } else {
            now().saturating_sub(since)
        };
        let is_known = state.recorded.conditions.contains_key(&Trouble::QuorumLost);
        match lacked >= self.quorum_seconds || is_known {
            true => {
                found.wrong(Trouble::QuorumLost, false, "", why);
                Ok(())
            }
            false => Err(Undone(format!(
                "the newest checkpoint has no quorum yet: {why}"
            ))),
        }
    }

    /// Whether the newest checkpoint continues the kept one. If not, what is wrong is recorded.
    fn continues(
        &self,
        before: &SignedNote,
        newest: &Newest,
        found: &mut Found,
    ) -> Result<bool, Undone> {
        match self.followed.continues(before, newest) {
            Ok(()) => {
                found.right.push(Trouble::WentBack);
                return Ok(true);
            }
            Err(Refusal::Fork(fork)) => self.convict(before, &fork, found)?,
            Err(back @ Refusal::WentBack { kept, .. }) => {
                found.wrong(Trouble::WentBack, false, kept, back);
            }
            Err(Refusal::Tiles(what)) => found.wrong(Trouble::TileMismatch, true, &what, &what),
            Err(refusal) => return Err(Undone(refusal.to_string())),
        }
        Ok(false)
    }

    /// Keeps the evidence of a fork, one for each kept checkpoint, before it is told.
    fn convict(
        &self,
        kept: &SignedNote,
        fork: &ForkProof,
        found: &mut Found,
    ) -> Result<(), Undone> {
        let undone = |error: tlog::Error| Undone(error.to_string());
        fork.verify(&self.followed.policy).map_err(undone)?;
        let kept: Checkpoint = kept.text().parse().map_err(undone)?;
        let mut path = self.path(&format!("evidence/fork-{}.json", kept.size()));
        let known = pieces(&self.path("evidence"))?;
        if known.len() >= MOST_EVIDENCE && !known.contains(&path) {
            path = known[0].clone();
        }
        if !path.exists() {
            files::replace(&path, fork.to_json().as_bytes()).map_err(Failure::of(&path))?;
        }
        let condition = Condition {
            same: path.display().to_string(),
            detail: Refusal::Fork(Box::new(fork.clone())).to_string(),
            proven: true,
            evidence: Some(path.display().to_string()),
        };
        found.is_wrong(Trouble::Fork, condition);
        Ok(())
    }

    fn grew(
        &self,
        before: &Option<SignedNote>,
        newest: &Newest,
        found: &mut Found,
    ) -> Result<(), Undone> {
        let mut state = self.state();
        let grew = before.is_none() || state.recorded.size < newest.size();
        if grew {
            found.right.push(Trouble::Stale);
            state.recorded.grew = now();
        }
        state.recorded.size = newest.size();
        // A fork stays proven as long as its evidence is there, whatever the log shows now; also where this ended
        // between keeping the evidence and recording it.
        let is_recorded = state.recorded.conditions.contains_key(&Trouble::Fork);
        match pieces(&state.directory.join("evidence"))?.first() {
            None => found.right.push(Trouble::Fork),
            Some(_) if is_recorded => {}
            Some(path) => {
                let path = path.display().to_string();
                let condition = Condition {
                    same: path.clone(),
                    detail: "the log has signed two histories".to_owned(),
                    proven: true,
                    evidence: Some(path),
                };
                found.is_wrong(Trouble::Fork, condition);
            }
        }
        Ok(())
    }

    /// Hashes what is new, up to the root. That may take days of a large log, and a log that shows another history
    /// meanwhile is told at once.
    fn hash(&self, checkpoint: &Checkpoint, found: &mut Found) -> Result<(), Undone> {
        let path = self.path("hashed.json");
        let saved = files::read(&path).map_err(Failure::of(&path))?;
        let saved = saved.and_then(|content| serde_json::from_slice::<Saved>(&content).ok());
        let resumed = saved.and_then(|saved| Rehash::resume(&saved, self.wanted));
        // What is beyond the checkpoint, or was damaged, is hashed again.
        let resumed = resumed.filter(|rehash| rehash.size() <= checkpoint.size().get());
        let mut rehash = resumed.unwrap_or_else(|| Rehash::new(self.wanted, None));
        let tree = self.tree(checkpoint);
        let mut looked = Instant::now();
        loop {
            match rehash.step(&tree, checkpoint) {
                Ok(done) => {
                    let content = serde_json::to_vec(&rehash.save()).map_err(Failure::from)?;
                    files::replace(&path, &content).map_err(Failure::of(&path))?;
                    self.state().recorded.entries = rehash.entries;
                    if done {
                        found
                            .right
                            .extend([Trouble::TileMismatch, Trouble::EntryMismatch]);
                        return Ok(());
                    }
                    if looked.elapsed() >= self.interval {
                        if self.take_newest(found)?.is_none() {
                            return Ok(());
                        }
                        looked = Instant::now();
                    }
                }
                Err(fault) => {
                    // What was hashed before may have been served falsely then: all is hashed anew.
                    if !matches!(fault, Fault::Unread(_)) {
                        std::fs::remove_file(&path)
                            .or_else(ignore_absent)
                            .map_err(Failure::of(&path))?;
                    }
                    return record(fault, found);
                }
            }
        }
    }

    fn tree(&self, checkpoint: &Checkpoint) -> Tree<'_> {
        Tree {
            transport: &*self.followed.transport,
            retry: &self.followed.retry,
            size: checkpoint.size(),
        }
    }

    /// Reads everything again, for so long at most; it goes on where it was left. True if there is more to read.
    pub fn reread(&self, every: u64, time: Duration) -> Result<bool, Undone> {
        let due = self.state().recorded.reread.saturating_add(every);
        let path = self.path("reread.json");
        let begun = files::read(&path).map_err(Failure::of(&path))?;
        let begun = begun.and_then(|content| serde_json::from_slice::<Reread>(&content).ok());
        let resumed = begun.and_then(|begun| {
            let rehash = Rehash::resume(&begun.saved, self.wanted)?;
            Some((rehash, begun.note))
        });
        let (mut rehash, note) = match resumed {
            Some(resumed) => resumed,
            None if every == 0 || now() < due => return Ok(false),
            None => {
                let kept = Kept::new(self.path("checkpoint")).read();
                match kept.map_err(|error| Undone(error.to_string()))? {
                    Some(note) => (Rehash::new(self.wanted, None), note.text().to_owned()),
                    None => return Ok(false),
                }
            }
        };
        let checkpoint: Checkpoint = note
            .parse()
            .map_err(|error: tlog::Error| Undone(error.to_string()))?;
        let started = Instant::now();
        let mut found = Found::default();
        let done = loop {
            match rehash.step(&self.tree(&checkpoint), &checkpoint) {
                Ok(true) => break Ok(()),
                Ok(false) => {
                    let saved = rehash.save();
                    let note = note.clone();
                    let content =
                        serde_json::to_vec(&Reread { saved, note }).map_err(Failure::from)?;
                    files::replace(&path, &content).map_err(Failure::of(&path))?;
                    if started.elapsed() > time {
                        return Ok(true);
                    }
                }
                Err(fault) => break record(fault, &mut found),
            }
        };
        done?;
        // What was wrong is looked at again from the beginning, at the next check.
        std::fs::remove_file(&path)
            .or_else(ignore_absent)
            .map_err(Failure::of(&path))?;
        if !found.wrong.is_empty() {
            let hashed = self.path("hashed.json");
            std::fs::remove_file(&hashed)
                .or_else(ignore_absent)
                .map_err(Failure::of(&hashed))?;
        }
        self.state()
            .change(found.wrong, &[], |recorded| recorded.reread = now())?;
        Ok(false)
    }

    /// Compares entries with rows, if the database can be asked and it is time to.
    pub fn verify(&self, every: u64, limit: u64) -> Result<(), Undone> {
        const MOST: usize = 100;
        let due = self.state().recorded.verified.saturating_add(every);
        let Some(database) = &self.followed.database else {
            return Ok(());
        };
        if every == 0 || now() < due {
            return Ok(());
        }
        let (findings, more) = database.findings(MOST, Duration::from_secs(limit))?;
        let mut found = Found::default();
        match findings.as_slice() {
            [] => found.right.push(Trouble::Finding),
            findings => {
                let more = if more { " and more" } else { "" };
                let detail = format!("{}{more}: {}", findings.len(), findings.join("; "));
                // A row without an entry may be one that came late, and is logged soon.
                let proven = !findings.iter().all(|line| line.starts_with("unlogged "));
                found.wrong(Trouble::Finding, proven, findings.join("\n"), detail);
            }
        }
        found.right.push(Trouble::Unverified);
        self.state().change(found.wrong, &found.right, |recorded| {
            recorded.verified = now()
        })?;
        Ok(())
    }

    /// What time alone makes wrong.
    pub fn watch(&self, unreachable_seconds: u64, verify_seconds: u64) -> Result<(), Failure> {
        let mut state = self.state();
        let recorded = &state.recorded;
        let mut found = Found::default();
        let unchecked = now().saturating_sub(recorded.checked.max(recorded.since));
        if unchecked > unreachable_seconds {
            let why = state.undone.as_deref().unwrap_or("a check takes longer");
            let detail = format!("no check was completed for {unchecked} seconds: {why}");
            found.wrong(Trouble::Unreachable, false, "", detail);
        }
        let unverified = now().saturating_sub(recorded.verified.max(recorded.since));
        let is_verified = self.followed.database.is_some() && verify_seconds > 0;
        if is_verified && unverified > verify_seconds.saturating_add(unreachable_seconds) {
            let detail = format!(
                "entries were not compared with rows for {unverified} seconds: verify_log fails, or takes longer"
            );
            found.wrong(Trouble::Unverified, false, "", detail);
        }
        let still = now().saturating_sub(recorded.grew);
        if self.stale_seconds.is_some_and(|most| still > most) {
            found.wrong(
                Trouble::Stale,
                false,
                recorded.size,
                format!("the log has not grown for {still} seconds"),
            );
        }
        let known = |(kind, _): &(Trouble, Condition)| recorded.conditions.contains_key(kind);
        match found.wrong.iter().all(known) {
            true => Ok(()),
            false => state.change(found.wrong, &[], |_| {}),
        }
    }
}

/// What a fault says of the log; one that says nothing ends the check.
fn record(fault: Fault, found: &mut Found) -> Result<(), Undone> {
    match fault {
        Fault::Unread(what) => Err(Undone(what)),
        Fault::Entries(tile) => {
            let detail = format!("the entries are not those whose hashes are in {tile}");
            found.wrong(Trouble::EntryMismatch, true, tile, detail);
            Ok(())
        }
        fault => {
            found.wrong(Trouble::TileMismatch, true, &fault, &fault);
            Ok(())
        }
    }
}

/// The files of a directory of evidence, in order.
fn pieces(evidence: &Path) -> Result<Vec<PathBuf>, Undone> {
    let mut pieces = Vec::new();
    for file in std::fs::read_dir(evidence).map_err(Failure::of(evidence))? {
        let path = file.map_err(Failure::of(evidence))?.path();
        // One that is not whole is called otherwise.
        pieces.extend(
            path.extension()
                .is_some_and(|e| e == "json")
                .then_some(path),
        );
    }
    pieces.sort();
    Ok(pieces)
}

fn ignore_absent(error: std::io::Error) -> std::io::Result<()> {
    match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}
