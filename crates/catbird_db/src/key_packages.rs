//! Key packages (RFC 9420 §10): each is given to one joiner, last-resort ones to any number.

use crate::{Did, Error, Result, proof};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

/// Of a key package, in bytes.
pub const MAX_KEY_DATA: usize = 1 << 16;

/// A key package to store.
#[derive(Clone, Copy, Debug)]
pub struct NewKeyPackage<'a> {
    pub did: &'a Did,
    /// RFC 9420 §17.1.
    pub cipher_suite: u16,
    /// At most [`MAX_KEY_DATA`].
    pub key_data: &'a [u8],
    pub expires_at: DateTime<Utc>,
    /// Given out when no other is left, again and again (RFC 9420 §16.8).
    pub last_resort: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeyPackage {
    pub id: i64,
    pub did: Did,
    pub cipher_suite: i32,
    pub key_data: Vec<u8>,
    pub last_resort: bool,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    /// When it was given out.
    pub consumed_at: Option<DateTime<Utc>>,
}

/// As a client receives it.
impl<'a> From<&'a KeyPackage> for proof::KeyPackage<'a> {
    fn from(package: &'a KeyPackage) -> Self {
        proof::KeyPackage {
            did: package.did.as_str(),
            cipher_suite: package.cipher_suite as u16,
            key_data: &package.key_data,
        }
    }
}

/// Stores a key package; one that is there already is returned as it is. Locks nothing that others wait
/// for.
///
/// # Errors
/// [`Error::Invalid`] if it is empty, too long, has expired, or is of cipher suite 0.
pub async fn store(
    connection: &mut PgConnection,
    package: &NewKeyPackage<'_>,
) -> Result<KeyPackage> {
    if package.key_data.is_empty() || package.key_data.len() > MAX_KEY_DATA {
        return Err(Error::invalid(
            "key package",
            format!(
                "{} bytes are not from 1 to {MAX_KEY_DATA}",
                package.key_data.len()
            ),
        ));
    }
    if package.cipher_suite == 0 {
        return Err(Error::invalid("cipher suite", "0 is reserved"));
    }
    if package.expires_at <= Utc::now() {
        return Err(expired());
    }
    loop {
        let stored = sqlx::query_as!(
            KeyPackage,
            r#"INSERT INTO key_packages (did, cipher_suite, key_data, expires_at, last_resort)
               VALUES ($1, $2, $3, $4, $5)
               ON CONFLICT (did, cipher_suite, digest) DO NOTHING
               RETURNING id, did AS "did: Did", cipher_suite, key_data, last_resort, created_at, expires_at, consumed_at"#,
            package.did.as_str(),
            i32::from(package.cipher_suite),
            package.key_data,
            package.expires_at,
            package.last_resort
        );
        match stored.fetch_optional(&mut *connection).await {
            Err(error) if violates(&error, "key_packages_check") => return Err(expired()),
            Err(error) => return Err(error.into()),
            Ok(Some(stored)) => return Ok(stored),
            Ok(None) => {}
        }
        let existing = sqlx::query_as!(
            KeyPackage,
            r#"SELECT id, did AS "did: Did", cipher_suite, key_data, last_resort, created_at, expires_at, consumed_at
                 FROM key_packages WHERE did = $1 AND cipher_suite = $2 AND digest = sha256($3)"#,
            package.did.as_str(),
            i32::from(package.cipher_suite),
            package.key_data
        );
        // It may have been deleted since, because it had expired.
        if let Some(existing) = existing.fetch_optional(&mut *connection).await? {
            return Ok(existing);
        }
    }
}

/// The package that [`claim`] would give, left where it is. Locks nothing: another caller may be given
/// it first.
///
/// # Errors
/// [`Error::NotFound`] if none is available.
pub async fn get(
    connection: &mut PgConnection,
    did: &Did,
    cipher_suite: u16,
) -> Result<KeyPackage> {
    // Two queries, each of which is the beginning of an index that has no package that was given out.
    let found = sqlx::query_as!(
        KeyPackage,
        r#"SELECT id AS "id!", did AS "did!: Did", cipher_suite AS "cipher_suite!", key_data AS "key_data!",
                  last_resort AS "last_resort!", created_at AS "created_at!", expires_at AS "expires_at!", consumed_at
             FROM ((SELECT * FROM key_packages
                     WHERE did = $1 AND cipher_suite = $2 AND consumed_at IS NULL AND NOT last_resort
                       AND expires_at > statement_timestamp()
                     ORDER BY id LIMIT 1)
                   UNION ALL
                   (SELECT * FROM key_packages
                     WHERE did = $1 AND cipher_suite = $2 AND last_resort AND expires_at > statement_timestamp()
                     ORDER BY id DESC LIMIT 1)) AS available
            LIMIT 1"#,
        did.as_str(),
        i32::from(cipher_suite)
    );
    let found = found.fetch_optional(connection).await?;
    found.ok_or_else(|| none_left(did))
}

/// Gives out the oldest package that is available, to this claim alone; the newest last-resort one, if no
/// other is left. A claim of the same id gets the same package again, also after that has expired, until
/// [`delete_expired`] removes it. Whoever knows a claim's id gets its package: make it random, and tell nobody.
/// Locks the claim, then the package's row, and passes over those that others are being given. Call it in a transaction: the package is given out when
/// that commits, and stays where it was if it does not.
///
/// # Errors
/// [`Error::NotFound`] if none is available.
pub async fn claim(
    connection: &mut PgConnection,
    did: &Did,
    cipher_suite: u16,
    claim: Uuid,
) -> Result<KeyPackage> {
    let claimed = sqlx::query_as!(
        KeyPackage,
        r#"SELECT id AS "id!", did AS "did!: Did", cipher_suite AS "cipher_suite!", key_data AS "key_data!",
                  last_resort AS "last_resort!", created_at AS "created_at!", expires_at AS "expires_at!", consumed_at
             FROM claim_key_package($1, $2, $3)"#,
        did.as_str(),
        i32::from(cipher_suite),
        claim
    );
    let claimed = claimed.fetch_optional(connection).await?;
    claimed.ok_or_else(|| none_left(did))
}

/// Marks one package as given out, for a server that chose it by [`get`]. The same claim may do so again.
/// Locks the claim, then its row. Call it in a transaction.
///
/// # Errors
/// [`Error::NotAvailable`] if it was given out to another claim, has expired, or is a last resort, or if the
/// claim was given another package.
pub async fn consume(
    connection: &mut PgConnection,
    did: &Did,
    id: i64,
    claim: Uuid,
) -> Result<KeyPackage> {
    let consumed = sqlx::query_as!(
        KeyPackage,
        r#"SELECT id AS "id!", did AS "did!: Did", cipher_suite AS "cipher_suite!", key_data AS "key_data!",
                  last_resort AS "last_resort!", created_at AS "created_at!", expires_at AS "expires_at!", consumed_at
             FROM consume_key_package($1, $2, $3)"#,
        did.as_str(),
        id,
        claim
    );
    let consumed = consumed.fetch_optional(connection).await?;
    consumed.ok_or_else(|| Error::NotAvailable {
        did: did.clone(),
        id,
    })
}

/// How many packages [`claim`] can still give out once, for a client to know when to store more. Locks
/// nothing.
///
/// # Errors
/// Only the database's.
pub async fn count(connection: &mut PgConnection, did: &Did, cipher_suite: u16) -> Result<i64> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM key_packages
            WHERE did = $1 AND cipher_suite = $2 AND consumed_at IS NULL AND NOT last_resort
              AND expires_at > statement_timestamp()"#,
        did.as_str(),
        i32::from(cipher_suite)
    );
    Ok(count.fetch_one(connection).await?)
}

/// Deletes up to `limit` packages that expired before a time, with the claims that were answered with them, and
/// returns how many: call it until it returns less. Locks their rows, and passes over those that others hold.
///
/// # Errors
/// Only the database's.
pub async fn delete_expired(
    connection: &mut PgConnection,
    before: DateTime<Utc>,
    limit: u32,
) -> Result<u64> {
    // The server knows no times as far off as chrono does.
    let before = before.max(DateTime::UNIX_EPOCH);
    let deleted = sqlx::query!(
        "WITH expired AS MATERIALIZED (
             SELECT did, id FROM key_packages
              WHERE expires_at < least($1, statement_timestamp())
              ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)
         DELETE FROM key_packages p USING expired WHERE p.did = expired.did AND p.id = expired.id",
        before,
        i64::from(limit)
    );
    Ok(deleted.execute(connection).await?.rows_affected())
}

fn none_left(did: &Did) -> Error {
    Error::not_found("available key package of", did)
}

fn expired() -> Error {
    Error::invalid("key package", "it has expired")
}

fn violates(error: &sqlx::Error, constraint: &str) -> bool {
    let violated = error.as_database_error().and_then(|e| e.constraint());
    violated == Some(constraint)
}
