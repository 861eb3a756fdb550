//! Everything that can be wrong, what kind of wrong it is, and what to do about it.

use crate::Did;
use sqlx::error::DatabaseError;
use std::borrow::Cow;
use uuid::Uuid;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Its text may be shown to clients: what the server said is the [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{what} {id} does not exist")]
    NotFound { what: &'static str, id: String },
    #[error("conversation {convo_id} is at epoch {current}, and the message is of epoch {given}")]
    EpochConflict {
        convo_id: Uuid,
        given: i64,
        current: i64,
    },
    #[error("conversation {0} already exists, and was made by someone else")]
    ConversationExists(Uuid),
    #[error("message {id} of conversation {convo_id} is already stored, with other content")]
    MessageIdTaken { convo_id: Uuid, id: Uuid },
    #[error("key package {id} of {did} was already given out, has expired, or is a last resort")]
    NotAvailable { did: Did, id: i64 },
    #[error("{did} is not in conversation {convo_id} at epoch {epoch}")]
    NotAMember {
        convo_id: Uuid,
        did: Did,
        epoch: i64,
    },
    #[error("{did} is not in conversation {convo_id}")]
    NotInConversation { convo_id: Uuid, did: Did },
    #[error("what a transparency log holds cannot be changed or deleted")]
    AppendOnly(#[source] sqlx::Error),
    #[error("{what} is not valid: {problem}")]
    Invalid {
        what: &'static str,
        problem: Cow<'static, str>,
    },
    #[error("{what} {id} is not in its log yet")]
    NotYetLogged { what: &'static str, id: String },
    #[error("the log no longer has what {what} {id} was logged with")]
    Erased { what: &'static str, id: String },
    #[error("{messages} messages of {month} are not in the log, nor about to be")]
    Unlogged { month: String, messages: i64 },
    #[error("there is no transparency log in this database")]
    NotRegistered,
    #[error("no connection became free in time")]
    PoolExhausted,
    #[error("{next} is to be archived before {month}")]
    ArchiveOrder { month: String, next: String },
    #[error("there is no partition for messages of this month")]
    NoPartition(#[source] sqlx::Error),
    #[error("the database cannot be reached")]
    Unavailable(#[source] sqlx::Error),
    #[error("another transaction was in the way")]
    Contended(#[source] sqlx::Error),
    #[error("the database took too long")]
    TimedOut(#[source] sqlx::Error),
    #[error("the database cannot be brought up to date")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error("the database answered with an error that is not expected")]
    Database(#[source] sqlx::Error),
}

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// It is not there.
    NotFound,
    /// Somebody else was first: look again, then decide.
    Conflict,
    /// The request is wrong, and stays wrong.
    Invalid,
    /// They may not.
    Denied,
    /// The same call may succeed later. After [`Error::Unavailable`] it may have succeeded already:
    /// calls with an id of the caller's (messages, conversations, key packages, blobs) are safe to
    /// repeat.
    Retryable,
    /// A fault of this crate's, of its set-up, or of the server's.
    Internal,
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        use Error::*;
        match self {
            NotFound { .. } | Erased { .. } => ErrorKind::NotFound,
            EpochConflict { .. }
            | ConversationExists(_)
            | MessageIdTaken { .. }
            | NotAvailable { .. }
            | ArchiveOrder { .. }
            | AppendOnly(_) => ErrorKind::Conflict,
            NotAMember { .. } | NotInConversation { .. } => ErrorKind::Denied,
            Invalid { .. } => ErrorKind::Invalid,
            NotYetLogged { .. }
            | PoolExhausted
            | NoPartition(_)
            | Unavailable(_)
            | Contended(_)
            | TimedOut(_) => ErrorKind::Retryable,
            Unlogged { .. } | NotRegistered | Migration(_) | Database(_) => ErrorKind::Internal,
        }
    }

    /// What can be done about it, where that is not in the message.
    pub fn hint(&self) -> Option<&'static str> {
        use Error::*;
        Some(match self {
            EpochConflict { .. } => {
                "Process the commits up to the current epoch, then encrypt again."
            }
            MessageIdTaken { .. } => "Give each message an id of its own, such as a UUID v7.",
            NotAvailable { .. } => "Claim another with claim_key_package.",
            NotAMember { .. } | NotInConversation { .. } => "A member must add them, by a commit.",
            AppendOnly(_) => "Redact the entry, or drop the month: docs/catbird-db.md.",
            NotYetLogged { .. } => {
                "Ask again after the next batch of the log, or call transparency::log_now."
            }
            Erased { .. } => {
                "It was redacted, or its month dropped: only proofs made before remain."
            }
            Unlogged { .. } => {
                "They were written past the triggers: SELECT repair_capture('catbird_messages', 'messages') lets batches log them."
            }
            NotRegistered => {
                "Run CREATE EXTENSION merkle_log as a superuser, then transparency::register."
            }
            PoolExhausted => {
                "Hold connections for less time, or raise DATABASE_MAX_CONNECTIONS below the server's max_connections."
            }
            ArchiveOrder { .. } => "Archive months in order.",
            NoPartition(_) => "Call retention::create_partitions, now and then.",
            Unavailable(_) => {
                "Check DATABASE_URL, and that the server is running and is no standby."
            }
            TimedOut(_) => {
                "Find the blocker in pg_stat_activity; DATABASE_STATEMENT_TIMEOUT and DATABASE_LOCK_TIMEOUT set the limits."
            }
            Migration(_) => {
                "The migrations in the database are not those of this program: deploy the version that made them."
            }
            _ => return None,
        })
    }

    pub(crate) fn invalid(what: &'static str, problem: impl Into<Cow<'static, str>>) -> Error {
        let problem = problem.into();
        Error::Invalid { what, problem }
    }

    pub(crate) fn not_found(what: &'static str, id: impl ToString) -> Error {
        let id = id.to_string();
        Error::NotFound { what, id }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Error {
        match &error {
            sqlx::Error::PoolTimedOut => return Error::PoolExhausted,
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => return Error::Unavailable(error),
            _ => {}
        }
        let database = error.as_database_error();
        let code = database.and_then(|error| error.code());
        match code.as_deref().unwrap_or_default() {
            // serialization_failure (also a query that a standby cancelled), deadlock_detected
            "40001" | "40P01" => Error::Contended(error),
            // query_canceled, lock_not_available, idle_in_transaction_session_timeout, transaction_timeout
            "57014" | "55P03" | "25P03" | "25P04" => Error::TimedOut(error),
            // restrict_violation: the log's guard
            "23001" => Error::AppendOnly(error),
            // check_violation of no constraint: a row that no partition takes. What callers give is checked
            // before it is sent, so that a constraint is violated only by a fault of this crate's.
            "23514" if database.is_some_and(is_without_partition) => Error::NoPartition(error),
            // too_many_connections, read_only_sql_transaction (a primary that became a standby),
            // connection exceptions, shutdown
            code if ["53300", "25006"].contains(&code)
                || code.starts_with("08")
                || code.starts_with("57P") =>
            {
                Error::Unavailable(error)
            }
            _ => Error::Database(error),
        }
    }
}

fn is_without_partition(error: &dyn DatabaseError) -> bool {
    let table = error.table().unwrap_or_default();
    error.constraint().is_none() && ["messages", "messages_archive"].contains(&table)
}
