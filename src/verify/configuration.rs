//! The configuration tables against what is on record in the administration log.

use super::Verification;
use super::finding::{Finding, Kind};
use crate::administration::replay::{Problem, Replay, replay};
use crate::administration::state::{self, Configuration, Row};
use crate::capture::shape::bound_here;
use crate::catalog::logs::{self, ADMINISTRATION, ADMINISTRATION_NAME};
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::heads;
use crate::store::late::{self, Group};
use merkle_tree::Hash;
use pgrx::pg_sys;
use serde_json::Value as Json;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// What is on record, or why nothing is.
pub struct Record {
    pub replay: Option<Rc<Replay>>,
    problem: Option<Problem>,
}

impl Record {
    /// For who takes the configuration as it is stored.
    pub fn none() -> Record {
        Record {
            replay: None,
            problem: None,
        }
    }

    pub fn load(session: &Session) -> Record {
        match replay(session) {
            Ok(replay) => Record {
                replay: Some(Rc::new(replay)),
                problem: None,
            },
            Err(problem) => Record {
                replay: None,
                problem: Some(problem),
            },
        }
    }

    /// As `load`, but what this process has replayed before is not replayed again while the administration log has
    /// the same tree head. For slices of a pass, whose first slice has loaded it.
    pub fn replayed(session: &Session) -> Record {
        let head = logs::administration(session)
            .and_then(|log| heads::latest(session, Snapshot::Statement, &log))
            .ok()
            .map(|head| (head.tree_size, head.root));
        let known = REPLAYED.with_borrow(|known| {
            let known = known.as_ref().filter(|known| head == Some(known.head));
            known.map(|known| known.replay.clone())
        });
        if known.is_some() {
            return Record {
                replay: known,
                problem: None,
            };
        }
        let record = Record::load(session);
        let replayed = head.zip(record.replay.clone());
        REPLAYED.set(replayed.map(|(head, replay)| Replayed { head, replay }));
        record
    }
}

/// A replay, and the size and root that the administration log had then.
struct Replayed {
    head: (i64, Hash),
    replay: Rc<Replay>,
}

thread_local! {
    /// What was replayed last.
    static REPLAYED: RefCell<Option<Replayed>> = const { RefCell::new(None) };
}

/// Columns of a source that batches move on; what they must be, the entries say.
const MOVING: [&str; 2] = ["watermark", "backfill"];

impl Verification {
    pub(super) fn configuration(&mut self, session: &Session) -> Result<Vec<Finding>, Error> {
        let ours = self.log.id == ADMINISTRATION;
        let unrecorded = |detail: String| vec![Finding::of_log(Kind::Unrecorded, None, detail)];
        let replay = match (&self.record.replay, &self.record.problem) {
            (Some(replay), _) => replay,
            (None, Some(Problem::Empty)) => {
                return Ok(match logs::ids(session).len() {
                    0 | 1 => Vec::new(),
                    _ => unrecorded(
                        "nothing is on record in the administration log; the next batch of any log records what is configured, as adopted".to_owned(),
                    ),
                });
            }
            // Verifying the administration log itself names the entries.
            (None, _) if ours => return Ok(Vec::new()),
            (None, problem) => {
                let why = match problem {
                    Some(Problem::Damaged(why)) => why.as_str(),
                    _ => "it cannot be read",
                };
                return Ok(unrecorded(format!(
                    "the administration log is damaged: {why}; verify_log('{ADMINISTRATION_NAME}') says where"
                )));
            }
        };
        let (recorded, scope) = match ours {
            true => (replay.configuration.clone(), None),
            false => (replay.of_log(self.log.id.into()), Some(self.log.id)),
        };
        let stored = state::all(session, Snapshot::Statement, scope);
        let stored: Vec<Row> = stored.into_iter().filter(|row| !is_own(row)).collect();
        let mut findings = compare(&recorded, stored);
        // Every log depends on this one's row; only its own verification looks at what belongs to no log.
        let own = state::all(session, Snapshot::Statement, Some(ADMINISTRATION));
        findings.extend(own.iter().find(|row| is_own(row)).and_then(own_row));
        if ours {
            findings.extend(orphans(session));
        }
        findings.extend(relations(session, &recorded));
        findings.extend(self.late(session, replay));
        findings.extend(self.acknowledged(session, replay));
        Ok(findings)
    }
}

impl Verification {
    /// The entries that came late, against those that are on record as such.
    fn late(&self, session: &Session, replay: &Replay) -> Vec<Finding> {
        let recorded: BTreeSet<&Group> = replay.late(self.log.id).iter().collect();
        let stored = late::groups(session, &self.log);
        let stored: BTreeSet<&Group> = stored.iter().collect();
        let finding = |group: &&Group| {
            let detail = format!(
                "what is on record as {}, between entries {} and {}, is not what merkle_late_entry has",
                group.way, group.first, group.last
            );
            Finding::of_log(Kind::LateEntryAltered, Some(group.first), detail)
        };
        // A group that lost or got a row is there in two forms.
        let lost: Vec<&Group> = recorded.difference(&stored).copied().collect();
        let of_lost = |group: &&Group| {
            let at = |g: &&Group| (&g.way, g.found_at) == (&group.way, group.found_at);
            !lost.iter().any(at)
        };
        let new = stored.difference(&recorded).copied().filter(of_lost);
        lost.iter()
            .copied()
            .chain(new)
            .map(|g| finding(&g))
            .collect()
    }
}

fn is_own(row: &Row) -> bool {
    row.table == "verification_logs" && row.number("log_id") == Some(ADMINISTRATION.into())
}

/// The administration log's own row, which nobody changes.
fn own_row(row: &Row) -> Option<Finding> {
    let expected = [
        ("log_name", Json::from(ADMINISTRATION_NAME)),
        ("enabled", true.into()),
        ("paused", false.into()),
        ("order_domain", "arrival".into()),
        ("settle", "00:00:00".into()),
        ("pruned_to", 0.into()),
        ("batch_size", Json::Null),
        ("run_interval", Json::Null),
        ("reconcile_interval", Json::Null),
    ];
    let is = |name: &str| row.columns.get(name).unwrap_or(&Json::Null);
    let altered = expected.iter().filter(|(name, value)| is(name) != value);
    let names: Vec<&str> = altered.map(|(name, _)| *name).collect();
    (!names.is_empty()).then(|| finding(row, altered_columns(&names)))
}

fn compare(recorded: &Configuration, stored: Vec<Row>) -> Vec<Finding> {
    let stored: Configuration = stored
        .into_iter()
        .filter_map(|row| Some((row.id()?, row)))
        .collect();
    let ids: BTreeSet<_> = recorded.keys().chain(stored.keys()).collect();
    let check = |id| match (recorded.get(id), stored.get(id)) {
        (Some(recorded), Some(stored)) => {
            let names = differences(recorded, stored);
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let values = names.iter().map(|name| stored.columns.get(*name));
            let values = serde_json::to_vec(&values.collect::<Vec<_>>()).ok();
            (!names.is_empty()).then(|| Finding {
                is_now: values,
                ..finding(stored, altered_columns(&names))
            })
        }
        (Some(recorded), None) => Some(finding(recorded, "is on record and does not exist".into())),
        (None, Some(stored)) => Some(finding(stored, "was never put on record".into())),
        (None, None) => None,
    };
    ids.into_iter().filter_map(check).collect()
}

fn altered_columns(names: &[&str]) -> String {
    format!("is not what is on record: {}", names.join(", "))
}

/// The columns in which two rows differ.
fn differences(recorded: &Row, stored: &Row) -> Vec<String> {
    let names: BTreeSet<&String> = recorded
        .columns
        .keys()
        .chain(stored.columns.keys())
        .collect();
    // Nothing moves on in a source that was removed.
    let active =
        recorded.table == "verification_sources" && !recorded.columns.contains_key("removed_at");
    let differs = |name: &&&String| {
        let (was, is) = (recorded.columns.get(**name), stored.columns.get(**name));
        match active && MOVING.contains(&name.as_str()) {
            // Whether there is anything to backfill is on record; how far it has come is not.
            true => name.as_str() == "backfill" && was.is_some() != is.is_some(),
            false => was != is,
        }
    };
    names
        .iter()
        .filter(differs)
        .map(|name| (*name).clone())
        .collect()
}

fn finding(row: &Row, what: String) -> Finding {
    let id = row.id().map(|(_, key)| key.join(", ")).unwrap_or_default();
    let name = row
        .columns
        .get("source_table")
        .or(row.columns.get("log_name"));
    Finding {
        source_table: row
            .columns
            .get("source_table")
            .and_then(Json::as_str)
            .map(str::to_owned),
        ..Finding::of_log(
            Kind::ConfigurationAltered,
            None,
            match name.and_then(Json::as_str) {
                Some(name) => format!("row {id} of {}, {name}, {what}", row.table),
                None => format!("row {id} of {} {what}", row.table),
            },
        )
    }
}

/// A source's table must be the one that it was bound to, as long as the database is the same.
fn relations(session: &Session, recorded: &Configuration) -> Vec<Finding> {
    let sources = recorded
        .values()
        .filter(|r| r.table == "verification_sources");
    let differs = |row: &&Row| {
        let (Some(bound_to), Some(id)) = (
            row.columns.get("bound_to").and_then(Json::as_str),
            row.number("source_id"),
        ) else {
            return false;
        };
        let relation = session.read_one(
            "SELECT s.relation::pg_catalog.oid FROM @extschema@.verification_sources s
              WHERE s.source_id = $1::pg_catalog.int4",
            &[id.into()],
            |row| row.get::<pg_sys::Oid>(0),
        );
        bound_here(session, bound_to)
            .zip(relation.flatten())
            .is_some_and(|(bound, is)| bound != is)
    };
    let altered = |row: &Row| finding(row, altered_columns(&["relation"]));
    sources.filter(differs).map(altered).collect()
}

/// Rows of logs and sources that do not exist.
fn orphans(session: &Session) -> Vec<Finding> {
    let of_logs = [
        "merkle_log",
        "merkle_tile",
        "merkle_tree_head",
        "merkle_leaf_data",
        "merkle_statement",
        "merkle_pending",
        "merkle_late_entry",
        "merkle_sealed_range",
        "merkle_sealed_key",
        "merkle_finding",
        "merkle_verification",
    ]
    .map(|table| (table, "log_id", "verification_logs"));
    let of_sources = [
        ("merkle_order_index", "source_id", "verification_sources"),
        ("merkle_pending", "source_id", "verification_sources"),
        ("merkle_redacted_key", "source_id", "verification_sources"),
        ("merkle_set_aside", "source_id", "verification_sources"),
        ("merkle_ddl_command", "source_id", "verification_sources"),
    ];
    let orphan = |(table, column, owner): (&str, &str, &str)| {
        // From one value of the key's first column to the next, through the index.
        let sql = format!(
            "WITH RECURSIVE found (id) AS (
                 SELECT pg_catalog.min(t.{column}) FROM @extschema@.{table} t
                 UNION ALL
                 SELECT (SELECT pg_catalog.min(t.{column}) FROM @extschema@.{table} t WHERE t.{column} > f.id)
                   FROM found f WHERE f.id IS NOT NULL)
             SELECT f.id FROM found f
              WHERE f.id IS NOT NULL AND NOT EXISTS (SELECT FROM @extschema@.{owner} o WHERE o.{column} = f.id)"
        );
        let ids = session.read(&sql, &[], |row| row.required::<i32>(0));
        let finding = |id| {
            let detail = format!("{table} has rows with {column} {id}, which is not in {owner}");
            Finding::of_log(Kind::ConfigurationAltered, None, detail)
        };
        ids.into_iter().map(finding).collect::<Vec<_>>()
    };
    of_logs
        .into_iter()
        .chain(of_sources)
        .flat_map(orphan)
        .collect()
}
