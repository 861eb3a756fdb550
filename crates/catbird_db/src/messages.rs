//! Messages: stored once, in one order, seen by who was in when they were sent.

use crate::cursor::rows;
use crate::{Cursor, Did, Error, Page, Result, proof};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

/// Of a message, in bytes.
pub const MAX_CIPHERTEXT: usize = 1 << 20;

/// What an MLS message is for (RFC 9420 §6, §12.1, §12.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "message_type", rename_all = "lowercase")]
pub enum MessageType {
    App,
    Commit,
    Proposal,
    Welcome,
}

impl MessageType {
    pub fn as_str(self) -> &'static str {
        match self {
            MessageType::App => "app",
            MessageType::Commit => "commit",
            MessageType::Proposal => "proposal",
            MessageType::Welcome => "welcome",
        }
    }
}

/// A message to store.
#[derive(Clone, Copy, Debug)]
pub struct NewMessage<'a> {
    pub convo_id: Uuid,
    /// Chosen by the sender: whatever is sent again with the same id is stored once.
    pub id: Uuid,
    pub sender: &'a Did,
    pub message_type: MessageType,
    pub epoch: i64,
    /// At most [`MAX_CIPHERTEXT`].
    pub ciphertext: &'a [u8],
}

/// What happens to application messages that were encrypted before the latest commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PastEpochs {
    /// [`Error::EpochConflict`]: the sender encrypts again.
    Refuse,
    /// Stored, if that was no more than so many epochs ago and the sender was in at that epoch. The
    /// receivers must keep the keys of as many.
    Keep(u16),
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// Later than that of all messages stored in the conversation before.
    pub sent_at: DateTime<Utc>,
    /// The conversation's epoch when the message was stored, after it if it is a commit.
    pub epoch: i64,
    /// It had been stored already, and was not again.
    pub duplicate: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    pub convo_id: Uuid,
    pub id: Uuid,
    pub sender: Did,
    pub message_type: MessageType,
    pub epoch: i64,
    pub ciphertext: Vec<u8>,
    pub sent_at: DateTime<Utc>,
}

impl Message {
    /// Where a page after this message begins.
    pub fn cursor(&self) -> Cursor {
        Cursor::new(self.sent_at, self.id)
    }
}

/// As a client receives it.
impl<'a> From<&'a Message> for proof::Message<'a> {
    fn from(message: &'a Message) -> Self {
        proof::Message {
            convo_id: message.convo_id,
            id: message.id,
            sender: message.sender.as_str(),
            message_type: message.message_type.as_str(),
            epoch: message.epoch as u64,
            ciphertext: &message.ciphertext,
            sent_at: message.sent_at.timestamp_micros(),
        }
    }
}

/// A message without what it says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MessageHeader {
    pub id: Uuid,
    pub sender: Did,
    pub message_type: MessageType,
    pub epoch: i64,
    pub sent_at: DateTime<Utc>,
}

/// Stores a message and, for an application message, counts it as unread for every other member. A repeated
/// one gets the answer that the first one got. Locks the conversation, then the members' rows. Commits have more to them: [`crate::conversations::update_epoch`].
///
/// # Errors
/// [`Error::NotFound`] if there is no such conversation, [`Error::EpochConflict`], [`Error::NotAMember`] if
/// the sender was not in at the message's epoch, [`Error::MessageIdTaken`] if another message has the id (one that
/// was deleted since is known by its sender and type alone), [`Error::Invalid`] for an empty or too long ciphertext,
/// [`Error::NoPartition`] if
/// [`crate::retention::create_partitions`] was not called for this month.
pub async fn create(
    connection: &mut PgConnection,
    message: &NewMessage<'_>,
    past_epochs: PastEpochs,
) -> Result<Sent> {
    match message.message_type {
        MessageType::Commit => Err(Error::invalid("message", "a commit moves the epoch")),
        _ => store(connection, message, past_epochs).await,
    }
}

pub(crate) async fn store(
    connection: &mut PgConnection,
    message: &NewMessage<'_>,
    past_epochs: PastEpochs,
) -> Result<Sent> {
    let NewMessage { convo_id, id, .. } = *message;
    if message.ciphertext.is_empty() || message.ciphertext.len() > MAX_CIPHERTEXT {
        return Err(Error::invalid(
            "ciphertext",
            format!(
                "{} bytes are not from 1 to {MAX_CIPHERTEXT}",
                message.ciphertext.len()
            ),
        ));
    }
    let past_epochs = match past_epochs {
        PastEpochs::Refuse => 0,
        PastEpochs::Keep(epochs) => epochs.into(),
    };
    let stored = sqlx::query!(
        r#"SELECT outcome AS "outcome!", sent_at, current_epoch
             FROM store_message($1, $2, $3, $4, $5, $6, $7)"#,
        convo_id,
        id,
        message.sender.as_str(),
        message.message_type as MessageType,
        message.epoch,
        message.ciphertext,
        past_epochs
    );
    let stored = stored.fetch_one(connection).await?;
    match (
        stored.outcome.as_str(),
        stored.sent_at,
        stored.current_epoch,
    ) {
        (outcome @ ("stored" | "duplicate"), Some(sent_at), Some(epoch)) => Ok(Sent {
            sent_at,
            epoch,
            duplicate: outcome == "duplicate",
        }),
        ("wrong_epoch", _, Some(current)) => Err(Error::EpochConflict {
            convo_id,
            given: message.epoch,
            current,
        }),
        ("no_member", ..) => Err(Error::NotAMember {
            convo_id,
            did: message.sender.clone(),
            epoch: message.epoch,
        }),
        ("id_taken", ..) => Err(Error::MessageIdTaken { convo_id, id }),
        ("no_conversation", ..) => Err(Error::not_found("conversation", convo_id)),
        (outcome, ..) => Err(Error::Database(sqlx::Error::Protocol(format!(
            "store_message() said {outcome}"
        )))),
    }
}

/// A message, if the reader was in when it was sent. Locks nothing.
///
/// # Errors
/// [`Error::NotFound`], also if the reader may not know of it.
pub async fn get(
    connection: &mut PgConnection,
    convo_id: Uuid,
    id: Uuid,
    reader: &Did,
) -> Result<Message> {
    let found = sqlx::query_as!(
        Message,
        r#"SELECT m.convo_id, m.id, m.sender AS "sender: Did", m.message_type AS "message_type: MessageType",
                  m.epoch, m.ciphertext, m.sent_at
             FROM message_ids i
             JOIN messages m ON m.convo_id = i.convo_id AND m.sent_at = i.sent_at AND m.id = i.id
            WHERE i.convo_id = $1 AND i.id = $2
              AND EXISTS (SELECT FROM members s WHERE s.convo_id = $1 AND s.member_did = $3
                             AND s.joined_at <= m.sent_at AND (s.left_at IS NULL OR m.sent_at < s.left_at))"#,
        convo_id,
        id,
        reader.as_str()
    );
    let found = found.fetch_optional(connection).await?;
    found.ok_or_else(|| Error::not_found("message", id))
}

/// What the reader may see, newest first, before a place; `None` is the end. [`Page::next`] is `None` after
/// the last page, where a loop must stop. Locks nothing.
///
/// # Errors
/// [`Error::Invalid`] for a limit beyond [`crate::MAX_PAGE`].
pub async fn list(
    connection: &mut PgConnection,
    convo_id: Uuid,
    reader: &Did,
    before: Option<Cursor>,
    limit: u16,
) -> Result<Page<Message>> {
    let before = before.unwrap_or(Cursor::END);
    // Each time that the reader was in is a range of the index, read from its end. Its bounds are rows,
    // since of a pair of plain ones the planner expects next to nothing, and would sort the range. The
    // plain one leaves later months out.
    let found = sqlx::query_as!(
        Message,
        r#"SELECT m.convo_id, m.id, m.sender AS "sender: Did", m.message_type AS "message_type: MessageType",
                  m.epoch, m.ciphertext, m.sent_at
             FROM (SELECT joined_at, CASE WHEN left_at <= $3 THEN left_at ELSE $3 END AS until,
                          CASE WHEN left_at <= $3 THEN '00000000-0000-0000-0000-000000000000' ELSE $4::uuid END AS until_id
                     FROM members WHERE convo_id = $1 AND member_did = $2) s
            CROSS JOIN LATERAL (
                  SELECT * FROM messages
                   WHERE convo_id = $1 AND sent_at <= s.until AND (sent_at, id) < (s.until, s.until_id)
                     AND (sent_at, id) >= (s.joined_at, '00000000-0000-0000-0000-000000000000')
                   ORDER BY sent_at DESC, id DESC LIMIT $5) m
            ORDER BY m.sent_at DESC, m.id DESC LIMIT $5"#,
        convo_id,
        reader.as_str(),
        before.at(),
        before.id(),
        rows(limit)?
    );
    let found = found.fetch_all(connection).await?;
    Ok(Page::of(found, limit, Message::cursor))
}

/// As [`list`], without what the messages say: read from the index alone.
///
/// # Errors
/// As [`list`].
pub async fn list_headers(
    connection: &mut PgConnection,
    convo_id: Uuid,
    reader: &Did,
    before: Option<Cursor>,
    limit: u16,
) -> Result<Page<MessageHeader>> {
    let before = before.unwrap_or(Cursor::END);
    let found = sqlx::query_as!(
        MessageHeader,
        r#"SELECT m.id, m.sender AS "sender: Did", m.message_type AS "message_type: MessageType", m.epoch, m.sent_at
             FROM (SELECT joined_at, CASE WHEN left_at <= $3 THEN left_at ELSE $3 END AS until,
                          CASE WHEN left_at <= $3 THEN '00000000-0000-0000-0000-000000000000' ELSE $4::uuid END AS until_id
                     FROM members WHERE convo_id = $1 AND member_did = $2) s
            CROSS JOIN LATERAL (
                  SELECT id, sender, message_type, epoch, sent_at FROM messages
                   WHERE convo_id = $1 AND sent_at <= s.until AND (sent_at, id) < (s.until, s.until_id)
                     AND (sent_at, id) >= (s.joined_at, '00000000-0000-0000-0000-000000000000')
                   ORDER BY sent_at DESC, id DESC LIMIT $5) m
            ORDER BY m.sent_at DESC, m.id DESC LIMIT $5"#,
        convo_id,
        reader.as_str(),
        before.at(),
        before.id(),
        rows(limit)?
    );
    let found = found.fetch_all(connection).await?;
    Ok(Page::of(found, limit, |header| {
        Cursor::new(header.sent_at, header.id)
    }))
}

/// What the reader may see, oldest first, after a place: for a client that catches up. The cursor of its
/// last message ([`Message::cursor`]) is where it goes on, however much later. Locks nothing.
///
/// # Errors
/// [`Error::Invalid`] for a limit beyond [`crate::MAX_PAGE`].
pub async fn list_since(
    connection: &mut PgConnection,
    convo_id: Uuid,
    reader: &Did,
    after: Option<Cursor>,
    limit: u16,
) -> Result<Page<Message>> {
    let after = after.unwrap_or(Cursor::START);
    let found = sqlx::query_as!(
        Message,
        r#"SELECT m.convo_id, m.id, m.sender AS "sender: Did", m.message_type AS "message_type: MessageType",
                  m.epoch, m.ciphertext, m.sent_at
             FROM (SELECT coalesce(left_at, 'infinity') AS until,
                          CASE WHEN joined_at > $3 THEN joined_at - interval '1 microsecond' ELSE $3 END AS since,
                          CASE WHEN joined_at > $3 THEN 'ffffffff-ffff-ffff-ffff-ffffffffffff' ELSE $4::uuid END AS since_id
                     FROM members WHERE convo_id = $1 AND member_did = $2) s
            CROSS JOIN LATERAL (
                  SELECT * FROM messages
                   WHERE convo_id = $1 AND sent_at >= s.since AND (sent_at, id) > (s.since, s.since_id)
                     AND (sent_at, id) < (s.until, '00000000-0000-0000-0000-000000000000')
                   ORDER BY sent_at, id LIMIT $5) m
            ORDER BY m.sent_at, m.id LIMIT $5"#,
        convo_id,
        reader.as_str(),
        after.at(),
        after.id(),
        rows(limit)?
    );
    let found = found.fetch_all(connection).await?;
    Ok(Page::of(found, limit, Message::cursor))
}

/// How many messages the reader may see. Locks nothing.
///
/// # Errors
/// Only the database's.
pub async fn count(connection: &mut PgConnection, convo_id: Uuid, reader: &Did) -> Result<i64> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM members s JOIN messages m
               ON m.convo_id = s.convo_id AND m.sent_at >= s.joined_at
              AND m.sent_at < coalesce(s.left_at, 'infinity')
            WHERE s.convo_id = $1 AND s.member_did = $2"#,
        convo_id,
        reader.as_str()
    );
    Ok(count.fetch_one(connection).await?)
}

/// Deletes a message, and no longer counts it for those who had not read it; counters stay as they are if 10,000
/// or more messages came after it. Its id stays taken, so that a
/// late retry does not bring it back; deleting it again changes nothing. Locks the conversation, then the
/// message and members' rows.
///
/// # Errors
/// [`Error::NotFound`] if there never was one of this id; [`Error::AppendOnly`] if a transparency log keeps it.
pub async fn delete(connection: &mut PgConnection, convo_id: Uuid, id: Uuid) -> Result<()> {
    let deleted = sqlx::query_scalar!(
        r#"SELECT delete_message($1, $2) AS "deleted!""#,
        convo_id,
        id
    );
    if deleted.fetch_one(connection).await? {
        Ok(())
    } else {
        Err(Error::not_found("message", id))
    }
}
