//! Why a checkpoint is not signed, or a note not taken.

use super::literal;
use pgrx::PgSqlErrorCode;

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("no signing key is configured")]
    NoKey,
    #[error("signing key file \"{path}\" {problem}")]
    KeyFile { path: String, problem: String },
    #[error("log \"{log}\" has no origin")]
    NoOrigin { log: String },
    #[error(
        "log \"{log}\" has no origin: this database is a copy, and the origins that its logs had are those of the original"
    )]
    OriginOfCopy { log: String },
    #[error(
        "origin \"{origin}\" is taken: database \"{database}\" of this server has signed a checkpoint of size {size} under it, which log \"{log}\" does not contain"
    )]
    SignedElsewhere {
        log: String,
        origin: String,
        database: String,
        size: i64,
    },
    #[error(
        "what this server has signed under the origin \"{origin}\" is not known: file \"{path}\" {problem}"
    )]
    Memory {
        origin: String,
        path: String,
        problem: String,
    },
    #[error("no process could be started that signs a checkpoint of log \"{log}\"")]
    NoProcess { log: String },
    #[error("the process that signs a checkpoint of log \"{log}\" has ended without an answer")]
    NoAnswer { log: String },
    #[error("origin \"{origin}\" is not valid: {problem}")]
    Origin { origin: String, problem: String },
    #[error("origin \"{origin}\" is that of another log")]
    OriginTaken { origin: String },
    #[error("log \"{log}\" has checkpoints under the origin \"{origin}\"")]
    OriginFixed { log: String, origin: String },
    #[error("log \"{log}\" was written in this transaction, which is not committed")]
    Uncommitted { log: String },
    #[error(
        "synchronous standbys have not confirmed what log \"{log}\" has committed, within {timeout} s"
    )]
    NotReplicated { log: String, timeout: f64 },
    #[error("no checkpoint of log \"{log}\" is signed: {problem}")]
    Contradiction { log: String, problem: String },
    #[error(
        "log \"{log}\" has lost its tail: a checkpoint of size {known} was signed, and the log has {size} entries with root {root}"
    )]
    LostTail {
        log: String,
        known: i64,
        size: i64,
        root: String,
    },
    #[error(
        "the history of log \"{log}\" was rewritten: at size {size} the signed root is {signed}, and the log has {root}"
    )]
    Rewritten {
        log: String,
        size: i64,
        signed: String,
        root: String,
    },
    #[error("log \"{log}\" has no checkpoint of size {size}")]
    NoCheckpoint { log: String, size: String },
    #[error("no checkpoint of log \"{log}\" was signed yet that has entry {index}")]
    NotYetSigned { log: String, index: i64 },
    #[error("the note cannot be taken: {0}")]
    Note(String),
    #[error("the bundles cannot be nested: {0}")]
    NotNested(String),
    #[error("the verifier key cannot be taken: {0}")]
    VerifierKey(String),
    #[error("no log here has the origin \"{origin}\"")]
    NoSuchOrigin { origin: String },
}

impl CheckpointError {
    pub fn sqlstate(&self) -> PgSqlErrorCode {
        use CheckpointError::*;
        match self {
            KeyFile { .. } => PgSqlErrorCode::ERRCODE_CONFIG_FILE_ERROR,
            Origin { .. } | Note(_) | NotNested(_) | VerifierKey(_) => {
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE
            }
            OriginTaken { .. } => PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
            NoCheckpoint { .. } | NotYetSigned { .. } => PgSqlErrorCode::ERRCODE_NO_DATA_FOUND,
            NoSuchOrigin { .. } => PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            NotReplicated { .. } => PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
            SignedElsewhere { .. } => PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
            Memory { .. } => PgSqlErrorCode::ERRCODE_IO_ERROR,
            NoProcess { .. } => PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            NoAnswer { .. } => PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE,
            Contradiction { .. } | LostTail { .. } | Rewritten { .. } => {
                PgSqlErrorCode::ERRCODE_DATA_CORRUPTED
            }
            NoKey
            | NoOrigin { .. }
            | OriginOfCopy { .. }
            | OriginFixed { .. }
            | Uncommitted { .. } => PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        }
    }

    pub fn hint(&self) -> String {
        use CheckpointError::*;
        match self {
            NoKey => "Name the file of the key in merkle_log.signing_key_file, and reload the configuration.".to_owned(),
            KeyFile { .. } => "The file holds one line, PRIVATE+KEY+name+id+key, belongs to the user that the server runs as, and can be read by nobody else (chmod 600).".to_owned(),
            NoOrigin { log } => format!(
                "Give it one with alter_log({}, origin => 'example.com/log'), or set merkle_log.origin_prefix.",
                literal(log)
            ),
            OriginOfCopy { log } => format!(
                "Give it one of its own: SELECT alter_log({}, origin => '…').",
                literal(log)
            ),
            SignedElsewhere { log, .. } => format!(
                "If this is another log, give it an origin of its own: SELECT alter_log({}, origin => '…'). If it is the same one, it has lost or rewritten what was signed: see docs/checkpoints.md. Nothing was signed.",
                literal(log)
            ),
            Memory { .. } => "Bring the file back from a copy of the data directory, or look for the newest checkpoint that was given to anyone, and remove the file only if the log contains that.".to_owned(),
            NoProcess { .. } => "Raise max_worker_processes, or let the background worker sign with alter_log(…, checkpoint_interval => …).".to_owned(),
            NoAnswer { .. } => "The server's log says why. Call checkpoint again: what was signed is kept.".to_owned(),
            Origin { .. } => "An origin is a URL prefix without a scheme and without a slash at its end, such as example.com/log, and has no space and no plus.".to_owned(),
            OriginTaken { .. } => "Choose another: a log is known by its origin.".to_owned(),
            OriginFixed { .. } => "Whoever has one of them knows the log by this origin, so it stays.".to_owned(),
            Uncommitted { .. } => "Commit first: what is signed must not be rolled back.".to_owned(),
            NotReplicated { .. } => "See pg_stat_replication; merkle_log.fence_timeout says how long to wait. Nothing was signed.".to_owned(),
            Contradiction { log, .. } => format!(
                "Run verify_log({}) to find what was altered. Nothing was signed.",
                literal(log)
            ),
            LostTail { .. } => "A backup was restored, or a standby that lagged was promoted. Bring the lost entries back from a server that has them; if there is none, no checkpoint of this log can ever be signed again: begin a new log under a new origin. Nothing was signed.".to_owned(),
            Rewritten { .. } => "The two cannot both be true, and the signed one is known outside. Restore a server that has it, or begin a new log under a new origin. Nothing was signed.".to_owned(),
            NoCheckpoint { .. } => "See merkle_log_checkpoints for those that there are.".to_owned(),
            NotYetSigned { log, .. } => format!("Run checkpoint({0}), or let the worker sign with alter_log({0}, checkpoint_interval => …).", literal(log)),
            Note(_) => "Give the whole note: the text, a blank line, and the signature lines, each line with its newline.".to_owned(),
            NotNested(_) => "The second bundle is of one entry of the hub, and shows its leaf data, which hold the very checkpoint of the first: proof_bundle_at(log, tree_size, leaf_index) makes a bundle under an earlier checkpoint.".to_owned(),
            VerifierKey(_) => "Give it as checkpoint_key(log) says it, or as the witness publishes it: name+id+key.".to_owned(),
            NoSuchOrigin { .. } => "See verification_logs for the origins of the logs.".to_owned(),
        }
    }
}
