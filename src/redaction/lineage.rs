//! Entries of a row under other keys that it had.
//!
//! A key has one row after the other: a life begins with an `insert` and ends with a `delete` or a truncation. Where an
//! UPDATE changed the key of a row, its life under one key goes on under the other, and the log knows which two entries
//! are the halves of that UPDATE (`store::moves`). The row that a call means is the one that has the key now or had it
//! last, so that row is followed. Other rows that had the key before are not: redacting them may not be meant.

use crate::capture::given_key::GivenKey;
use crate::capture::row_key::Finder;
use crate::catalog::logs::Log;
use crate::catalog::sources::Source;
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::entries;
use crate::store::moves::{self, Half, Step};

/// Keys that a message names.
const NAMED: usize = 10;

/// Where else a row is.
#[derive(Debug, Default)]
pub struct Lineage {
    /// Its entries under keys that it has no more, and these keys.
    pub entries: Vec<i64>,
    pub earlier: Vec<String>,
    /// Its key now, if it is another.
    pub now: Option<String>,
    /// Other keys of rows that had the key before it.
    pub others: Vec<String>,
    /// Keys under which the row may have been as well: entries of version 0.3.0 and before do not say it.
    pub untold: Vec<String>,
}

struct Tracer<'a> {
    session: &'a Session,
    log: &'a Log,
    source: &'a Source,
    finder: &'a Finder,
    found: Lineage,
}

impl Step {
    fn begins(&self) -> bool {
        self.kind == "insert"
    }

    fn ends(&self) -> bool {
        matches!(self.kind.as_str(), "delete" | "truncate")
    }
}

/// Where the row is that a source has or had last under the key `text`.
pub fn of(
    session: &Session,
    log: &Log,
    source: &Source,
    finder: &Finder,
    text: &str,
) -> Result<Lineage, Error> {
    let mut tracer = Tracer {
        session,
        log,
        source,
        finder,
        found: Lineage::default(),
    };
    let steps = tracer.steps_of(text)?;
    let begin = steps.iter().rposition(Step::begins).unwrap_or(0);
    if let Some(first) = steps.get(begin) {
        tracer.follow_back(first.clone())?;
    }
    if let Some(last) = steps.last() {
        tracer.follow_on(last.clone())?;
    }
    for step in &steps[..begin] {
        let others = tracer.other_half(step).map(|half| half.key);
        tracer.found.others.extend(others);
    }
    let ends = |step: &&Step| step.tag.is_empty() && (step.begins() || step.kind == "delete");
    let untagged = steps.iter().filter(ends).map(|step| step.index).collect();
    let limit = NAMED as i64 + 1;
    tracer.found.untold = moves::candidates(session, log, source.id, untagged, limit);
    let Lineage {
        entries,
        earlier,
        now,
        mut others,
        mut untold,
    } = tracer.found;
    for keys in [&mut others, &mut untold] {
        keys.retain(|key| key != text && !earlier.contains(key) && now.as_ref() != Some(key));
        keys.sort();
        keys.dedup();
    }
    Ok(Lineage {
        entries,
        earlier,
        now,
        others,
        untold,
    })
}

impl Tracer<'_> {
    fn steps_of(&self, text: &str) -> Result<Vec<Step>, Error> {
        let (session, log, id) = (self.session, self.log, self.source.id);
        let key = self.finder.key(session, GivenKey::Text(text))?;
        let indexes = entries::of_row(session, Snapshot::Fresh, log, id, &key)?;
        Ok(moves::steps(session, log, indexes))
    }

    fn other_half(&self, step: &Step) -> Option<Half> {
        let half = moves::other_half(self.session, self.log, self.source.id, step)?;
        let key = moves::name_now(self.session, self.log, self.source.id, &half);
        Some(Half { key, ..half })
    }

    /// From the entry with which a life began to the lives before it.
    fn follow_back(&mut self, first: Step) -> Result<(), Error> {
        let mut begin = Some(first);
        while let Some(step) = begin.take().filter(Step::begins)
            && let Some(half) = self.other_half(&step)
            && half.index < step.index
        {
            let life = self.steps_of(&half.key)?;
            let mut life: Vec<Step> = life.into_iter().filter(|s| s.index <= half.index).collect();
            while let Some(step) = life.pop()
                && (step.index == half.index || !step.ends())
            {
                self.found.entries.push(step.index);
                if step.begins() {
                    begin = Some(step);
                    break;
                }
            }
            self.note(half.key);
        }
        Ok(())
    }

    /// From the entry with which a life ended to the lives after it.
    fn follow_on(&mut self, last: Step) -> Result<(), Error> {
        let mut end = Some(last);
        while let Some(step) = end.take().filter(Step::ends)
            && let Some(half) = self.other_half(&step)
            && half.index > step.index
        {
            let life = self.steps_of(&half.key)?;
            let life = life.into_iter().filter(|s| s.index >= half.index);
            let mut indexes = Vec::new();
            for step in life {
                // Where another row begins, the end of this one was not seen.
                let over = step.ends() || step.begins() && step.index > half.index;
                if !over || step.kind == "delete" {
                    indexes.push(step.index);
                }
                if over {
                    end = Some(step);
                    break;
                }
            }
            if end.is_none() {
                self.found.now = Some(half.key);
                return Ok(());
            }
            self.found.entries.extend(indexes);
            self.note(half.key);
        }
        Ok(())
    }

    fn note(&mut self, key: String) {
        if !self.found.earlier.contains(&key) {
            self.found.earlier.push(key);
        }
    }
}

/// Keys for a message, not all where there are many.
pub fn named(keys: &[String]) -> String {
    let shown = keys.iter().take(NAMED).cloned().collect::<Vec<_>>();
    match keys.len() > NAMED {
        true => format!("{} and others", shown.join(", ")),
        false => shown.join(", "),
    }
}
