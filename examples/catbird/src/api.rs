//! Requests in, answers out; what they mean is catbird_db's.

use crate::failure::Failure;
use axum::Json;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use catbird_db::proof::{Consistency, Proof, TreeHead};
use catbird_db::transparency::{self, Log};
use catbird_db::*;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_with::{base64::Base64, serde_as};
use uuid::Uuid;

type Answer<T> = Result<Json<T>, Failure>;
type Db = State<Database>;

/// How many messages old an application message's epoch may be when it arrives.
const PAST_EPOCHS: PastEpochs = PastEpochs::Keep(2);

/// Who calls.
pub struct Caller(Did);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Caller, Failure> {
        let did = parts
            .headers
            .get("x-did")
            .and_then(|value| value.to_str().ok());
        Ok(Caller(did.unwrap_or_default().parse()?))
    }
}

#[derive(Deserialize)]
pub struct NewConversation {
    id: Uuid,
    title: Option<String>,
}

pub async fn create_conversation(
    State(db): Db,
    Caller(did): Caller,
    Json(new): Json<NewConversation>,
) -> Answer<Conversation> {
    let made = db.create_conversation(new.id, &did, new.title.as_deref());
    Ok(Json(made.await?))
}

#[derive(Deserialize)]
pub struct From {
    after: Option<Cursor>,
    before: Option<Cursor>,
    #[serde(default = "page")]
    limit: u16,
}

fn page() -> u16 {
    50
}

pub async fn list_conversations(
    State(db): Db,
    Caller(did): Caller,
    Query(from): Query<From>,
) -> Answer<Page<ListedConversation>> {
    Ok(Json(
        db.list_conversations(&did, from.before, from.limit).await?,
    ))
}

#[serde_as]
#[derive(Deserialize)]
pub struct Sealed {
    id: Uuid,
    epoch: i64,
    #[serde_as(as = "Base64")]
    ciphertext: Vec<u8>,
}

impl Sealed {
    fn message<'a>(
        &'a self,
        convo_id: Uuid,
        sender: &'a Did,
        message_type: MessageType,
    ) -> NewMessage<'a> {
        NewMessage {
            convo_id,
            id: self.id,
            sender,
            message_type,
            epoch: self.epoch,
            ciphertext: &self.ciphertext,
        }
    }
}

pub async fn send(
    State(db): Db,
    Caller(did): Caller,
    Path(convo): Path<Uuid>,
    Json(sealed): Json<Sealed>,
) -> Answer<Sent> {
    let message = sealed.message(convo, &did, MessageType::App);
    Ok(Json(db.create_message(&message, PAST_EPOCHS).await?))
}

#[serde_as]
#[derive(Serialize)]
pub struct Received {
    id: Uuid,
    sender: Did,
    message_type: MessageType,
    epoch: i64,
    sent_at: DateTime<Utc>,
    #[serde_as(as = "Base64")]
    ciphertext: Vec<u8>,
    /// To catch up from after this message.
    cursor: Cursor,
}

pub async fn catch_up(
    State(db): Db,
    Caller(did): Caller,
    Path(convo): Path<Uuid>,
    Query(from): Query<From>,
) -> Answer<Vec<Received>> {
    let page = db
        .list_messages_since(convo, &did, from.after, from.limit)
        .await?;
    let received = page.items.into_iter().map(|message| Received {
        cursor: message.cursor(),
        id: message.id,
        sender: message.sender,
        message_type: message.message_type,
        epoch: message.epoch,
        sent_at: message.sent_at,
        ciphertext: message.ciphertext,
    });
    Ok(Json(received.collect()))
}

#[derive(Deserialize)]
pub struct NewCommit {
    #[serde(flatten)]
    sealed: Sealed,
    #[serde(default)]
    added: Vec<Did>,
    #[serde(default)]
    removed: Vec<Did>,
    welcome: Option<NewWelcome>,
}

#[serde_as]
#[derive(Deserialize)]
struct NewWelcome {
    id: Uuid,
    #[serde_as(as = "Base64")]
    ciphertext: Vec<u8>,
}

pub async fn commit(
    State(db): Db,
    Caller(did): Caller,
    Path(convo): Path<Uuid>,
    Json(new): Json<NewCommit>,
) -> Answer<Sent> {
    let commit = Commit {
        message: new.sealed.message(convo, &did, MessageType::Commit),
        added: &new.added,
        removed: &new.removed,
        welcome: new.welcome.as_ref().map(|welcome| Welcome {
            id: welcome.id,
            ciphertext: &welcome.ciphertext,
        }),
    };
    Ok(Json(db.update_epoch(&commit).await?))
}

#[serde_as]
#[derive(Deserialize)]
pub struct Package {
    cipher_suite: u16,
    #[serde_as(as = "Base64")]
    key_data: Vec<u8>,
    expires_at: DateTime<Utc>,
    #[serde(default)]
    last_resort: bool,
}

#[serde_as]
#[derive(Serialize)]
pub struct Given {
    id: i64,
    did: Did,
    cipher_suite: i32,
    #[serde_as(as = "Base64")]
    key_data: Vec<u8>,
}

fn given(package: KeyPackage) -> Json<Given> {
    Json(Given {
        id: package.id,
        did: package.did,
        cipher_suite: package.cipher_suite,
        key_data: package.key_data,
    })
}

pub async fn store_key_package(
    State(db): Db,
    Caller(did): Caller,
    Json(package): Json<Package>,
) -> Answer<Given> {
    let package = NewKeyPackage {
        did: &did,
        cipher_suite: package.cipher_suite,
        key_data: &package.key_data,
        expires_at: package.expires_at,
        last_resort: package.last_resort,
    };
    Ok(given(db.store_key_package(&package).await?))
}

#[derive(Deserialize)]
pub struct Claim {
    /// Chosen by the caller: made again, the claim gets the same package.
    id: Uuid,
}

pub async fn claim_key_package(
    State(db): Db,
    Caller(_): Caller,
    Path((did, suite)): Path<(Did, u16)>,
    Json(claim): Json<Claim>,
) -> Answer<Given> {
    let claimed = db.claim_key_package(&did, suite, claim.id);
    Ok(given(claimed.await?))
}

#[derive(Deserialize)]
pub struct At {
    tree_size: Option<u64>,
}

pub async fn prove_message(
    State(db): Db,
    Caller(did): Caller,
    Path((convo, id)): Path<(Uuid, Uuid)>,
    Query(at): Query<At>,
) -> Answer<Proof> {
    db.get_message(convo, id, &did).await?; // only who may read it learns that it is there
    let mut connection = db.begin_transaction().await?;
    let proof = transparency::prove_message(&mut connection, convo, id, at.tree_size).await;
    connection.rollback().await?; // keeps the connection
    Ok(Json(proof?))
}

pub async fn prove_key_package(
    State(db): Db,
    Path((did, id)): Path<(Did, i64)>,
    Query(at): Query<At>,
) -> Answer<Proof> {
    let mut connection = db.begin_transaction().await?;
    let proof = transparency::prove_key_package(&mut connection, &did, id, at.tree_size).await;
    connection.rollback().await?; // keeps the connection
    Ok(Json(proof?))
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogName {
    Messages,
    KeyPackages,
}

impl std::convert::From<LogName> for Log {
    fn from(name: LogName) -> Log {
        match name {
            LogName::Messages => Log::Messages,
            LogName::KeyPackages => Log::KeyPackages,
        }
    }
}

pub async fn tree_head(State(db): Db, Path(log): Path<LogName>) -> Answer<TreeHead> {
    let mut connection = db.begin_transaction().await?;
    let head = transparency::tree_head(&mut connection, log.into()).await;
    connection.rollback().await?;
    Ok(Json(head?))
}

#[derive(Deserialize)]
pub struct Sizes {
    old: u64,
    new: Option<u64>,
}

pub async fn consistency(
    State(db): Db,
    Path(log): Path<LogName>,
    Query(sizes): Query<Sizes>,
) -> Answer<Consistency> {
    let mut connection = db.begin_transaction().await?;
    let proof =
        transparency::prove_consistency(&mut connection, log.into(), sizes.old, sizes.new).await;
    connection.rollback().await?; // keeps the connection
    Ok(Json(proof?))
}

pub async fn health(State(db): Db) -> Answer<serde_json::Value> {
    let health = db.health_check().await?;
    Ok(Json(json!({
        "latency_ms": health.latency.as_secs_f64() * 1e3,
        "connections": health.connections,
        "idle_connections": health.idle_connections,
        "replica_lag_s": health.replica_lag.map(|lag| lag.as_secs_f64()),
        "partitions_until": health.partitions_until,
        "transparent": health.transparent,
    })))
}
