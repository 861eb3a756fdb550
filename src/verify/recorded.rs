//! `merkle_finding`: what continuous verification has found, seen first and last.
//!
//! A finding is open until a later pass does not find it, or somebody acknowledges it. Its row stays: what was changed
//! back was seen all the same. What comes again is a row of its own. A row of a source whose rows may come late is only
//! suspected to be unlogged until a pass sees it after `reconcile` should have logged it.

use super::acknowledged::hex;
use super::finding::{Finding, Kind, Of};
use crate::administration::{self, Act};
use crate::catalog::identity as database;
use crate::catalog::logs::{self, Log};
use crate::error::Error;
use crate::error::FindingError;
use crate::pg::spi::Row;
use crate::pg::xact;
use crate::session::{Session, WITHHELD};
use crate::settings;
use pgrx::datum::TimestampWithTimeZone;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Findings of a log that are open at a time, at most: further ones are counted.
const MOST: usize = 1000;
/// Rows that are only suspected, at most. They take no place of findings, and further ones are not counted: a later pass
/// meets those that are left.
const MOST_SUSPECTED: usize = 1000;
/// Findings of a log that are resolved, and were not acknowledged, of which the rows are kept.
const KEPT: i64 = 10_000;

/// A finding that is not resolved.
struct Known {
    id: i64,
    kind: String,
    open: bool,
    is_suspected: bool,
    /// It was suspected, and for long enough.
    is_confirmed: bool,
}

/// What became of the findings of a slice.
#[derive(Default)]
pub struct Recorded {
    /// The kinds of those that are new.
    pub new: Vec<Kind>,
    /// How many are open now.
    pub open: usize,
    /// How many there was no room for.
    pub left_out: i64,
}

/// What makes a finding the same one in the next pass. Where it has a place, its words do not count: they can hold
/// numbers that move on.
pub fn identity(finding: &Finding) -> Vec<u8> {
    let mut hasher = Sha256::new();
    let mut part = |part: Option<&[u8]>| {
        let length = part.map_or(-1, |p| p.len() as i64);
        hasher.update(length.to_be_bytes());
        hasher.update(part.unwrap_or_default());
    };
    let kind = finding.found_as.unwrap_or(finding.kind);
    let place = finding.leaf_index.map(i64::to_be_bytes);
    part(Some(kind.as_str().as_bytes()));
    part(finding.source_table.as_ref().map(|t| t.as_bytes()));
    part(finding.source_key.as_ref().map(|k| k.as_bytes()));
    part(place.as_ref().map(|p| p.as_slice()));
    part(finding.actual.as_deref());
    part(place.is_none().then_some(finding.detail.as_bytes()));
    part(finding.is_now.as_deref());
    hasher.finalize().to_vec()
}

fn known(session: &Session, log: &Log, pass: i64) -> HashMap<Vec<u8>, Known> {
    let known = session.fresh(
        "SELECT f.identity, f.finding_id, f.kind, f.acknowledged_at IS NULL AND NOT f.is_suspected, f.is_suspected,
                f.is_suspected AND f.pass < $2 AND pg_catalog.clock_timestamp() NOT BETWEEN f.first_seen
                    AND f.first_seen + 2 * COALESCE(l.reconcile_interval, $3 * '1 s'::pg_catalog.interval)
           FROM @extschema@.merkle_finding f JOIN @extschema@.verification_logs l USING (log_id)
          WHERE f.log_id = $1 AND f.resolved_at IS NULL",
        &[
            log.id.into(),
            pass.into(),
            settings::reconcile_interval().as_secs_f64().into(),
        ],
        |row| {
            let known = Known {
                id: row.required(1),
                kind: row.required(2),
                open: row.required(3),
                is_suspected: row.required(4),
                is_confirmed: row.required(5),
            };
            (row.required::<Vec<u8>>(0), known)
        },
    );
    known.into_iter().collect()
}

/// Records what a slice of a pass has found, but for what is nobody's fault.
pub fn record(session: &Session, log: &Log, pass: i64, findings: &[Finding]) -> Recorded {
    let mut recorded = Recorded::default();
    let faults = || findings.iter().filter(|f| f.kind.of() != Of::Nobody);
    if faults().next().is_none() {
        return recorded;
    }
    let mut known = known(session, log, pass);
    recorded.open = known.values().filter(|k| k.open).count();
    let mut suspected = known.values().filter(|k| k.is_suspected).count();
    let mut seen = Vec::new();
    for finding in faults() {
        pgrx::check_for_interrupts!();
        let identity = identity(finding);
        if let Some(known) = known.get_mut(&identity) {
            seen.push(known.id);
            if std::mem::take(&mut known.is_confirmed) {
                confirm(session, known.id);
                recorded.open += 1;
                recorded.new.push(finding.kind);
            }
            // Whoever finds it first may not know yet what it is.
            let is_judged = finding.found_as != Some(finding.kind);
            if is_judged && known.kind != finding.kind.as_str() {
                name(session, known.id, finding);
                finding.kind.as_str().clone_into(&mut known.kind);
            }
            continue;
        }
        if finding.is_tentative && suspected >= MOST_SUSPECTED {
            continue;
        }
        if !finding.is_tentative && recorded.open >= MOST {
            recorded.left_out += 1;
            continue;
        }
        let new = Known {
            id: insert(session, log, pass, &identity, finding),
            kind: finding.kind.as_str().to_owned(),
            open: !finding.is_tentative,
            is_suspected: finding.is_tentative,
            is_confirmed: false,
        };
        known.insert(identity, new);
        match finding.is_tentative {
            true => suspected += 1,
            false => {
                recorded.open += 1;
                recorded.new.push(finding.kind);
            }
        }
    }
    for id in seen {
        session.execute(
            "UPDATE @extschema@.merkle_finding SET pass = $2, last_seen = pg_catalog.clock_timestamp() WHERE finding_id = $1",
            &[id.into(), pass.into()],
        );
    }
    recorded
}

fn insert(session: &Session, log: &Log, pass: i64, identity: &[u8], finding: &Finding) -> i64 {
    let id = session.fresh_one(
        "INSERT INTO @extschema@.merkle_finding (log_id, identity, kind, found_as, source_table, source_key, leaf_index,
                                                   expected, actual, detail, pass, is_suspected)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING finding_id",
        &[
            log.id.into(),
            identity.into(),
            finding.kind.as_str().into(),
            finding.found_as.unwrap_or(finding.kind).as_str().into(),
            finding.source_table.as_deref().into(),
            finding.source_key.as_deref().into(),
            finding.leaf_index.into(),
            finding.expected.as_deref().into(),
            finding.actual.as_deref().into(),
            finding.detail.as_str().into(),
            pass.into(),
            finding.is_tentative.into(),
        ],
        |row| row.required(0),
    );
    id.expect("INSERT … RETURNING returns a row")
}

/// Lets a finding that was suspected be open.
fn confirm(session: &Session, id: i64) {
    session.execute(
        "UPDATE @extschema@.merkle_finding SET is_suspected = false WHERE finding_id = $1",
        &[id.into()],
    );
}

/// Says what a finding has turned out to be.
fn name(session: &Session, id: i64, finding: &Finding) {
    session.execute(
        "UPDATE @extschema@.merkle_finding SET kind = $2, detail = $3 WHERE finding_id = $1",
        &[
            id.into(),
            finding.kind.as_str().into(),
            finding.detail.as_str().into(),
        ],
    );
}

/// What this pass has found and what may turn out to be something else when all is read, as it was found.
pub fn unexplained(session: &Session, log: &Log, pass: i64) -> Vec<Finding> {
    let found = session.fresh(
        "SELECT f.found_as, f.source_table, f.source_key, f.leaf_index, f.expected, f.actual
           FROM @extschema@.merkle_finding f
          WHERE f.log_id = $1 AND f.pass = $2 AND f.resolved_at IS NULL
            AND f.found_as IN ('modified', 'deleted') AND f.leaf_index IS NOT NULL",
        &[log.id.into(), pass.into()],
        |row: &Row| {
            let kind = Kind::from_name(&row.required::<String>(0))?;
            Some(Finding {
                found_as: Some(kind),
                source_table: row.get(1),
                source_key: row.get(2),
                expected: row.get(4),
                actual: row.get(5),
                ..Finding::of_log(kind, row.get(3), Finding::of_row(kind).to_owned())
            })
        },
    );
    found.into_iter().flatten().collect()
}

/// Resolves what a pass that has read everything did not find any more. What was only suspected was no finding.
pub fn resolve(session: &Session, log: &Log, pass: i64) {
    let args = [log.id.into(), pass.into()];
    session.execute(
        "DELETE FROM @extschema@.merkle_finding
          WHERE log_id = $1 AND resolved_at IS NULL AND pass < $2 AND is_suspected",
        &args,
    );
    let resolved = session.fresh(
        "UPDATE @extschema@.merkle_finding SET resolved_at = pg_catalog.clock_timestamp()
          WHERE log_id = $1 AND resolved_at IS NULL AND pass < $2 RETURNING finding_id",
        &args,
        |_| (),
    );
    if !resolved.is_empty() {
        session.execute(
            "DELETE FROM @extschema@.merkle_finding WHERE finding_id IN (
                 SELECT f.finding_id FROM @extschema@.merkle_finding f
                  WHERE f.log_id = $1 AND f.resolved_at IS NOT NULL AND f.acknowledged_at IS NULL
                  ORDER BY f.resolved_at DESC, f.finding_id DESC OFFSET $2)",
            &[log.id.into(), KEPT.into()],
        );
    }
}

/// Tells those who LISTEN on channel `merkle_log_finding`, as `heads::notify` does: kinds and numbers, and no keys.
pub fn notify(session: &Session, log: &Log, recorded: &Recorded) {
    let mut kinds: Vec<String> = recorded.new.iter().map(|k| k.as_str().to_owned()).collect();
    kinds.sort();
    kinds.dedup();
    session.execute(
        "SELECT pg_catalog.pg_notify('merkle_log_finding', pg_catalog.json_build_object(
            'log', $1::pg_catalog.text, 'kinds', $2::pg_catalog.text[], 'open', $3::pg_catalog.int8)::pg_catalog.text)
          WHERE pg_catalog.pg_notification_queue_usage() < 0.5",
        &[
            log.name.as_str().into(),
            kinds.into(),
            (recorded.open as i64).into(),
        ],
    );
}

/// A finding, as the caller may see it.
pub struct Shown {
    pub id: i64,
    pub log_name: String,
    pub state: String,
    pub kind: String,
    pub source_table: Option<String>,
    pub source_key: Option<String>,
    pub leaf_index: Option<i64>,
    pub expected: Option<Vec<u8>>,
    pub actual: Option<Vec<u8>>,
    pub detail: String,
    pub first_seen: TimestampWithTimeZone,
    pub last_seen: TimestampWithTimeZone,
    pub resolved_at: Option<TimestampWithTimeZone>,
    pub acknowledged_at: Option<TimestampWithTimeZone>,
    pub acknowledged_by: Option<String>,
    pub reason: Option<String>,
}

/// The findings of a log, or of all: those that are open first, the newest first. Keys, hashes and words are for who
/// may read every source of the log, as those of `verify_log` are.
pub fn list(session: &Session, log: Option<&Log>) -> Result<Vec<Shown>, Error> {
    let rows: Vec<(i32, Shown)> = session.read(
        "SELECT f.log_id, f.finding_id, l.log_name,
                CASE WHEN f.resolved_at IS NOT NULL THEN 'resolved' WHEN f.acknowledged_at IS NOT NULL THEN 'acknowledged'
                     ELSE 'open' END AS state,
                f.kind, f.source_table, f.source_key, f.leaf_index, f.expected, f.actual, f.detail, f.first_seen,
                f.last_seen, f.resolved_at, f.acknowledged_at, f.acknowledged_by, f.reason
           FROM @extschema@.merkle_finding f JOIN @extschema@.verification_logs l USING (log_id)
          WHERE ($1 IS NULL OR f.log_id = $1) AND NOT f.is_suspected
          ORDER BY f.resolved_at IS NOT NULL, f.acknowledged_at IS NOT NULL, f.finding_id DESC",
        &[log.map(|log| log.id).into()],
        |row| {
            let shown = Shown {
                id: row.required(1),
                log_name: row.required(2),
                state: row.required(3),
                kind: row.required(4),
                source_table: row.get(5),
                source_key: row.get(6),
                leaf_index: row.get(7),
                expected: row.get(8),
                actual: row.get(9),
                detail: row.required(10),
                first_seen: row.required(11),
                last_seen: row.required(12),
                resolved_at: row.get(13),
                acknowledged_at: row.get(14),
                acknowledged_by: row.get(15),
                reason: row.get(16),
            };
            (row.required(0), shown)
        },
    );
    let mut readable: HashMap<i32, bool> = HashMap::new();
    let mut shown = Vec::with_capacity(rows.len());
    for (log_id, finding) in rows {
        let reads = match readable.entry(log_id) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let log = logs::by_id(session, log_id);
                let reads = log.map(|log| session.caller_may_read_log(&log));
                *new.insert(reads.transpose()?.unwrap_or(false))
            }
        };
        shown.push(match reads {
            true => finding,
            false => Shown {
                source_key: None,
                expected: None,
                actual: None,
                detail: WITHHELD.to_owned(),
                reason: finding.reason.map(|_| WITHHELD.to_owned()),
                ..finding
            },
        });
    }
    Ok(shown)
}

/// Says that somebody has looked at a finding: it is open no more, and that is on record.
pub fn acknowledge(session: &Session, id: i64, reason: &str) -> Result<(), Error> {
    database::check(session)?;
    let found = session.fresh_one(
        "SELECT f.log_id, f.identity, f.kind, f.leaf_index, f.source_table, f.resolved_at IS NOT NULL, f.acknowledged_by
           FROM @extschema@.merkle_finding f WHERE f.finding_id = $1 AND NOT f.is_suspected FOR UPDATE",
        &[id.into()],
        |row| {
            let detail = json!({
                "finding": id, "identity": hex(&row.required::<Vec<u8>>(1)), "kind": row.required::<String>(2),
                "leaf_index": row.get::<i64>(3), "source_table": row.get::<String>(4), "reason": reason,
            });
            let (is_resolved, by) = (row.required::<bool>(5), row.get::<String>(6));
            (row.required::<i32>(0), detail, is_resolved, by)
        },
    );
    let missing = Error::Finding(FindingError::Missing { finding: id });
    let (log_id, detail, is_resolved, by) = found.ok_or(missing)?;
    let log = logs::by_id(session, log_id);
    let log = log.ok_or(Error::Finding(FindingError::Missing { finding: id }))?;
    if !session.caller_may_read_log(&log)? {
        return Err(Error::MayNotReadLog { log: log.name });
    }
    if let Some(by) = by {
        return Err(Error::Finding(FindingError::Acknowledged {
            finding: id,
            by,
        }));
    }
    if is_resolved {
        return Err(Error::Finding(FindingError::Resolved { finding: id }));
    }
    let at = TimestampWithTimeZone::try_from(xact::statement_start());
    session.execute(
        "UPDATE @extschema@.merkle_finding
            SET acknowledged_at = $2, acknowledged_by = $3, reason = $4 WHERE finding_id = $1",
        &[
            id.into(),
            at.ok().into(),
            xact::session_user().as_ref().into(),
            reason.into(),
        ],
    );
    administration::record(session, Act::FindingAcknowledged { log_id, detail });
    Ok(())
}

/// How many findings of a log are open, by kind.
pub fn open_by_kind(session: &Session, log_id: i32) -> Vec<(String, i64)> {
    session.fresh(
        "SELECT f.kind, pg_catalog.count(*) FROM @extschema@.merkle_finding f
          WHERE f.log_id = $1 AND f.resolved_at IS NULL AND f.acknowledged_at IS NULL AND NOT f.is_suspected
          GROUP BY f.kind ORDER BY f.kind",
        &[log_id.into()],
        |row| (row.required(0), row.required(1)),
    )
}
