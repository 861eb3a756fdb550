//! Months of messages: made ahead of time, put away, and dropped once their entries are in the log for
//! good.

use crate::pool::Transaction;
use crate::proof::TreeHead;
use crate::transparency::{self, Log, batch};
use crate::{Database, Error, Result};
use chrono::{DateTime, Datelike, TimeDelta, Utc};
use sqlx::PgConnection;

/// What is left of a month that was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// As many as there were when it was closed.
    pub messages: i64,
    /// Where there is a log: a state of it that has all of the month's messages.
    pub head: Option<TreeHead>,
    /// Where there is a log: the first entry of a message that is still there. Entries before it were
    /// pruned, or wait for the rest of their tile. Entries of the month that are left, before it or after it,
    /// are `detached` to `verify_log`.
    pub kept_from: Option<i64>,
}

/// How long a month must be over before it is dropped: nobody is still writing into it.
const GRACE: TimeDelta = TimeDelta::hours(1);

/// Makes the partitions for messages of the month of `from` and those after it, `months` in all; returns
/// how many were missing. To be called now and then: messages of a month without partition are refused.
/// Locks `messages` for a moment. Call it in a transaction.
///
/// # Errors
/// [`Error::Invalid`] for a time that no calendar of the server has; the database's.
pub async fn create_partitions(
    connection: &mut PgConnection,
    from: DateTime<Utc>,
    months: u16,
) -> Result<i32> {
    must_be_a_time(from)?;
    let created = sqlx::query_scalar!(
        r#"SELECT create_message_partitions($1, $2) AS "created!""#,
        from,
        i32::from(months)
    );
    let created = created.fetch_one(&mut *connection).await?;
    if created > 0 && transparency::registered(connection).await? {
        let capture = sqlx::query!(
            "SELECT repair_capture($1, 'messages')",
            Log::Messages.name()
        );
        capture.execute(connection).await?;
    }
    Ok(created)
}

/// Until when messages can be stored.
pub(crate) async fn partitions_until(connection: &mut PgConnection) -> Result<DateTime<Utc>> {
    let until = sqlx::query_scalar!(r#"SELECT messages_until() AS "until!""#);
    Ok(until.fetch_one(connection).await?)
}

/// Moves the oldest month that is not in it into `messages_archive`, and its rows to another tablespace
/// if one is named; one that is there already stays there. Readers see them there as before. Locks everyone
/// out of `messages` for a moment. Rows are moved after that: who pages through messages waits until they are,
/// and who sends does not.
///
/// # Errors
/// [`Error::Invalid`] if the month is not over; [`Error::NotFound`] if there is no such month;
/// [`Error::ArchiveOrder`] if an older one is not in the archive yet; [`Error::TimedOut`] if someone reads
/// `messages` for longer than the lock timeout.
pub async fn archive(
    database: &Database,
    month: DateTime<Utc>,
    tablespace: Option<&str>,
) -> Result<()> {
    let mut transaction = begin(database).await?;
    let month = must_be_over(&mut transaction, month).await?;
    lock(&mut transaction, &month).await?;
    let older = sqlx::query_scalar!(
        r"SELECT replace(substr(min(relname::text), 10), '_', '-') FROM pg_inherits JOIN pg_class ON oid = inhrelid
          WHERE inhparent = 'messages'::regclass AND relname LIKE 'messages\_2%' AND relname < message_partition($1)
            AND $1 >= messages_archived_to()",
        month.start
    );
    if let Some(next) = older.fetch_one(&mut *transaction).await? {
        let month = month.name();
        return Err(Error::ArchiveOrder { month, next });
    }
    for tablespace in [None, tablespace] {
        let archived = sqlx::query!("SELECT archive_messages($1, $2)", month.start, tablespace);
        archived.execute(&mut *transaction).await?;
        transaction.commit().await?;
        transaction = begin(database).await?;
    }
    transaction.rollback().await
}

/// Drops a month of messages, archived or not, and prunes the entries before the first one of another month:
/// a log is pruned from its beginning. Where there is a log, only after all of the month's messages are in a committed tree head. What
/// may have to be proven later must be proven before. Lets the month take no more messages, keeps those who delete
/// some of it waiting while it looks at them, and locks everyone out of `messages` for a moment at the end.
///
/// # Errors
/// The month is there as before: [`Error::Invalid`] if it is not over; [`Error::NotFound`] if there is no
/// such month; [`Error::Unlogged`] if messages of it were written past the log. [`Error::TimedOut`] if someone reads
/// `messages` for longer than the lock timeout: the month is there with all its messages, and takes no more.
pub async fn drop_month(database: &Database, month: DateTime<Utc>) -> Result<Dropped> {
    let mut transaction = begin(database).await?;
    let month = must_be_over(&mut transaction, month).await?;
    // Nobody adds to the month from here on, so the batch that finds the queue empty, or takes less than it
    // may, has taken all of it.
    lock(&mut transaction, &month).await?;
    let closed = sqlx::query!("SELECT close_messages($1)", month.start);
    closed.execute(&mut *transaction).await?;
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM messages WHERE sent_at >= $1 AND sent_at < $2"#,
        month.start,
        month.end
    );
    let messages = count.fetch_one(&mut *transaction).await?;
    let mut head = None;
    if transparency::registered(&mut transaction).await? {
        let full = sqlx::query_scalar!(
            r#"SELECT coalesce(batch_size, current_setting('merkle_log.batch_size')::integer)::bigint AS "full!"
                 FROM verification_logs WHERE log_name = $1"#,
            Log::Messages.name()
        );
        let full = full.fetch_one(&mut *transaction).await?;
        while batch(&mut transaction, Log::Messages).await? >= full {}
        must_be_logged(&mut transaction, &month).await?;
        head = Some(transparency::tree_head(&mut transaction, Log::Messages).await?);
    }
    transaction.commit().await?;

    let mut transaction = begin(database).await?;
    lock(&mut transaction, &month).await?;
    let kept_from = match head {
        Some(_) => Some(prune(&mut transaction, &month).await?),
        None => None,
    };
    // Last, since from there to the commit all wait who read or write messages.
    let dropped = sqlx::query!("SELECT drop_messages($1)", month.start);
    dropped.execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(Dropped {
        messages,
        head,
        kept_from,
    })
}

/// Keeps other maintenance off `messages`, and the server's own off a month.
async fn lock(connection: &mut PgConnection, month: &Month) -> Result<()> {
    let locked = sqlx::query_scalar!(r#"SELECT lock_messages($1) AS "there!""#, month.start);
    if locked.fetch_one(connection).await? {
        Ok(())
    } else {
        Err(Error::not_found("month", month.name()))
    }
}

/// A transaction that takes as long as it takes.
async fn begin(database: &Database) -> Result<Transaction> {
    let mut transaction = database.begin_transaction().await?;
    let unlimited = sqlx::query!("SET LOCAL statement_timeout = 0");
    unlimited.execute(&mut *transaction).await?;
    Ok(transaction)
}

async fn must_be_logged(connection: &mut PgConnection, month: &Month) -> Result<()> {
    let unlogged = sqlx::query_scalar!(
        r#"SELECT count(*) AS "unlogged!" FROM messages m
            WHERE sent_at >= $2 AND sent_at < $3
              AND NOT EXISTS (SELECT FROM merkle_log e JOIN verification_logs l USING (log_id)
                               WHERE l.log_name = $1 AND e.order_value IS NOT NULL
                                 AND e.source_key = ARRAY[m.convo_id::text, m.sent_at::text, m.id::text]::text)"#,
        Log::Messages.name(),
        month.start,
        month.end
    );
    match unlogged.fetch_one(connection).await? {
        0 => Ok(()),
        messages => Err(Error::Unlogged {
            month: month.name(),
            messages,
        }),
    }
}

/// Prunes the entries before the first one of a message of another month, and returns its index.
async fn prune(connection: &mut PgConnection, month: &Month) -> Result<i64> {
    // Entries of source 0 say what was redacted; all others have a row's key.
    let kept_from = sqlx::query_scalar!(
        r#"SELECT coalesce(
                  (SELECT e.leaf_index
                     FROM merkle_log e JOIN verification_logs l USING (log_id)
                    WHERE l.log_name = $1 AND e.leaf_index >= l.pruned_to AND e.source_id > 0
                      AND EXISTS (SELECT FROM messages m
                                   WHERE m.convo_id = (e.source_key::text[])[1]::uuid
                                     AND m.sent_at = (e.source_key::text[])[2]::timestamptz
                                     AND m.id = (e.source_key::text[])[3]::uuid
                                     AND (m.sent_at < $2 OR m.sent_at >= $3))
                    ORDER BY e.leaf_index LIMIT 1),
                  merkle_size($1)) AS "kept_from!""#,
        Log::Messages.name(),
        month.start,
        month.end
    );
    let kept_from = kept_from.fetch_one(&mut *connection).await?;
    let pruned = sqlx::query!("SELECT prune_log($1, $2)", Log::Messages.name(), kept_from);
    pruned.fetch_one(connection).await?;
    Ok(kept_from)
}

/// One that a month can be made of, here and on the server.
fn must_be_a_time(at: DateTime<Utc>) -> Result<()> {
    match at.year() {
        1..=9999 => Ok(()),
        year => Err(Error::invalid(
            "month",
            format!("year {year} is not from 1 to 9999"),
        )),
    }
}

/// A month, and the first moment after it.
struct Month {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
}

impl Month {
    fn name(&self) -> String {
        self.start.format("%Y-%m").to_string()
    }
}

/// A month of the past.
async fn must_be_over(connection: &mut PgConnection, month: DateTime<Utc>) -> Result<Month> {
    must_be_a_time(month)?;
    let bounds = sqlx::query_as!(
        Month,
        r#"SELECT message_month($1) AS "start!", next_message_month($1) AS "end!""#,
        month
    );
    let bounds = bounds.fetch_one(connection).await?;
    if bounds.end + GRACE > Utc::now() {
        let problem = format!("{} is not over", bounds.name());
        return Err(Error::invalid("month", problem));
    }
    Ok(bounds)
}
