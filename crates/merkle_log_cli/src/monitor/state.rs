//! What the monitor keeps of one log, on disk before anyone relies on it.
//!
//! | file | content |
//! | --- | --- |
//! | `checkpoint` | the last checkpoint that continued the one before it |
//! | `state.json` | what is wrong, what is to be told to whom, and when what was done |
//! | `hashed.json`, `reread.json` | how far the entries were hashed, and hashed again |
//! | `evidence/fork-<size>.json` | proofs that the log has signed two histories |
//!
//! What is wrong and what is to be told of it are in one file: they change together, whenever the process ends.

use super::event::{Condition, Event, Trouble};
use crate::files;
use crate::follow::now;
use crate::output::{Failure, time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// So many events wait at most; the oldest ones give way.
const MOST_PENDING: usize = 10_000;

/// Characters of a detail.
const LONGEST: usize = 2_000;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    pub conditions: BTreeMap<Trouble, Condition>,
    pub pending: Vec<Pending>,
    next_event: u64,
    /// Events that gave way to others before they were told.
    pub lost: u64,
    /// When the log was first looked at.
    pub since: u64,
    /// When a check last came to a result, good or bad.
    pub checked: u64,
    /// When the log was last seen to have grown.
    pub grew: u64,
    pub reread: u64,
    pub verified: u64,
    /// Since when the newest checkpoint has had no quorum; 0 if it has one.
    #[serde(default)]
    pub without_quorum: u64,
    pub size: u64,
    pub entries: u64,
}

/// An event, and who has not been told yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pending {
    pub event: Event,
    pub to: BTreeSet<String>,
}

#[derive(Debug)]
pub struct State {
    pub log: String,
    pub origin: String,
    pub directory: PathBuf,
    /// Everyone who is told.
    tells: BTreeSet<String>,
    pub recorded: Recorded,
    /// Why the last check came to no result.
    pub undone: Option<String>,
}

impl State {
    pub fn open(
        directory: &Path,
        log: &str,
        origin: &str,
        tells: BTreeSet<String>,
    ) -> Result<State, Failure> {
        let directory = directory.join(log);
        let evidence = directory.join("evidence");
        std::fs::create_dir_all(&evidence).map_err(Failure::of(&evidence))?;
        let path = directory.join("state.json");
        let mut recorded = match files::read(&path).map_err(Failure::of(&path))? {
            Some(content) => serde_json::from_slice::<Recorded>(&content)
                .map_err(|error| Failure::Said(format!("{}: {error}", path.display())))?,
            None => Recorded {
                since: now(),
                grew: now(),
                // The first hashing reads everything.
                reread: now(),
                ..Recorded::default()
            },
        };
        // Nobody will ever ask for what was meant for one who is not told any more.
        for pending in &mut recorded.pending {
            pending.to.retain(|name| tells.contains(name));
        }
        recorded.pending.retain(|pending| !pending.to.is_empty());
        Ok(State {
            log: log.to_owned(),
            origin: origin.to_owned(),
            directory,
            tells,
            recorded,
            undone: None,
        })
    }

    /// Sets what is wrong, and what is right of all that was looked at. What is new is to be told.
    pub fn change(
        &mut self,
        wrong: Vec<(Trouble, Condition)>,
        right: &[Trouble],
        record: impl FnOnce(&mut Recorded),
    ) -> Result<(), Failure> {
        let before = self.recorded.clone();
        for (kind, condition) in wrong {
            let known = self.recorded.conditions.get(&kind);
            if known.is_none_or(|known| known.same != condition.same) {
                self.tell(kind.as_str(), None, &condition);
                self.recorded.conditions.insert(kind, condition);
            }
        }
        for kind in right {
            if let Some(condition) = self.recorded.conditions.remove(kind) {
                self.tell("recovered", Some(*kind), &condition);
            }
        }
        record(&mut self.recorded);
        self.save().inspect_err(|_| self.recorded = before)
    }

    fn tell(&mut self, event: &str, was: Option<Trouble>, condition: &Condition) {
        let event = Event {
            id: format!("{}-{}", self.log, self.recorded.next_event),
            time: time(now()),
            log: self.log.clone(),
            origin: self.origin.clone(),
            event: event.to_owned(),
            was,
            proven: condition.proven && was.is_none(),
            detail: condition.detail.chars().take(LONGEST).collect(),
            evidence: condition.evidence.clone(),
        };
        self.recorded.next_event += 1;
        self.recorded.pending.push(Pending {
            event,
            to: self.tells.clone(),
        });
        if self.recorded.pending.len() > MOST_PENDING {
            self.recorded.pending.remove(0);
            self.recorded.lost += 1;
        }
    }

    /// The oldest event that someone has not been told.
    pub fn next_for(&self, name: &str) -> Option<&Event> {
        let mut pending = self.recorded.pending.iter();
        let next = pending.find(|pending| pending.to.contains(name));
        next.map(|pending| &pending.event)
    }

    pub fn was_told(&mut self, name: &str, id: &str) -> Result<(), Failure> {
        for pending in &mut self.recorded.pending {
            if pending.event.id == id {
                pending.to.remove(name);
            }
        }
        self.recorded
            .pending
            .retain(|pending| !pending.to.is_empty());
        self.save()
    }

    fn save(&self) -> Result<(), Failure> {
        let path = self.directory.join("state.json");
        let content = serde_json::to_vec(&self.recorded)?;
        files::replace(&path, &content).map_err(Failure::of(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(same: &str) -> Condition {
        Condition {
            same: same.to_owned(),
            detail: format!("detail of {same}"),
            proven: true,
            evidence: None,
        }
    }

    fn open(directory: &Path, tells: &[&str]) -> State {
        let tells = tells.iter().map(|name| name.to_string()).collect();
        State::open(directory, "audit", "example.com/audit", tells).unwrap()
    }

    fn told(state: &mut State, name: &str) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(event) = state.next_for(name).cloned() {
            state.was_told(name, &event.id).unwrap();
            told.push(format!("{} {}", event.id, event.event));
        }
        told
    }

    #[test]
    fn each_thing_is_told_once_to_each_until_it_changes_also_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut state = open(directory.path(), &["a", "b"]);
        for same in ["1", "1", "2", "2"] {
            state
                .change(vec![(Trouble::Fork, condition(same))], &[], |_| {})
                .unwrap();
            state = open(directory.path(), &["a", "b"]);
        }
        assert_eq!(told(&mut state, "a"), ["audit-0 fork", "audit-1 fork"]);
        state = open(directory.path(), &["a", "b"]);
        assert_eq!(told(&mut state, "a"), [""; 0]);
        assert_eq!(told(&mut state, "b"), ["audit-0 fork", "audit-1 fork"]);
        for _ in 0..2 {
            state.change(Vec::new(), &[Trouble::Fork], |_| {}).unwrap();
        }
        assert_eq!(told(&mut state, "a"), ["audit-2 recovered"]);
        // One who is told no more keeps nothing.
        let state = open(directory.path(), &["a"]);
        assert!(state.recorded.pending.is_empty());
    }

    #[test]
    fn what_waits_is_bounded_and_what_gave_way_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let mut state = open(directory.path(), &["a"]);
        for number in 0..MOST_PENDING + 3 {
            state.tell("fork", None, &condition(&number.to_string()));
        }
        assert_eq!(state.recorded.pending.len(), MOST_PENDING);
        assert_eq!(state.recorded.lost, 3);
        assert_eq!(state.next_for("a").unwrap().id, "audit-3");
    }

    #[test]
    fn a_state_that_cannot_be_read_is_an_error_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        open(directory.path(), &[])
            .change(Vec::new(), &[], |_| {})
            .unwrap();
        let path = directory.path().join("audit/state.json");
        std::fs::write(&path, "{").unwrap();
        let opened = State::open(directory.path(), "audit", "o", BTreeSet::new());
        assert!(opened.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"{");
    }
}
