//! What is said when all is read: of findings that waited for an explanation, and how much was checked.

use super::finding::{Finding, Kind};
use super::{Checked, Verification};
use crate::session::Session;
use crate::store::late;

impl Verification {
    /// Findings about leaf indexes that were not asked for are not told.
    pub(super) fn asked_for(&self, leaf_index: i64) -> bool {
        (self.from..self.to).contains(&leaf_index)
    }

    /// The findings that nothing has explained.
    pub(super) fn give_up_pending(&mut self) -> Vec<Finding> {
        self.pending_count = 0;
        let mut findings: Vec<_> = self.pending.drain().flat_map(|(_, f)| f).collect();
        findings.sort_by_key(|f| f.leaf_index);
        let captured: Vec<&str> = self.rows.captured();
        // A row is not to blame where what its batch recorded about it was altered, nor a captured one whose last
        // entry may be one that is missing.
        for finding in &mut findings {
            let blames_captured = matches!(finding.kind, Kind::Modified | Kind::Deleted)
                && finding
                    .source_table
                    .as_deref()
                    .is_some_and(|t| captured.contains(&t));
            if blames_captured && self.batches.is_unfound(finding) {
                finding.kind = Kind::IndexMismatch;
                finding.detail = format!(
                    "{}; but a later entry of the row is not found by its key",
                    finding.detail
                );
                continue;
            }
            let has_lost = blames_captured && self.batches.entries_missing();
            if has_lost || finding.leaf_index.is_some_and(|at| self.batches.doubts(at)) {
                finding.kind = Kind::MetadataAltered;
                finding.detail = format!(
                    "{}; and what its batch recorded beside the hashes was altered",
                    finding.detail
                );
                self.batches.note_place(finding.leaf_index);
            }
        }
        findings.extend(self.batches.findings());
        findings
    }

    pub(super) fn report(&self, session: &Session) {
        if self.pass.is_some() {
            return;
        }
        let Checked {
            entries,
            rows,
            tiles,
            heads,
            scanned,
            ..
        } = self.checked;
        let scan = match self.whole {
            true => format!(", {scanned} rows behind the watermark looked up"),
            false => String::new(),
        };
        let pruned = match self.log.pruned_to {
            0 => String::new(),
            before => format!("; entries before {before} were pruned and cannot be checked"),
        };
        let late = match late::count(session, &self.log) {
            0 => String::new(),
            count => format!("; {count} entries came late: see late_entries"),
        };
        pgrx::notice!(
            "log \"{}\": {entries} entries, {rows} source rows, {tiles} tile hashes and {heads} tree heads checked{scan}{pruned}{late}",
            self.log.name
        );
    }
}
