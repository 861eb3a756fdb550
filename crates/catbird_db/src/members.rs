//! Members: who is in a conversation, who was and when, and what they have not read.

use crate::cursor::rows;
use crate::{Cursor, Did, Error, Result};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

/// One time that someone was in a conversation. They see the messages sent from `joined_at` until
/// `left_at`, and may send messages of the epochs from `joined_epoch` until before `left_epoch`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Member {
    pub convo_id: Uuid,
    pub did: Did,
    pub joined_at: DateTime<Utc>,
    /// `None`: they are in it now.
    pub left_at: Option<DateTime<Utc>>,
    pub joined_epoch: i64,
    pub left_epoch: Option<i64>,
    /// Application messages of others since they last read.
    pub unread_count: i32,
}

/// Lets someone in from the current epoch on; returns how they are in, also if they were already. Who
/// was in before keeps that history. Locks the conversation. Call it in a transaction.
///
/// # Errors
/// [`Error::NotFound`] if there is no such conversation.
pub async fn add(connection: &mut PgConnection, convo_id: Uuid, did: &Did) -> Result<Member> {
    add_all(connection, convo_id, std::slice::from_ref(did)).await?;
    let member = get_membership(connection, convo_id, did).await?;
    member.ok_or_else(|| Error::not_found("member", did))
}

/// As [`add`], of many.
///
/// # Errors
/// As [`add`].
pub async fn add_all(connection: &mut PgConnection, convo_id: Uuid, dids: &[Did]) -> Result<()> {
    if dids.is_empty() {
        return Ok(());
    }
    let now = lock(connection, convo_id).await?;
    let dids: Vec<String> = dids.iter().map(|did| did.as_str().to_owned()).collect();
    let added = sqlx::query!(
        "INSERT INTO members (convo_id, member_did, joined_at, joined_epoch)
         SELECT $1, did, $3, $4 FROM (SELECT DISTINCT unnest($2::text[]) AS did) AS added
         ON CONFLICT (convo_id, member_did) WHERE left_at IS NULL DO NOTHING",
        convo_id,
        &dids,
        now.at,
        now.epoch
    );
    added.execute(connection).await?;
    Ok(())
}

/// Lets someone out: they no longer send in the current epoch. Who left before stays out as they are; returns
/// when they were in last. Locks the conversation. Call it in a transaction.
///
/// # Errors
/// [`Error::NotFound`] if there is no such conversation, [`Error::NotInConversation`] if they never were in.
pub async fn remove(connection: &mut PgConnection, convo_id: Uuid, did: &Did) -> Result<Member> {
    remove_all(connection, convo_id, std::slice::from_ref(did)).await?;
    let member = get_membership(connection, convo_id, did).await?;
    member.ok_or_else(|| absent(convo_id, did))
}

/// As [`remove`], of many; passes over those who are not in.
///
/// # Errors
/// [`Error::NotFound`] if there is no such conversation.
pub async fn remove_all(connection: &mut PgConnection, convo_id: Uuid, dids: &[Did]) -> Result<()> {
    if dids.is_empty() {
        return Ok(());
    }
    let now = lock(connection, convo_id).await?;
    let dids: Vec<String> = dids.iter().map(|did| did.as_str().to_owned()).collect();
    let removed = sqlx::query!(
        "UPDATE members SET left_at = $3, left_epoch = $4, unread_count = 0
          WHERE convo_id = $1 AND member_did = ANY ($2) AND left_at IS NULL",
        convo_id,
        &dids,
        now.at,
        now.epoch
    );
    removed.execute(connection).await?;
    Ok(())
}

/// Whether someone is in a conversation now. Locks nothing.
///
/// # Errors
/// Only the database's.
pub async fn is_member(connection: &mut PgConnection, convo_id: Uuid, did: &Did) -> Result<bool> {
    let found = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM members WHERE convo_id = $1 AND member_did = $2 AND left_at IS NULL) AS "found!""#,
        convo_id,
        did.as_str()
    );
    Ok(found.fetch_one(connection).await?)
}

/// Who is in a conversation now, by DID, after one that was seen. Locks nothing.
///
/// # Errors
/// [`Error::Invalid`] for a limit beyond [`crate::MAX_PAGE`].
pub async fn list(
    connection: &mut PgConnection,
    convo_id: Uuid,
    after: Option<&Did>,
    limit: u16,
) -> Result<Vec<Member>> {
    let found = sqlx::query_as!(
        Member,
        r#"SELECT convo_id, member_did AS "did: Did", joined_at, left_at, joined_epoch, left_epoch, unread_count
             FROM members WHERE convo_id = $1 AND left_at IS NULL AND member_did > $2
            ORDER BY member_did LIMIT $3"#,
        convo_id,
        after.map_or("", Did::as_str),
        rows(limit)? - 1
    );
    Ok(found.fetch_all(connection).await?)
}

/// The last time that someone was in a conversation, or is; `None` if never. Locks nothing.
///
/// # Errors
/// Only the database's.
pub async fn get_membership(
    connection: &mut PgConnection,
    convo_id: Uuid,
    did: &Did,
) -> Result<Option<Member>> {
    let found = sqlx::query_as!(
        Member,
        r#"SELECT convo_id, member_did AS "did: Did", joined_at, left_at, joined_epoch, left_epoch, unread_count
             FROM members WHERE convo_id = $1 AND member_did = $2
            ORDER BY joined_at DESC LIMIT 1"#,
        convo_id,
        did.as_str()
    );
    Ok(found.fetch_optional(connection).await?)
}

/// Adds to a member's counter, or takes away, though never below zero or beyond [`i32::MAX`]; returns it.
/// Called again it adds again. Locks the conversation, then the member's row.
///
/// # Errors
/// [`Error::NotInConversation`].
pub async fn update_unread_count(
    connection: &mut PgConnection,
    convo_id: Uuid,
    did: &Did,
    by: i32,
) -> Result<i32> {
    let updated = sqlx::query_scalar!(
        "WITH conversation AS MATERIALIZED (SELECT id FROM conversations WHERE id = $1 FOR NO KEY UPDATE)
         UPDATE members SET unread_count = greatest(0, least(2147483647, unread_count::bigint + $3))::integer
           FROM conversation
          WHERE convo_id = conversation.id AND member_did = $2 AND left_at IS NULL RETURNING unread_count",
        convo_id,
        did.as_str(),
        i64::from(by)
    );
    let updated = updated.fetch_optional(connection).await?;
    updated.ok_or_else(|| absent(convo_id, did))
}

/// The most that a counter is set to by [`reset_unread_count`], and the messages that it looks at for that.
pub const MAX_COUNTED: i64 = 10_000;

/// Sets a member's counter to what came after the place they have read to: none, if no place is given. Of more
/// than [`MAX_COUNTED`] messages that came after it, it counts the last ones: everyone in the conversation waits.
/// Returns it. Locks the conversation, so that no message that comes meanwhile is counted twice or not at
/// all. Call it in a transaction.
///
/// # Errors
/// [`Error::NotFound`] if there is no such conversation, [`Error::NotInConversation`].
pub async fn reset_unread_count(
    connection: &mut PgConnection,
    convo_id: Uuid,
    did: &Did,
    read_to: Option<Cursor>,
) -> Result<i32> {
    lock(connection, convo_id).await?;
    let read_to = read_to.unwrap_or(Cursor::END);
    let updated = sqlx::query_scalar!(
        "UPDATE members SET unread_count = (
             SELECT count(*) FILTER (WHERE message_type = 'app' AND sender <> $2)
               FROM (SELECT message_type, sender FROM messages
                      WHERE messages.convo_id = members.convo_id AND sent_at >= members.joined_at
                        AND sent_at >= $3 AND (sent_at, id) > ($3, $4)
                      ORDER BY sent_at DESC, id DESC LIMIT $5) AS last)
          WHERE convo_id = $1 AND member_did = $2 AND left_at IS NULL RETURNING unread_count",
        convo_id,
        did.as_str(),
        read_to.at(),
        read_to.id(),
        MAX_COUNTED
    );
    let updated = updated.fetch_optional(connection).await?;
    updated.ok_or_else(|| absent(convo_id, did))
}

/// A conversation under lock: its epoch, and a time later than any given out in it.
struct Now {
    at: DateTime<Utc>,
    epoch: i64,
}

async fn lock(connection: &mut PgConnection, convo_id: Uuid) -> Result<Now> {
    let locked = sqlx::query_as!(
        Now,
        r#"UPDATE conversations
              SET clock = greatest(clock_timestamp(), clock + interval '1 microsecond')
            WHERE id = $1 RETURNING clock AS at, epoch"#,
        convo_id
    );
    let locked = locked.fetch_optional(connection).await?;
    locked.ok_or_else(|| Error::not_found("conversation", convo_id))
}

fn absent(convo_id: Uuid, did: &Did) -> Error {
    let did = did.clone();
    Error::NotInConversation { convo_id, did }
}
