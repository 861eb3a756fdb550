//! Conversations: MLS groups, their epochs, and the commits that move them.

use crate::cursor::rows;
use crate::messages::store;
use crate::{Cursor, Did, Error, MessageType, NewMessage, Page, PastEpochs, Result, Sent, members};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use std::collections::BTreeSet;
use uuid::Uuid;

/// The most members that one call adds, and the most that it removes.
pub const MAX_ADDED: usize = 10_000;

/// Of a title, in characters.
pub const MAX_TITLE: usize = 256;

/// An MLS group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Conversation {
    pub id: Uuid,
    pub creator: Did,
    /// RFC 9420 §8: how many commits there were.
    pub epoch: i64,
    pub title: Option<String>,
    pub created_at: DateTime<Utc>,
    /// Of the latest message.
    pub updated_at: DateTime<Utc>,
}

/// A conversation as one of its members sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ListedConversation {
    pub conversation: Conversation,
    pub unread_count: i32,
}

/// A commit message and what comes with it.
#[derive(Clone, Copy, Debug)]
pub struct Commit<'a> {
    /// Of type [`MessageType::Commit`], and of the epoch that it ends.
    pub message: NewMessage<'a>,
    /// In from the new epoch on.
    pub added: &'a [Did],
    /// Out from the new epoch on. They still see the commit. Who is out already stays out: a group's commit
    /// comes after its member has left.
    pub removed: &'a [Did],
    /// For those who are added.
    pub welcome: Option<Welcome<'a>>,
}

/// An MLS Welcome (RFC 9420 §12.4.3.1), stored as a message of the new epoch.
#[derive(Clone, Copy, Debug)]
pub struct Welcome<'a> {
    pub id: Uuid,
    pub ciphertext: &'a [u8],
}

/// Makes a conversation with its creator as the only member. Repeating it with the same id and creator
/// returns the conversation that is there, as it is now. Locks nothing that others wait for.
///
/// # Errors
/// [`Error::ConversationExists`] if someone else made one of this id; [`Error::Invalid`] for a title that is
/// empty or longer than [`MAX_TITLE`].
pub async fn create(
    connection: &mut PgConnection,
    id: Uuid,
    creator: &Did,
    title: Option<&str>,
) -> Result<Conversation> {
    create_with_members(connection, id, creator, title, &[]).await
}

/// As [`create`], with further members, all at epoch 0 and in one statement.
///
/// # Errors
/// As [`create`]; [`Error::Invalid`] for more than [`MAX_ADDED`] members, the creator included.
pub async fn create_with_members(
    connection: &mut PgConnection,
    id: Uuid,
    creator: &Did,
    title: Option<&str>,
    others: &[Did],
) -> Result<Conversation> {
    let characters = title.map_or(1, |title| title.chars().count());
    if !(1..=MAX_TITLE).contains(&characters) || title.is_some_and(|title| title.contains('\0')) {
        let problem =
            format!("{characters} characters are not from 1 to {MAX_TITLE} without a NUL");
        return Err(Error::invalid("title", problem));
    }
    let dids: BTreeSet<&str> = others.iter().chain([creator]).map(Did::as_str).collect();
    let dids: Vec<String> = dids.into_iter().map(str::to_owned).collect();
    if dids.len() > MAX_ADDED {
        return Err(too_many(dids.len()));
    }
    loop {
        let created = sqlx::query_as!(
            Conversation,
            r#"WITH created AS (
               INSERT INTO conversations (id, creator, title, created_at, updated_at, clock)
               SELECT $1, $2, $3, now, now, now FROM clock_timestamp() AS now
               ON CONFLICT (id) DO NOTHING
               RETURNING id, creator, epoch, title, created_at, updated_at),
           joined AS (
               INSERT INTO members (convo_id, member_did, joined_at, joined_epoch)
               SELECT id, did, created_at, epoch FROM created, unnest($4::text[]) AS did)
           SELECT id, creator AS "creator: Did", epoch, title, created_at, updated_at FROM created"#,
            id,
            creator.as_str(),
            title,
            &dids
        );
        if let Some(created) = created.fetch_optional(&mut *connection).await? {
            return Ok(created);
        }
        match get(&mut *connection, id).await {
            // It has been deleted since.
            Err(Error::NotFound { .. }) => {}
            Ok(existing) if existing.creator != *creator => {
                return Err(Error::ConversationExists(id));
            }
            existing => return existing,
        }
    }
}

/// Locks nothing.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(connection: &mut PgConnection, id: Uuid) -> Result<Conversation> {
    let found = sqlx::query_as!(
        Conversation,
        r#"SELECT id, creator AS "creator: Did", epoch, title, created_at, updated_at
             FROM conversations WHERE id = $1"#,
        id
    );
    let found = found.fetch_optional(connection).await?;
    found.ok_or_else(|| Error::not_found("conversation", id))
}

/// The conversations that someone is in now, newest first by when they were made. Locks nothing.
///
/// # Errors
/// [`Error::Invalid`] for a limit beyond [`crate::MAX_PAGE`].
pub async fn list(
    connection: &mut PgConnection,
    member: &Did,
    before: Option<Cursor>,
    limit: u16,
) -> Result<Page<ListedConversation>> {
    let before = before.unwrap_or(Cursor::END);
    let found = sqlx::query!(
        r#"SELECT c.id, c.creator AS "creator: Did", c.epoch, c.title, c.created_at, c.updated_at, m.unread_count
             FROM members m JOIN conversations c ON c.id = m.convo_id
            WHERE m.member_did = $1 AND m.left_at IS NULL AND (c.created_at, c.id) < ($2, $3)
            ORDER BY c.created_at DESC, c.id DESC LIMIT $4"#,
        member.as_str(),
        before.at(),
        before.id(),
        rows(limit)?
    );
    let found = found.fetch_all(connection).await?.into_iter();
    let found = found.map(|row| ListedConversation {
        conversation: Conversation {
            id: row.id,
            creator: row.creator,
            epoch: row.epoch,
            title: row.title,
            created_at: row.created_at,
            updated_at: row.updated_at,
        },
        unread_count: row.unread_count,
    });
    Ok(Page::of(found.collect(), limit, |listed| {
        Cursor::new(listed.conversation.created_at, listed.conversation.id)
    }))
}

/// Moves a conversation to its next epoch: stores the commit, lets members in and out, and stores the
/// welcome, all or nothing. Of racing commits of one epoch one is stored; a repeated one gets the answer
/// that the first one got.
/// Locks the conversation, then its members. Call it in a transaction.
///
/// # Errors
/// [`Error::EpochConflict`] with the current epoch, if another commit was first; [`Error::MessageIdTaken`] also
/// for the welcome; otherwise as [`crate::messages::create`].
pub async fn update_epoch(connection: &mut PgConnection, commit: &Commit<'_>) -> Result<Sent> {
    let message = &commit.message;
    if message.message_type != MessageType::Commit {
        return Err(Error::invalid("commit", "the message is of another type"));
    }
    for dids in [commit.added, commit.removed] {
        if dids.len() > MAX_ADDED {
            return Err(too_many(dids.len()));
        }
    }
    let sent = store(connection, message, PastEpochs::Refuse).await?;
    if sent.duplicate {
        return Ok(sent);
    }
    members::remove_all(connection, message.convo_id, commit.removed).await?;
    members::add_all(connection, message.convo_id, commit.added).await?;
    if let Some(welcome) = &commit.welcome {
        let message = NewMessage {
            id: welcome.id,
            message_type: MessageType::Welcome,
            epoch: sent.epoch,
            ciphertext: welcome.ciphertext,
            ..*message
        };
        // The epoch is new, so what had the id before was no welcome to it.
        if store(connection, &message, PastEpochs::Refuse)
            .await?
            .duplicate
        {
            let NewMessage { convo_id, id, .. } = message;
            return Err(Error::MessageIdTaken { convo_id, id });
        }
    }
    Ok(sent)
}

/// Locks nothing, so it may have moved on when the caller acts on it: [`update_epoch`] will say so.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get_current_epoch(connection: &mut PgConnection, id: Uuid) -> Result<i64> {
    let epoch = sqlx::query_scalar!("SELECT epoch FROM conversations WHERE id = $1", id);
    let epoch = epoch.fetch_optional(connection).await?;
    epoch.ok_or_else(|| Error::not_found("conversation", id))
}

/// Deletes a conversation with its members, messages and blobs; locks all of them. A blob that is kept
/// elsewhere as well stays there.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::AppendOnly`] if it has messages and a transparency log keeps them.
pub async fn delete(connection: &mut PgConnection, id: Uuid) -> Result<()> {
    let deleted = sqlx::query!("DELETE FROM conversations WHERE id = $1", id);
    match deleted.execute(connection).await?.rows_affected() {
        0 => Err(Error::not_found("conversation", id)),
        _ => Ok(()),
    }
}

fn too_many(members: usize) -> Error {
    Error::invalid("members", format!("{members} are more than {MAX_ADDED}"))
}
