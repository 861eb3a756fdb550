//! The administration log: what is done to logs and sources is on record in a log of its own.
//!
//! One log a database, made with the extension, under a reserved name and id. Each act is an entry whose
//! leaf data, which are kept, hold the full rows of the configuration tables that the act left behind: who
//! replays the entries has the configuration, and `verify_log` compares the tables with it.
//!
//! Acts are gathered while a call of an SQL function runs and are appended at its end, in its transaction.
//! So the lock of the administration log is taken after all locks of other logs, and held briefly.

pub mod listing;
pub mod replay;
pub mod state;

use crate::catalog::logs::{self, Log};
use crate::catalog::sources::{self, OF_LOG};
use crate::encode::time;
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::pg::{server, xact};
use crate::session::{self, Session};
use crate::store::append::{self, Appender};
use crate::store::leaves::{self, LONGEST};
use crate::store::{heads, late};
use leaf_format::{Context, Encoder, Kind, Origin, Value};
use merkle_tree::Hash;
use pgrx::pg_sys;
use serde_json::{Value as Json, json};
use state::Row;

pub use logs::{ADMINISTRATION, ADMINISTRATION_NAME};

/// Something that was done to a log or one of its sources. What the tables say after it is read when it is
/// appended.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// The log was there before there was an administration log.
    Adopted {
        log_id: i32,
    },
    LogCreated {
        log_id: i32,
    },
    LogAltered {
        log_id: i32,
    },
    LogEnabled {
        log_id: i32,
    },
    LogDisabled {
        log_id: i32,
    },
    LogPaused {
        log_id: i32,
    },
    LogResumed {
        log_id: i32,
    },
    /// Nothing is left of the log but this: its last tree head.
    LogDropped {
        log_id: i32,
        log_name: String,
        tree_size: i64,
        root: Option<Hash>,
    },
    SourceAdded {
        source_id: i32,
    },
    /// Settings of the source, or the names of columns in them.
    SourceAltered {
        source_id: i32,
    },
    /// The table got other numbers: it was restored from a dump.
    SourceBound {
        source_id: i32,
    },
    SourceRemoved {
        source_id: i32,
    },
    BackfillStarted {
        source_id: i32,
    },
    BackfillFinished {
        source_id: i32,
    },
    VersionRecorded {
        source_id: i32,
        version: i32,
    },
    /// `entries` entries of the log were dropped.
    Pruned {
        log_id: i32,
        entries: i64,
        /// The digest of the keys that the dropped entries said to be redacted.
        redacted: String,
    },
    PartitionDetached {
        source_id: i32,
        partition: String,
    },
    PartitionAttached {
        source_id: i32,
        partition: String,
    },
    /// What its rows fulfil is written otherwise: columns of the key were renamed, or the table was restored.
    PartitionAltered {
        source_id: i32,
        partition: String,
    },
    /// Entries are of rows that were found after they should have been logged.
    LateLogged {
        log_id: i32,
        group: late::Group,
    },
    /// Somebody has looked at what continuous verification found.
    FindingAcknowledged {
        log_id: i32,
        /// The finding's number, what makes it the same one, and the reason.
        detail: Json,
    },
    /// Rows may be deleted from their source.
    RowsRetired {
        source_id: i32,
        /// The first entries of the ranges that have their entries.
        ranges: Vec<i64>,
        entries: i64,
        /// Rows that could have been among them and are not what was logged.
        left: i64,
    },
    /// Somebody has changed how the table of a source is defined.
    TableAltered {
        source_id: i32,
        /// What was and what is, and the commands that were noted.
        detail: Json,
    },
    /// How the table of a source is defined was not on record.
    TableDescribed {
        source_id: i32,
    },
    /// DDL on sources is noted when it is run from now on, or is not any more.
    DdlRecorded {
        on: bool,
    },
    /// The logs are this database's from now on.
    DatabaseRecorded,
}

impl Act {
    /// The act's name in leaf data and for people.
    pub fn name(&self) -> &'static str {
        match self {
            Act::Adopted { .. } => "adopted",
            Act::LogCreated { .. } => "log created",
            Act::LogAltered { .. } => "log altered",
            Act::LogEnabled { .. } => "log enabled",
            Act::LogDisabled { .. } => "log disabled",
            Act::LogPaused { .. } => "log paused",
            Act::LogResumed { .. } => "log resumed",
            Act::LogDropped { .. } => DROPPED,
            Act::SourceAdded { .. } => "source added",
            Act::SourceAltered { .. } => "source altered",
            Act::SourceBound { .. } => "source bound",
            Act::SourceRemoved { .. } => "source removed",
            Act::BackfillStarted { .. } => "backfill started",
            Act::BackfillFinished { .. } => "backfill finished",
            Act::VersionRecorded { .. } => "version recorded",
            Act::Pruned { .. } => PRUNED,
            Act::PartitionDetached { .. } => "partition detached",
            Act::PartitionAttached { .. } => "partition attached",
            Act::PartitionAltered { .. } => "partition altered",
            Act::LateLogged { .. } => LATE,
            Act::FindingAcknowledged { .. } => ACKNOWLEDGED,
            Act::RowsRetired { .. } => "rows retired",
            Act::TableAltered { .. } => "table altered",
            Act::TableDescribed { .. } => "table described",
            Act::DdlRecorded { on: true } => "DDL noted",
            Act::DdlRecorded { on: false } => "DDL not noted",
            Act::DatabaseRecorded => "database recorded",
        }
    }
}

/// The act after which nothing of a log is configured any more.
pub const DROPPED: &str = "log dropped";
/// The act that says which entries were dropped.
pub const PRUNED: &str = "pruned";
/// The act that says which entries came late.
pub const LATE: &str = "late rows logged";
/// The act that says that somebody has looked at a finding.
pub const ACKNOWLEDGED: &str = "finding acknowledged";

/// Puts an act on record, with the transaction that did it. An act that is on its way already is not
/// repeated: its entry will show the tables as they are at the end of the call.
pub fn record(session: &Session, act: Act) {
    let mut acts = session.acts().borrow_mut();
    if !acts.contains(&act) {
        acts.push(act);
    }
}

/// Appends the acts that were recorded during a call, at its end.
pub fn append_recorded(session: &Session) -> Result<(), Error> {
    // That the logs are this database's may turn out only when the administration log is locked.
    loop {
        let acts = session.acts().take();
        if acts.is_empty() {
            return Ok(());
        }
        append(session, acts)?;
    }
}

/// Puts on record what was configured before there was an administration log: after an update from a
/// version that had none, or from a dump of one.
pub fn adopt(session: &Session) -> Result<(), Error> {
    let log = logs::administration(session)?;
    if is_empty(session, &log, Snapshot::Fresh)? {
        for log_id in logs::ids(session) {
            record(session, Act::Adopted { log_id });
        }
    }
    Ok(())
}

/// True if nothing was ever put on record.
pub fn is_empty(session: &Session, log: &Log, snapshot: Snapshot) -> Result<bool, Error> {
    if heads::latest(session, snapshot, log)?.tree_size > 0 {
        return Ok(false);
    }
    let entries = session.query(
        snapshot,
        "SELECT true FROM @extschema@.merkle_log m WHERE m.log_id = $1 LIMIT 1",
        &[log.id.into()],
        |_| (),
    );
    Ok(entries.is_empty())
}

fn append(session: &Session, mut acts: Vec<Act>) -> Result<(), Error> {
    let log = logs::lock_administration(session)?;
    check_isolation(session, &log)?;
    // Whether there is something to adopt is known only now that the log is locked.
    let created: Vec<i32> = acts.iter().filter_map(created_log).collect();
    acts.retain(|act| !matches!(act, Act::Adopted { .. }));
    let mut all = Vec::new();
    if is_empty(session, &log, Snapshot::Fresh)? {
        let before = logs::ids(session).into_iter();
        let adopted = before.filter(|id| *id != ADMINISTRATION && !created.contains(id));
        all.extend(adopted.map(|log_id| Act::Adopted { log_id }));
    }
    all.extend(acts);
    if all.is_empty() {
        return Ok(());
    }
    let mut appender = Appender::open(session, &log)?;
    for act in &all {
        for entry in entries(session, act)? {
            appender.push(&append::Entry {
                source_id: OF_LOG,
                key: &entry.key,
                order: Some(""),
                place: None,
                hash: leaves::hash(&entry.leaf_data),
                salt: None,
                leaf_data: Some(&entry.leaf_data),
            })?;
        }
    }
    appender.finish()?;
    Ok(())
}

fn created_log(act: &Act) -> Option<i32> {
    match act {
        Act::LogCreated { log_id } => Some(*log_id),
        _ => None,
    }
}

/// Under REPEATABLE READ and above, acts that others committed meanwhile are not seen; entries cannot be
/// appended to a tree whose end is unknown.
fn check_isolation(session: &Session, log: &Log) -> Result<(), Error> {
    let Some(level) = server::transaction_snapshot_level() else {
        return Ok(());
    };
    let seen = heads::latest(session, Snapshot::Fresh, log)?.tree_size;
    let committed = heads::latest(session, Snapshot::Latest, log)?.tree_size;
    match seen == committed {
        true => Ok(()),
        false => Err(Error::Isolation {
            what: session::written(Some(&log.name)),
            level,
        }),
    }
}

/// An entry to be.
struct Entry {
    key: String,
    leaf_data: Vec<u8>,
}

/// Bytes of the rows of one entry, as JSON, unless it is of one row: their CBOR is shorter.
const ROWS: usize = 32 << 10;

/// What an act is about, and the rows that it left behind.
struct Content {
    log_id: i32,
    log_name: String,
    /// Number and registered table.
    source: Option<(i32, String)>,
    rows: Vec<Row>,
    /// Entries of the log at the time.
    tree_size: i64,
    /// What no table says.
    detail: Option<Json>,
}

/// The entries that put an act on record: one, or as many as its rows need.
fn entries(session: &Session, act: &Act) -> Result<Vec<Entry>, Error> {
    let content = content(session, act)?;
    let mut parts: Vec<Vec<Row>> = vec![Vec::new()];
    let mut size = 0;
    for row in content.rows.iter().cloned() {
        let length = row.length();
        if size + length > ROWS && size > 0 {
            parts.push(Vec::new());
            size = 0;
        }
        size += length;
        parts.last_mut().expect("begins with one").push(row);
    }
    let several = parts.len() > 1;
    let parts = parts.into_iter().enumerate();
    parts
        .map(|(place, rows)| {
            let part = several.then_some(place as i64 + 1);
            encode(session.caller(), act, &content, &rows, part)
        })
        .collect()
}

/// `caller`: the role whose privileges counted where the call was made.
fn encode(
    caller: pg_sys::Oid,
    act: &Act,
    content: &Content,
    rows: &[Row],
    part: Option<i64>,
) -> Result<Entry, Error> {
    let (user, role) = (xact::session_user(), xact::role_called(caller));
    let application = xact::application_name(|name| name.into_owned());
    let context = Context {
        origin: Some(Origin {
            transaction: xact::id(),
            user: &user,
            role: Some(&role),
            application: &application,
            at: time::unix_micros(xact::statement_start()),
            ..Origin::default()
        }),
        salt: None,
    };
    let subject = content
        .source
        .as_ref()
        .map_or(&content.log_name, |(_, t)| t);
    let columns = [
        ("act", Value::Text(act.name().into())),
        ("log_id", Value::Int(content.log_id.into())),
        ("log_name", Value::Text(content.log_name.as_str().into())),
        ("tree_size", Value::Int(content.tree_size.into())),
        (
            "source_id",
            content
                .source
                .as_ref()
                .map_or(Value::Null, |(id, _)| Value::Int((*id).into())),
        ),
        (
            "rows",
            Value::List(rows.iter().map(Row::to_value).collect()),
        ),
        ("part", part.map_or(Value::Null, |n| Value::Int(n.into()))),
        (
            "detail",
            content.detail.as_ref().map_or(Value::Null, state::value),
        ),
    ];
    let (names, values): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let mut leaf_data = Vec::new();
    Encoder::new(subject, Kind::Administration, &names)
        .and_then(|e| e.encode_in_full(&values, &context, LONGEST, &mut leaf_data))
        .map_err(|e| Error::Damaged {
            log: content.log_name.clone(),
            problem: format!("its configuration cannot be encoded: {e}"),
        })?;
    Ok(Entry {
        key: key(
            content.log_id.into(),
            content.source.as_ref().map(|(id, _)| (*id).into()),
        ),
        leaf_data,
    })
}

/// The key of an entry that is about a log, or about one of its sources.
pub fn key(log_id: i64, source_id: Option<i64>) -> String {
    match source_id {
        None => format!("log {log_id}"),
        Some(source_id) => format!("source {source_id} of log {log_id}"),
    }
}

fn content(session: &Session, act: &Act) -> Result<Content, Error> {
    let mut detail = None;
    let (log_id, source_id, rows) = match act {
        Act::LogDropped {
            log_id,
            log_name,
            tree_size,
            root,
        } => {
            return Ok(Content {
                log_id: *log_id,
                log_name: log_name.clone(),
                source: None,
                rows: Vec::new(),
                tree_size: *tree_size,
                detail: root.map(|root| json!({ "root_hash": root.to_string() })),
            });
        }
        Act::Adopted { log_id } => (Some(*log_id), None, state::of_log(session, *log_id)),
        Act::LogCreated { log_id }
        | Act::LogAltered { log_id }
        | Act::LogEnabled { log_id }
        | Act::LogDisabled { log_id }
        | Act::LogPaused { log_id }
        | Act::LogResumed { log_id } => (Some(*log_id), None, state::log_row(session, *log_id)),
        Act::Pruned {
            log_id,
            entries,
            redacted,
        } => {
            detail = Some(json!({ "entries": entries, "redacted_keys": redacted }));
            let mut rows = state::log_row(session, *log_id);
            rows.extend(state::source_rows(session, *log_id));
            (Some(*log_id), None, rows)
        }
        Act::SourceAdded { source_id } => {
            let mut rows = state::source_row(session, *source_id);
            rows.extend(state::definition_of(session, *source_id));
            // The first source fixes what its log is ordered by.
            if let Some(source) = sources::by_id(session, *source_id) {
                rows.extend(state::log_row(session, source.log_id));
            }
            (None, Some(*source_id), rows)
        }
        Act::SourceBound { source_id } => {
            let mut rows = state::source_row(session, *source_id);
            rows.extend(state::versions_of(session, *source_id, None));
            (None, Some(*source_id), rows)
        }
        Act::SourceAltered { source_id }
        | Act::SourceRemoved { source_id }
        | Act::BackfillStarted { source_id }
        | Act::BackfillFinished { source_id } => (
            None,
            Some(*source_id),
            state::source_row(session, *source_id),
        ),
        Act::PartitionDetached {
            source_id,
            partition,
        }
        | Act::PartitionAttached {
            source_id,
            partition,
        }
        | Act::PartitionAltered {
            source_id,
            partition,
        } => {
            detail = Some(json!({ "partition": partition }));
            let rows = state::partitions_of(session, *source_id, Some(partition));
            (None, Some(*source_id), rows)
        }
        Act::LateLogged { log_id, group } => {
            detail = Some(json!({
                "way": group.way, "found_at": group.found_at, "first": group.first, "last": group.last,
                "entries": group.entries, "indexes": group.indexes,
            }));
            (Some(*log_id), None, state::log_row(session, *log_id))
        }
        Act::FindingAcknowledged {
            log_id,
            detail: of_finding,
        } => {
            detail = Some(of_finding.clone());
            (Some(*log_id), None, Vec::new())
        }
        Act::RowsRetired {
            source_id,
            ranges,
            entries,
            left,
        } => {
            detail = Some(json!({ "entries": entries, "left": left }));
            let rows = state::retirements_of(session, *source_id, ranges);
            (None, Some(*source_id), rows)
        }
        Act::TableAltered {
            source_id,
            detail: of_table,
        } => {
            detail = Some(of_table.clone());
            let rows = state::definition_of(session, *source_id);
            (None, Some(*source_id), rows)
        }
        Act::TableDescribed { source_id } => (
            None,
            Some(*source_id),
            state::definition_of(session, *source_id),
        ),
        Act::DdlRecorded { .. } => (Some(ADMINISTRATION), None, Vec::new()),
        Act::DatabaseRecorded => (Some(ADMINISTRATION), None, state::databases(session)),
        Act::VersionRecorded { source_id, version } => {
            let rows = state::versions_of(session, *source_id, Some(*version));
            (None, Some(*source_id), rows)
        }
    };
    let source = source_id.and_then(|id| sources::by_id(session, id));
    let log_id = log_id.or(source.as_ref().map(|s| s.log_id));
    let log = log_id.and_then(|id| logs::by_id(session, id));
    let log = log.ok_or_else(|| Error::Damaged {
        log: ADMINISTRATION_NAME.to_owned(),
        problem: format!(
            "\"{}\" cannot be put on record: its log or source is not in the tables",
            act.name()
        ),
    })?;
    Ok(Content {
        log_id: log.id,
        tree_size: heads::latest(session, Snapshot::Fresh, &log)?.tree_size,
        log_name: log.name,
        source: source.map(|s| (s.id, s.name)),
        rows,
        detail,
    })
}
