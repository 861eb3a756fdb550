//! Blobs: encrypted attachments, named by what they contain. Who stores one keeps it, in one conversation or
//! in none, by a reference; content is there once, and goes with its last reference.

use crate::cursor::rows;
use crate::{Did, Error, Result};
use chrono::{DateTime, Utc};
use cid::Cid;
use cid::multihash::Multihash;
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use uuid::Uuid;

/// Of a blob, in bytes.
pub const MAX_BLOB: usize = 50 << 20;

/// Multicodec codes: raw bytes, SHA-256.
const RAW: u64 = 0x55;
const SHA2_256: u64 = 0x12;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Blob {
    pub cid: String,
    pub data: Vec<u8>,
}

/// That someone keeps a blob, in a conversation or in none.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BlobInfo {
    pub cid: String,
    pub uploader: Did,
    pub convo_id: Option<Uuid>,
    /// Bytes.
    pub size: i32,
    pub created_at: DateTime<Utc>,
}

/// The CID of data: version 1, raw, SHA-256, in base32.
///
/// # Errors
/// Never: a SHA-256 fits.
pub fn cid_of(data: &[u8]) -> Result<String> {
    let digest = Multihash::wrap(SHA2_256, &Sha256::digest(data))
        .map_err(|error| Error::invalid("CID", error.to_string()))?;
    Ok(Cid::new_v1(RAW, digest).to_string())
}

/// The name in the form of [`cid_of`]; `None` for what is no CID. One CID can be written in several bases.
fn canonical(name: &str) -> Option<String> {
    name.parse().ok().map(|cid: Cid| cid.to_string())
}

/// Stores a blob under the name that its data give it, for an uploader, in a conversation or in none. A
/// repeated call gets the answer that the first one got. Locks the conversation's key, then the blob's:
/// only who deletes them waits. In a transaction of several operations call it last.
///
/// # Errors
/// [`Error::Invalid`] if the name is not the data's, or the blob is empty or too long;
/// [`Error::NotInConversation`] if it is for a conversation that the uploader is not in.
pub async fn store(
    connection: &mut PgConnection,
    cid: &str,
    data: &[u8],
    uploader: &Did,
    convo_id: Option<Uuid>,
) -> Result<BlobInfo> {
    if data.is_empty() || data.len() > MAX_BLOB {
        return Err(Error::invalid(
            "blob",
            format!("{} bytes are not from 1 to {MAX_BLOB}", data.len()),
        ));
    }
    let named: Cid = cid
        .parse()
        .map_err(|error: cid::Error| Error::invalid("CID", error.to_string()))?;
    let cid = cid_of(data)?;
    if named.to_string() != cid {
        return Err(Error::invalid(
            "CID",
            format!("{named} is not that of the data, {cid}"),
        ));
    }
    let stored = sqlx::query!(
        r#"SELECT outcome AS "outcome!", created_at FROM store_blob($1, $2, $3, $4)"#,
        cid,
        data,
        uploader.as_str(),
        convo_id
    );
    let stored = stored.fetch_one(connection).await?;
    match (stored.outcome.as_str(), stored.created_at, convo_id) {
        ("stored", Some(created_at), _) => Ok(BlobInfo {
            cid,
            uploader: uploader.clone(),
            convo_id,
            size: data.len() as i32,
            created_at,
        }),
        ("no_member", _, Some(convo_id)) => Err(Error::NotInConversation {
            convo_id,
            did: uploader.clone(),
        }),
        (outcome, ..) => Err(Error::Database(sqlx::Error::Protocol(format!(
            "store_blob() said {outcome}"
        )))),
    }
}

/// A blob's data, whoever stored them: the name says what they are. Locks nothing.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(connection: &mut PgConnection, cid: &str) -> Result<Blob> {
    let missing = || Error::not_found("blob", cid);
    let name = canonical(cid).ok_or_else(missing)?;
    let found = sqlx::query_as!(Blob, "SELECT cid, data FROM blobs WHERE cid = $1", name);
    let found = found.fetch_optional(connection).await?;
    found.ok_or_else(missing)
}

/// The blobs of a conversation, newest first, before one that was seen. Locks nothing.
///
/// # Errors
/// [`Error::Invalid`] for a limit beyond [`crate::MAX_PAGE`], or a blob that was never listed: its CID is none.
pub async fn list(
    connection: &mut PgConnection,
    convo_id: Uuid,
    before: Option<&BlobInfo>,
    limit: u16,
) -> Result<Vec<BlobInfo>> {
    let name = match before {
        None => String::new(),
        Some(blob) => {
            canonical(&blob.cid).ok_or_else(|| Error::invalid("place", "its CID is none"))?
        }
    };
    let found = sqlx::query_as!(
        BlobInfo,
        r#"SELECT cid, uploader AS "uploader: Did", convo_id, size, created_at
             FROM blob_references JOIN blobs USING (cid)
            WHERE convo_id = $1
              AND (created_at, cid, uploader) < (coalesce($2, 'infinity'::timestamptz), $3, $4)
            ORDER BY created_at DESC, cid DESC, uploader DESC LIMIT $5"#,
        convo_id,
        before.map(|blob| blob.created_at),
        name,
        before.map_or("", |blob| blob.uploader.as_str()),
        rows(limit)? - 1
    );
    Ok(found.fetch_all(connection).await?)
}

/// Deletes what an uploader keeps in a conversation, or in none; the content goes if nobody else keeps it.
/// Locks the conversation, then the blob's row.
///
/// # Errors
/// [`Error::NotFound`] if they do not keep it there, or no longer.
pub async fn delete(
    connection: &mut PgConnection,
    cid: &str,
    uploader: &Did,
    convo_id: Option<Uuid>,
) -> Result<()> {
    let missing = || Error::not_found("blob", cid);
    let name = canonical(cid).ok_or_else(missing)?;
    let deleted = sqlx::query_scalar!(
        r#"SELECT delete_blob($1, $2, $3) AS "deleted!""#,
        name,
        uploader.as_str(),
        convo_id
    );
    if deleted.fetch_one(connection).await? {
        Ok(())
    } else {
        Err(missing())
    }
}

/// The bytes that someone keeps, each blob counted once. Locks nothing.
///
/// # Errors
/// Only the database's.
pub async fn storage_size(connection: &mut PgConnection, uploader: &Did) -> Result<i64> {
    let size = sqlx::query_scalar!(
        r#"SELECT coalesce(sum(size), 0)::bigint AS "size!" FROM blobs
            WHERE cid IN (SELECT cid FROM blob_references WHERE uploader = $1)"#,
        uploader.as_str()
    );
    Ok(size.fetch_one(connection).await?)
}
