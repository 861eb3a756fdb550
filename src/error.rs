//! Everything that can be wrong, and what to do about it.
//!
//! A variant holds the names its reader needs; SQLSTATE and HINT are decided here and nowhere else.

mod checkpoint;
mod finding;
mod key;
mod refusal;
mod sealed;

use crate::catalog::logs::ADMINISTRATION_NAME;
use crate::catalog::sources::table_name;
pub use checkpoint::CheckpointError;
pub use finding::FindingError;
pub use key::KeyError;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;
pub use refusal::Refusal;
pub use sealed::SealedError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("extension \"merkle_log\" is not installed in this database")]
    NotInstalled,
    #[error("log \"{0}\" does not exist")]
    NoSuchLog(String),
    #[error("log \"{0}\" already exists")]
    LogExists(String),
    #[error(
        "log \"{0}\" is the record of what is done to the other logs, and written by nothing else"
    )]
    Reserved(String),
    #[error("log name \"{name}\" is not valid: {problem}")]
    LogName { name: String, problem: &'static str },
    #[error("{name} must not be null")]
    Null { name: &'static str },
    #[error("{name} must be {must}, not {value}")]
    Argument {
        name: &'static str,
        must: &'static str,
        value: String,
    },
    #[error(
        "log \"{log}\" has {entries} entries, {sources} sources and {heads} tree heads, which would all be deleted"
    )]
    DropNotConfirmed {
        log: String,
        entries: i64,
        sources: i64,
        heads: i64,
    },
    #[error("table \"{table}\" is not a source of log \"{log}\"")]
    NoSuchSource { log: String, table: String },
    #[error("table \"{table}\" is already a source of log \"{log}\"")]
    SourceExists { log: String, table: String },
    #[error("source \"{table}\" of log \"{log}\" no longer exists")]
    SourceGone {
        log: String,
        table: String,
        /// What `remove_source` can be called with, now that the table has no name.
        relation: u32,
    },
    #[error(
        "source \"{table}\" of log \"{log}\" refers to table {relation}, which is not the one that it was made for"
    )]
    AnotherTable {
        log: String,
        table: String,
        relation: u32,
    },
    #[error("\"{table}\" cannot be a source: it is {what}")]
    NotATable { table: String, what: &'static str },
    #[error("must be owner of table \"{table}\" to make it a source of log \"{log}\"")]
    NotOwner { log: String, table: String },
    #[error("permission denied for table \"{table}\", a source of log \"{log}\"")]
    MayNotRead { log: String, table: String },
    #[error("permission denied for the key of table \"{table}\", a source of log \"{log}\"")]
    MayNotReadKey { log: String, table: String },
    #[error("function {function}() was called as other than a trigger")]
    NotATrigger { function: &'static str },
    #[error("function note_ddl_command() was called as other than an event trigger")]
    NotAnEventTrigger,
    #[error("permission denied for the entries that log \"{log}\" makes itself")]
    MayNotReadLog { log: String },
    #[error("permission denied for the content of the administration log")]
    MayNotReadAdministration,
    #[error(
        "table \"{table}\" forces row-level security on its owner, who could then not read every row for log \"{log}\""
    )]
    ForcedRowSecurity { log: String, table: String },
    #[error("the owner of table \"{table}\" may not read it for log \"{log}\"")]
    OwnerMayNotRead { log: String, table: String },
    #[error("merkle_log cannot be called by what runs while it reads a source")]
    CalledBySource,
    #[error("the server cannot plan a query on table \"{table}\": {problem}")]
    Planning { table: String, problem: String },
    #[error("column \"{column}\" of table \"{table}\" does not exist")]
    NoSuchColumn { table: String, column: String },
    #[error(
        "column \"{column}\" of table \"{table}\" is a virtual generated column, whose values are not stored and cannot be logged"
    )]
    VirtualColumn { table: String, column: String },
    #[error(
        "column \"{column}\" of table \"{table}\" has type {type_name}, which cannot order log \"{log}\""
    )]
    OrderType {
        log: String,
        table: String,
        column: String,
        type_name: String,
    },
    #[error("order column \"{column}\" of table \"{table}\" can be null")]
    OrderNullable { table: String, column: String },
    #[error(
        "order column \"{column}\" of table \"{table}\" has no btree index that begins with it"
    )]
    OrderIndex {
        table: String,
        quoted_table: String,
        column: String,
        quoted_column: String,
    },
    #[error(
        "log \"{log}\" is ordered by {domain}, but column \"{column}\" of table \"{table}\" is of the domain {other}"
    )]
    OrderDomain {
        log: String,
        domain: &'static str,
        table: String,
        column: String,
        other: &'static str,
    },
    #[error(
        "order column \"{column}\" of table \"{table}\" takes its values from sequence \"{sequence}\", which {problem}"
    )]
    Sequence {
        table: String,
        column: String,
        sequence: String,
        problem: String,
        /// What ALTER SEQUENCE is to set.
        fix: &'static str,
    },
    #[error(
        "the values of order column \"{column}\" of table \"{table}\" come from its writers, so rows may commit behind the watermark"
    )]
    CaptureNotNamed { table: String, column: String },
    #[error("capture mode \"{0}\" does not exist")]
    CaptureMode(String),
    #[error(
        "table \"{table}\" has no primary key and no unique index on columns that are not null"
    )]
    NoKey { table: String },
    #[error(
        "columns ({columns}) of table \"{table}\" are not a key: no primary key or unique index on exactly these not-null columns"
    )]
    NotAKey { table: String, columns: String },
    #[error(
        "key ({columns}) of table \"{table}\" is temporal (WITHOUT OVERLAPS), and names no single row by equal values"
    )]
    TemporalKey { table: String, columns: String },
    #[error(
        "key column \"{column}\" of table \"{table}\" has type {type_name}, whose values are written as names that others may change"
    )]
    KeyNames {
        table: String,
        column: String,
        type_name: String,
    },
    #[error(
        "rows of table \"{table}\" were redacted in log \"{log}\", where it was a salted source, and would be logged again for good"
    )]
    RedactedBefore { log: String, table: String },
    #[error(
        "key column \"{column}\" of table \"{table}\" has type {type_name}, whose order is not built into the server"
    )]
    KeyType {
        table: String,
        column: String,
        type_name: String,
    },
    #[error("key column \"{column}\" of table \"{table}\", a source of log \"{log}\", was dropped")]
    KeyDropped {
        log: String,
        table: String,
        column: String,
    },
    #[error(
        "column \"{column}\" of table \"{table}\", by which log \"{log}\" knows its rows, cannot be told among the table's columns: the table was restored from a dump that was made after the column was renamed, moved or dropped, and before the log had noted that"
    )]
    KeyUnknown {
        log: String,
        table: String,
        column: String,
    },
    #[error(
        "hash column \"{column}\" of table \"{table}\" has type {type_name}, not bytea or text"
    )]
    HashType {
        table: String,
        column: String,
        type_name: String,
    },
    #[error("settle needs a log ordered by time, and log \"{log}\" is ordered by {domain}")]
    SettleDomain { log: String, domain: &'static str },
    #[error(
        "this database has the logs of database \"{name}\" (oid {oid} of cluster {system_identifier}), and nobody has said what it is"
    )]
    CopiedDatabase {
        name: String,
        system_identifier: i64,
        oid: u32,
    },
    #[error("the logs of database \"{name}\" are its own: there is nothing to adopt")]
    NotACopy { name: String },
    #[error("{what} cannot be written under isolation level {level}")]
    Isolation { what: String, level: &'static str },
    #[error("{what} cannot be written during recovery")]
    Recovery { what: String },
    #[error("{what} cannot be written in a read-only transaction")]
    ReadOnly { what: String },
    #[error("an entry of log \"{log}\" cannot be waited for under isolation level {level}")]
    WaitIsolation { log: String, level: &'static str },
    #[error("log \"{log}\" has {size} entries: leaf index {index} does not exist")]
    IndexOutOfRange { log: String, index: i64, size: i64 },
    #[error("log \"{log}\" has {size} entries: tree size {wanted} does not exist")]
    SizeOutOfRange { log: String, wanted: i64, size: i64 },
    #[error("leaf index {index} is not in the first {size} entries of log \"{log}\"")]
    IndexBeyondSize { log: String, index: i64, size: i64 },
    #[error("old size {old} is greater than new size {new} of log \"{log}\"")]
    SizesReversed { log: String, old: i64, new: i64 },
    #[error("log \"{log}\" has no entry with leaf hash {hash}")]
    NoSuchLeaf { log: String, hash: String },
    #[error("log \"{log}\" has no tree head with root {root}")]
    NoSuchRoot { log: String, root: String },
    #[error("row {key} of table \"{table}\" is not in log \"{log}\"")]
    RowNotLogged {
        log: String,
        table: String,
        key: String,
    },
    #[error("row {key} of table \"{table}\" was not in log \"{log}\" within {timeout}")]
    InclusionTimeout {
        log: String,
        table: String,
        key: String,
        timeout: String,
    },
    #[error("key {key} does not fit table \"{table}\": {problem}")]
    Key {
        table: String,
        key: String,
        problem: String,
    },
    #[error(transparent)]
    Checkpoint(CheckpointError),
    /// What a process said that did this one's work.
    #[error("{}", .0.message)]
    OfWorker(Refusal),
    #[error(transparent)]
    GivenKey(KeyError),
    #[error(transparent)]
    Finding(FindingError),
    #[error(transparent)]
    Sealed(SealedError),
    #[error("row {key} of table \"{table}\", entry {index} of log \"{log}\", no longer exists")]
    RowGone {
        log: String,
        table: String,
        key: String,
        index: i64,
    },
    #[error("entry {index} of log \"{log}\" cannot be computed any more: {reason}")]
    ShapeChanged {
        log: String,
        index: i64,
        reason: String,
    },
    #[error("the tree of log \"{log}\" is damaged: {problem}")]
    Damaged { log: String, problem: String },
    #[error("log \"{log}\" waits for {by}, which keeps a source table locked")]
    Blocked { log: String, by: String },
    #[error("log \"{log}\" waits for {by}")]
    Busy { log: String, by: String },
    #[error("a trigger captures changes for source {source_id}, which does not exist")]
    StrayTrigger { source_id: i32 },
    #[error(
        "a trigger that captures changes of table \"{table}\" for log \"{log}\" is one of an earlier version of merkle_log, or the table is not stored as a heap"
    )]
    OldTrigger { log: String, table: String },
    #[error(
        "cannot truncate a partition of table \"{table}\" alone: log \"{log}\" captures the table's changes, and could only say that all of its rows are gone"
    )]
    PartitionTruncated { log: String, table: String },
    #[error("the triggers of table \"{table}\" cannot be set up: {problem}, in {statement}")]
    TriggerStatement {
        table: String,
        statement: String,
        sqlstate: PgSqlErrorCode,
        problem: String,
    },
    #[error("cannot truncate table \"{table}\": log \"{log}\" captures its changes")]
    TruncateRefused { log: String, table: String },
    #[error("cannot {operation} table \"{table}\": it is an append-only source of log \"{log}\"")]
    AppendOnly {
        log: String,
        table: String,
        operation: &'static str,
    },
    #[error("table \"{table}\" of log \"{log}\" cannot be read: {problem}")]
    SourceUnreadable {
        log: String,
        table: String,
        problem: String,
    },
    #[error("setting merkle_log.context cannot be recorded: {problem}")]
    Context { problem: &'static str },
    #[error("{option} cannot be given for table \"{table}\" with {capture} capture")]
    CaptureOption {
        table: String,
        option: &'static str,
        capture: &'static str,
        hint: &'static str,
    },
    #[error(
        "log \"{log}\" is ordered by {domain}, and trigger capture of table \"{table}\" logs in order of arrival"
    )]
    TriggerDomain {
        log: String,
        domain: &'static str,
        table: String,
    },
    #[error(
        "the merkle_log library is version {library}, and the extension in this database {installed}"
    )]
    Version {
        library: &'static str,
        installed: String,
    },
    #[error("no background worker can be asked: {why}")]
    NoWorker { why: &'static str },
    #[error("entry {index} of log \"{log}\" was pruned: entries before {pruned_to} are gone")]
    Pruned {
        log: String,
        index: i64,
        pruned_to: i64,
    },
    #[error(
        "the proof needs hashes of log \"{log}\" that were pruned: of entries before {pruned_to}, only those that lead to recorded tree heads are kept"
    )]
    PrunedProof { log: String, pruned_to: i64 },
    #[error("entry {index} of log \"{log}\" cannot be redacted: {why}")]
    CannotRedact {
        log: String,
        index: i64,
        why: &'static str,
    },
    #[error(
        "rows of table \"{table}\" cannot be redacted in log \"{log}\": its source is not salted"
    )]
    CannotRedactRow { log: String, table: String },
    #[error("entry {index} of log \"{log}\" is no version of a row")]
    NotOfARow { log: String, index: i64 },
    #[error("log \"{log}\" does not keep the leaf data of table \"{table}\"")]
    NoHistory { log: String, table: String },
    #[error("permission denied for schema cron, whose jobs run as the role that schedules them")]
    MayNotSchedule,
    #[error("the log with number {log_id} does not exist any more")]
    ScheduledLogGone { log_id: i32 },
    #[error("extension \"pg_cron\" is not installed in this database")]
    NoCron,
    #[error("{name} must be 32 bytes, not {length}")]
    HashLength { name: &'static str, length: usize },
    #[error(
        "column \"{column}\" of table \"{table}\" has a type in which more than {levels} types are nested"
    )]
    TypeDepth {
        table: String,
        column: String,
        levels: usize,
    },
    #[error("row {key} of table \"{table}\" cannot be encoded for log \"{log}\": {problem}")]
    Encode {
        log: String,
        table: String,
        key: String,
        problem: String,
    },
    #[error(
        "row {key} of table \"{table}\" is too long for log \"{log}\", which keeps no more than {limit} bytes of a row"
    )]
    RowTooLong {
        log: String,
        table: String,
        key: String,
        limit: usize,
    },
}

/// Who knows of more entries than the log has did not get it wrong.
const ROLLED_BACK: &str = "If the log was larger before, it was rolled back, as by restoring a backup or failing over to a standby that lagged: compare with the tree heads that were kept outside.";

impl Error {
    fn sqlstate(&self) -> PgSqlErrorCode {
        use Error::*;
        use PgSqlErrorCode as C;
        match self {
            Version { .. }
            | NoWorker { .. }
            | StrayTrigger { .. }
            | OldTrigger { .. }
            | CannotRedact { .. }
            | CannotRedactRow { .. }
            | CopiedDatabase { .. }
            | NotACopy { .. }
            | NotOfARow { .. }
            | NoHistory { .. }
            | SourceUnreadable { .. }
            | TriggerDomain { .. } => C::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            TriggerStatement { sqlstate, .. } => *sqlstate,
            CaptureOption { .. } | Context { .. } => C::ERRCODE_INVALID_PARAMETER_VALUE,
            TruncateRefused { .. } | PartitionTruncated { .. } | AppendOnly { .. } => {
                C::ERRCODE_RESTRICT_VIOLATION
            }
            Pruned { .. } | PrunedProof { .. } => C::ERRCODE_NO_DATA_FOUND,
            NoCron | ScheduledLogGone { .. } => C::ERRCODE_UNDEFINED_OBJECT,
            AnotherTable { .. } => C::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            NotInstalled | NoSuchLog(_) | NoSuchSource { .. } | SourceGone { .. } => {
                C::ERRCODE_UNDEFINED_OBJECT
            }
            LogExists(_) | SourceExists { .. } => C::ERRCODE_DUPLICATE_OBJECT,
            Reserved(_) => C::ERRCODE_RESERVED_NAME,
            LogName { .. } => C::ERRCODE_INVALID_NAME,
            Null { .. } => C::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            Argument { .. } | CaptureMode(_) | HashLength { .. } | Key { .. } => {
                C::ERRCODE_INVALID_PARAMETER_VALUE
            }
            Checkpoint(error) => error.sqlstate(),
            OfWorker(refusal) => refusal.sqlstate(),
            GivenKey(error) => error.sqlstate(),
            Finding(error) => error.sqlstate(),
            Sealed(error) => error.sqlstate(),
            DropNotConfirmed { .. }
            | ForcedRowSecurity { .. }
            | OrderNullable { .. }
            | OrderIndex { .. }
            | OrderDomain { .. }
            | Sequence { .. }
            | CaptureNotNamed { .. }
            | NoKey { .. }
            | NotAKey { .. }
            | TemporalKey { .. }
            | RedactedBefore { .. }
            | KeyDropped { .. }
            | KeyUnknown { .. }
            | SettleDomain { .. }
            | Planning { .. }
            | CalledBySource
            | ShapeChanged { .. } => C::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            NotATrigger { .. } => C::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
            NotAnEventTrigger => C::ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED,
            NotATable { .. } => C::ERRCODE_WRONG_OBJECT_TYPE,
            NotOwner { .. }
            | MayNotRead { .. }
            | MayNotReadLog { .. }
            | MayNotReadAdministration
            | MayNotReadKey { .. }
            | MayNotSchedule
            | OwnerMayNotRead { .. } => C::ERRCODE_INSUFFICIENT_PRIVILEGE,
            NoSuchColumn { .. } => C::ERRCODE_UNDEFINED_COLUMN,
            VirtualColumn { .. } => C::ERRCODE_INVALID_COLUMN_REFERENCE,
            OrderType { .. } | KeyType { .. } | KeyNames { .. } | HashType { .. } => {
                C::ERRCODE_DATATYPE_MISMATCH
            }
            Isolation { .. } | WaitIsolation { .. } => C::ERRCODE_FEATURE_NOT_SUPPORTED,
            Recovery { .. } | ReadOnly { .. } => C::ERRCODE_READ_ONLY_SQL_TRANSACTION,
            IndexOutOfRange { .. }
            | SizeOutOfRange { .. }
            | IndexBeyondSize { .. }
            | SizesReversed { .. } => C::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
            NoSuchLeaf { .. } | NoSuchRoot { .. } | RowNotLogged { .. } | RowGone { .. } => {
                C::ERRCODE_NO_DATA_FOUND
            }
            InclusionTimeout { .. } | Blocked { .. } | Busy { .. } => C::ERRCODE_LOCK_NOT_AVAILABLE,
            Damaged { .. } => C::ERRCODE_DATA_CORRUPTED,
            Encode { .. } => C::ERRCODE_DATA_EXCEPTION,
            RowTooLong { .. } | TypeDepth { .. } => C::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        }
    }

    pub fn hint(&self) -> Option<String> {
        use Error::*;
        Some(match self {
            NotInstalled => "Run CREATE EXTENSION merkle_log.".into(),
            NoSuchLog(_) => "The logs are in verification_logs; create_log makes a new one.".into(),
            LogExists(_) => "Choose another name, or drop_log the old one.".into(),
            Reserved(_) => "Its roots, proofs and entries can be read like those of any log; choose another name for a log of your own.".into(),
            LogName { .. } => "A log name has 1 to 63 bytes and no control characters.".into(),
            Null { name } => format!("Give a value for {name}."),
            Argument { name, must, .. } => format!("Give {name} as {must}."),
            DropNotConfirmed { log, .. } => {
                format!("Call drop_log({}, confirm => true) to delete them.", literal(log))
            }
            NoSuchSource { log, .. } if log == ADMINISTRATION_NAME => {
                "The administration log has no sources: administration() shows its acts.".into()
            }
            NoSuchSource { log, .. } => format!(
                "The sources of the log are in verification_sources; add_source({}, …) adds one.",
                literal(log)
            ),
            SourceExists { .. } => "Use alter_source to change it.".into(),
            AnotherTable { .. } => "If a dump of this database was restored into it, call adopt_database('continue'). Otherwise somebody has altered verification_sources: verify_log says how it was.".into(),
            SourceGone { log, relation, .. } => format!(
                "Its entries stay provable, and the other sources of the log go on. Whoever manages the log can take it out: SELECT remove_source({}, {relation}).",
                literal(log)
            ),
            NotATable { .. } => "A source is an ordinary or partitioned permanent table outside this extension.".into(),
            NotOwner { .. } => "Let the table's owner add it, or a member of the owner's role.".into(),
            MayNotRead { .. } => {
                "This shows keys and content of the table: it needs SELECT on all of it, free of row-level security. If the table is gone, it needs SELECT on merkle_log and merkle_leaf_data.".into()
            }
            NotAnEventTrigger => "The event triggers that record_ddl makes call it; nothing else has to.".into(),
            NotATrigger { .. } => {
                "The triggers that add_source makes call it; nothing else has to.".into()
            }
            MayNotReadLog { .. } => {
                "This needs SELECT on merkle_log and merkle_leaf_data, as members of pg_read_all_data have it.".into()
            }
            MayNotReadAdministration => {
                "Its leaf data hold order values of source rows, for the extension's owner only; administration() shows the acts without them.".into()
            }
            MayNotReadKey { table, .. } => format!(
                "This tells which rows are there: it needs SELECT on the columns of the key of {table}, free of row-level security."
            ),
            ForcedRowSecurity { .. } => {
                "Run ALTER TABLE … NO FORCE ROW LEVEL SECURITY, or give the owner BYPASSRLS.".into()
            }
            CalledBySource => "Take the call out of the function that a predicate of an index, a partition key or statistics of the source use.".into(),
            Planning { .. } => "The server runs functions that predicates of the table's indexes, its partition key or extended statistics call with constants. Mend these functions, or drop what calls them.".into(),
            OwnerMayNotRead { table, .. } => format!(
                "Grant its owner what it lacks: SELECT ON {table}, and USAGE on its schema. Every source is read as its owner."
            ),
            NoSuchColumn { table, .. } => format!("See \\d {table} for its columns."),
            VirtualColumn { .. } => "Name the columns that it is computed from, or make it one that is stored: GENERATED ALWAYS AS (…) STORED.".into(),
            OrderType { .. } => "Use a column of type smallint, integer, bigint, numeric, date, timestamp, timestamptz or uuid.".into(),
            OrderNullable { column, .. } => {
                format!("Run ALTER TABLE … ALTER COLUMN {column} SET NOT NULL; where its NOT NULL constraint is NOT VALID, VALIDATE CONSTRAINT.")
            }
            OrderIndex { quoted_table, quoted_column, .. } => {
                format!("Run CREATE INDEX ON {quoted_table} ({quoted_column});")
            }
            OrderDomain { domain, .. } => format!(
                "Order it by a {domain} column, or create another log for it: values of different domains cannot be compared."
            ),
            Sequence { sequence, fix, .. } => format!(
                "Run ALTER SEQUENCE {sequence} {fix}; sessions that are open keep what they have."
            ),
            CaptureNotNamed { .. } => {
                "Name the mode, capture => 'watermark', if you accept that a row with a lower order value than one already logged, or the same, is logged late, by reconcile(). Complete without it are identity and serial columns, timestamptz columns in microseconds with DEFAULT clock_timestamp(), and since PostgreSQL 18 uuid columns with DEFAULT uuidv7(); capture => 'trigger' is complete for every table.".into()
            }
            CaptureMode(_) => "Use capture => 'watermark' or capture => 'trigger'.".into(),
            NoKey { .. } => "Add a primary key: entries name their row by it.".into(),
            NotAKey { .. } => "Name the columns of a primary key, or of a unique index on not-null columns without a predicate.".into(),
            TemporalKey { table, .. } => format!(
                "Give the table a key of its own and name it with key_columns, for example after ALTER TABLE {table} ADD COLUMN version_id bigint GENERATED ALWAYS AS IDENTITY UNIQUE;"
            ),
            KeyNames { table, column, .. } => format!(
                "Choose another key with key_columns, or key it by number: ALTER TABLE {table} ALTER COLUMN {} TYPE oid.",
                identifier(column)
            ),
            RedactedBefore { .. } => "Add it with salted => true: what was redacted then stays so.".into(),
            KeyType { .. } => "Choose a key of built-in types or enums with key_columns.".into(),
            KeyUnknown { log, .. } => format!(
                "Rename the column back to what it was, run process_next_batch({}), and rename it again.",
                literal(log)
            ),
            KeyDropped { .. } => "Remove the source and add it again with another key.".into(),
            HashType { .. } => "Store the hash as bytea (or text).".into(),
            SettleDomain { .. } => "Set settle to 0, or use a log ordered by time.".into(),
            CopiedDatabase { .. } => "Nothing is logged until then. If it takes the place of that database, which logs no more, run SELECT adopt_database('continue'); if that one goes on and this is a copy for another purpose, SELECT adopt_database('copy').".into(),
            NotACopy { .. } => "Call it in a database that was restored from a dump, or made from a template, of one with logs.".into(),
            Isolation { .. } => {
                "Use READ COMMITTED: what is behind the fence must be read with a snapshot taken after it.".into()
            }
            Recovery { .. } => "Run it on the primary; roots, proofs and verify_log answer here too.".into(),
            ReadOnly { .. } => "Begin the transaction with BEGIN READ WRITE; default_transaction_read_only says what others begin with.".into(),
            WaitIsolation { .. } => "Use READ COMMITTED: the snapshot of this transaction shows nothing that is logged from now on.".into(),
            IndexOutOfRange { size: 0, .. } | SizeOutOfRange { size: 0, .. } => {
                format!("The log is empty: run process_next_batch first. {ROLLED_BACK}")
            }
            IndexOutOfRange { size, .. } => format!(
                "Use a leaf index from 0 to {}. {ROLLED_BACK}",
                size - 1
            ),
            SizeOutOfRange { size, .. } => format!("Use a tree size from 0 to {size}. {ROLLED_BACK}"),
            IndexBeyondSize { index, .. } => format!("Use a tree size of at least {}.", index + 1),
            SizesReversed { .. } => "Give the older, smaller size first.".into(),
            NoSuchLeaf { .. } => format!("The hash may be of a row that has no entry yet, or of another log. {ROLLED_BACK}"),
            NoSuchRoot { .. } => format!("Only roots of tree heads are found: see tree_heads. {ROLLED_BACK}"),
            RowNotLogged { log, .. } => format!(
                "Run process_next_batch({0}); for a row behind the watermark, reconcile({0}).",
                literal(log)
            ),
            InclusionTimeout { log, .. } => format!(
                "See that something runs process_next_batch({}), or give a longer timeout.",
                literal(log)
            ),
            Key { .. } => "Give the key column's text form; for a composite key the text form of a text[], such as '{7,42}'.".into(),
            Checkpoint(error) => error.hint(),
            OfWorker(refusal) => refusal.hint.clone()?,
            GivenKey(error) => error.hint(),
            Finding(error) => error.hint(),
            Sealed(error) => error.hint(),
            RowGone { log, .. } => format!("Run verify_log({}).", literal(log)),
            ShapeChanged { .. } => "The entry stays provable by its leaf hash; its leaf data must come from a copy of the row as it was.".into(),
            Damaged { log, .. } => format!("Run verify_log({}) to find what was altered.", literal(log)),
            Blocked { .. } | Busy { .. } => {
                "Wait for it to end, or see pg_stat_activity or pg_prepared_xacts and end it; merkle_log.fence_timeout says how long to wait.".into()
            }
            StrayTrigger { .. } => "Drop the trigger, or add the table to a log with add_source, which makes triggers of its own.".into(),
            OldTrigger { log, table } => format!(
                "Run repair_capture({}, {}), which makes the triggers anew.",
                literal(log),
                literal(table_name(table))
            ),
            TriggerStatement { .. } => "It ran with search_path = pg_catalog, pg_temp. Where an event trigger of this database failed in it, name the schemas of what its function uses, or give the function SET search_path.".into(),
            PartitionTruncated { .. } => "Use DELETE, truncate the whole table before its partitions, or detach the partition first.".into(),
            TruncateRefused { log, .. } => format!(
                "Use DELETE, or let the source allow it with alter_source({}, …, allow_truncate => true): then it is logged.",
                literal(log)
            ),
            AppendOnly { log, .. } => format!(
                "Insert a row that corrects the old one, or lift the guard with alter_source({}, …, append_only => false).",
                literal(log)
            ),
            CaptureOption { hint, .. } => (*hint).into(),
            SourceUnreadable { log, .. } => format!("SELECT * FROM verify_log({}) says what is to be done about it.", literal(log)),
            Context { .. } => "Give it as JSON, such as SET LOCAL merkle_log.context = '{\"user\": \"ada\"}', or RESET merkle_log.context.".into(),
            TriggerDomain { .. } => "Create another log for it: order values and order of arrival cannot be compared.".into(),
            Version { library, installed } => match numbers(library) > numbers(installed) {
                true => "Run ALTER EXTENSION merkle_log UPDATE.".into(),
                false => "Install the library of that version, and restart the server if it is preloaded.".into(),
            },
            NoWorker { .. } => "Add merkle_log to shared_preload_libraries and this database to merkle_log.databases, or call process_next_batch.".into(),
            Pruned { .. } => "It can be proven from a proof that was made before, and a root of that time.".into(),
            PrunedProof { .. } => "Ask for a size that tree_heads lists.".into(),
            CannotRedact { .. } => "Only entries of a source added with salted => true can be redacted, each of them once.".into(),
            CannotRedactRow { .. } => "Without a salt the hash of a row with few possible contents can be guessed. Only a source added with salted => true can be redacted.".into(),
            NotOfARow { log, .. } => format!(
                "log_entries({}) says what the entries of the log are.",
                literal(log)
            ),
            NoHistory { log, .. } => format!(
                "From now on it will with alter_source({}, …, store_leaf_data => true).",
                literal(log)
            ),
            MayNotSchedule => "Run GRANT USAGE ON SCHEMA cron TO the role that is to run the log's batches.".into(),
            ScheduledLogGone { log_id } => format!(
                "Take the job away: SELECT cron.unschedule('merkle_log_{log_id}')."
            ),
            NoCron => "Install it here, or call cron.schedule_in_database where it is, or let the background worker run the log.".into(),
            HashLength { .. } => "Give a SHA-256 hash.".into(),
            Encode { .. } => "Leave the column out with add_source(…, columns => …).".into(),
            TypeDepth { .. } => "Leave the column out with add_source(…, columns => …) or alter_source(…, columns => …).".into(),
            RowTooLong { log, table, .. } => format!(
                "Without the content of rows, after alter_source({}, {}, store_leaf_data => false), the log takes rows of any length.",
                literal(log),
                literal(table_name(table))
            ),
        })
    }
}

impl Error {
    /// True if what the tables hold is to blame, not who called or what runs at the same time.
    pub fn is_about_content(&self) -> bool {
        use Error::*;
        !matches!(
            self,
            MayNotRead { .. }
                | MayNotReadKey { .. }
                | MayNotReadLog { .. }
                | MayNotReadAdministration
                | NotInstalled
                | Version { .. }
                | Blocked { .. }
                | Busy { .. }
        )
    }

    /// Raises the error at once, for code that runs in a subtransaction.
    pub fn raise(self) -> ! {
        Error::raise_report(ErrorReport::from(self))
    }

    pub fn raise_report(report: ErrorReport) -> ! {
        report.report(pgrx::PgLogLevel::ERROR);
        unreachable!("an error report does not return")
    }
}

/// A version, to compare.
fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|n| n.parse().unwrap_or(0)).collect()
}

/// A name as SQL has it, quoted whether it must be or not.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as an SQL literal, for hints that can be pasted.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl From<Error> for ErrorReport {
    #[track_caller]
    fn from(error: Error) -> ErrorReport {
        let report = ErrorReport::new(error.sqlstate(), error.to_string(), "merkle_log");
        match error.hint() {
            Some(hint) => report.set_hint(hint),
            None => report,
        }
    }
}
