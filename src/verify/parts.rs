//! A verification by several processes, each of which checks a part of the entries.
//!
//! What concerns single entries, a helper says; what concerns the log is put together here. Helpers
//! cannot go on after an error, such as a key that is no value of its type makes: then the entries are
//! checked again by this process, which can.

use super::batches::Batches;
use super::finding::{Finding, Kind};
use super::orders::OrderNotes;
use super::rows::Notes;
use super::walk::Stray;
use super::{CHUNK, Checked, PENDING, Verification};
use crate::capture::gather;
use crate::error::Error;
use crate::pg::parallel::{self, Helper};
use crate::pg::spi::Snapshot;
use crate::pg::subtransaction;
use crate::session::Session;
use merkle_tree::Hash;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use serde::{Deserialize, Serialize};

/// Fewer entries than this are not worth the start of a helper.
const WORTH: i64 = 32 * CHUNK;
/// More helpers than this are not asked for: then each part has entries, however it is rounded.
const MOST: i64 = 32;

/// What a helper is asked to check: entries, and of those the ones to tell of.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Part {
    pub log: String,
    pub next: i64,
    pub end: i64,
    pub from: i64,
    pub to: i64,
    pub whole: bool,
}

/// What a helper says.
#[derive(Serialize, Deserialize)]
enum Answer {
    Found(Vec<Finding>),
    Done(Box<Outcome>),
}

/// What is left of a part when its entries are checked.
#[derive(Serialize, Deserialize)]
struct Outcome {
    /// The roots of the trees before the part's first entry and after its last; `None` where a gap makes
    /// it unknowable.
    before: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
    /// Findings that another row may explain, by the leaf hash that it would have.
    pending: Vec<(Vec<u8>, Vec<Finding>)>,
    strays: Vec<Stray>,
    checked: Checked,
    notes: Notes,
    orders: OrderNotes,
    batches: Batches,
}

impl Verification {
    /// Has `workers` helpers check the entries, as far as the server allows as many.
    pub(super) fn by_parts(&mut self, workers: i32) {
        let entries = self.end - self.next;
        let workers = i64::from(workers).min(entries / WORTH).min(MOST);
        // Helpers do not see what the transaction has captured and not queued.
        if workers < 2 || !gather::is_empty() {
            return;
        }
        let length = (entries / workers / CHUNK + 1) * CHUNK;
        let part = |n: i64| Part {
            log: self.log.name.clone(),
            next: self.next + n * length,
            end: self.end.min(self.next + (n + 1) * length),
            from: self.from,
            to: self.to,
            whole: self.whole,
        };
        let parts: Vec<Part> = (0..workers).map(part).collect();
        let Ok(Some((found, outcomes))) = subtransaction::run(|| ask(&parts)) else {
            return;
        };
        self.found = found;
        for (outcome, part) in outcomes.into_iter().zip(parts) {
            self.absorb(outcome, &part);
        }
        self.next = self.end;
        self.progress.done(self.checked.entries);
    }

    fn absorb(&mut self, outcome: Outcome, part: &Part) {
        if let (Some(ours), Some(theirs)) = (&self.reached, &outcome.before)
            && ours != theirs
        {
            self.found.push(Finding {
                expected: Some(ours.clone()),
                actual: Some(theirs.clone()),
                ..Finding::of_log(
                    Kind::TileMismatch,
                    Some(part.next),
                    format!(
                        "the tiles before entry {} are not those of the entries",
                        part.next
                    ),
                )
            });
        }
        self.reached = outcome.after;
        for (hash, findings) in outcome.pending {
            match Hash::try_from(hash.as_slice()) {
                Ok(hash) if self.pending_count < PENDING => {
                    self.pending_count += findings.len();
                    self.pending.entry(hash).or_default().extend(findings);
                }
                _ => self.found.extend(findings),
            }
        }
        self.strays.extend(outcome.strays);
        self.checked.add(&outcome.checked);
        self.rows.absorb(outcome.notes);
        self.orders.absorb(outcome.orders, &self.rows.shapes());
        self.batches.absorb(outcome.batches);
    }

    /// The helper's side.
    fn serve(
        mut self,
        session: &Session,
        say: &mut dyn FnMut(Answer) -> bool,
    ) -> Result<(), Error> {
        let root = |this: &Verification| {
            let frontier = this.frontier.as_ref();
            frontier.map(|f| f.root().as_bytes().to_vec())
        };
        let before = root(&self);
        while self.next < self.end {
            pgrx::check_for_interrupts!();
            let findings = self.entries(session)?;
            self.batches.note(&findings);
            self.progress.done(self.checked.entries);
            if !findings.is_empty() && !say(Answer::Found(findings)) {
                return Ok(());
            }
        }
        let after = root(&self);
        say(Answer::Done(Box::new(Outcome {
            before,
            after,
            pending: self
                .pending
                .into_iter()
                .map(|(hash, findings)| (hash.as_bytes().to_vec(), findings))
                .collect(),
            strays: self.strays,
            checked: self.checked,
            orders: self.orders.notes(),
            batches: self.batches,
            notes: self.rows.notes(),
        })));
        Ok(())
    }
}

/// Findings and outcomes, in the order of the parts; `None` if not all of them could be given to someone.
fn ask(parts: &[Part]) -> Option<(Vec<Finding>, Vec<Outcome>)> {
    let start = |part: &Part| {
        let request = serde_json::to_vec(part).expect("texts and numbers are JSON");
        Helper::start(c"merkle_log_verify_part", &request, Snapshot::Statement)
    };
    let helpers: Vec<Helper> = parts.iter().map_while(start).collect();
    let all_there = helpers.len() == parts.len();
    let (mut found, mut outcomes) = (Vec::new(), Vec::new());
    for mut helper in helpers {
        while all_there && let Some(answer) = helper.receive() {
            match serde_json::from_slice(answer).expect("written by this library") {
                Answer::Found(findings) => found.extend(findings),
                Answer::Done(outcome) => outcomes.push(*outcome),
            }
        }
        helper.finish();
    }
    (outcomes.len() == parts.len()).then_some((found, outcomes))
}

/// A helper process begins here.
///
/// # Safety
/// Called by the server with the segment that the leader made.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn merkle_log_verify_part(
    segment: *mut pg_sys::dsm_segment,
    toc: *mut pg_sys::shm_toc,
) {
    let work = |request: &[u8], send: &mut dyn FnMut(&[u8]) -> bool| {
        let part: Part = serde_json::from_slice(request).expect("written by this library");
        let mut say =
            |answer: Answer| send(&serde_json::to_vec(&answer).expect("all of it is JSON"));
        let served: Result<(), ErrorReport> = Session::enter(|session| {
            Verification::of_part(session, part)?.serve(session, &mut say)
        });
        if let Err(report) = served {
            Error::raise_report(report);
        }
    };
    // SAFETY: these are the arguments of the function that `ask` names.
    unsafe { parallel::serve(segment, toc, work) }
}
