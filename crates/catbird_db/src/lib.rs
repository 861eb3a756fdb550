//! The PostgreSQL layer of an MLS (RFC 9420) delivery service: conversations, members, messages, key
//! packages and blobs.
//!
//! The server stores and orders; it cannot read. Where the extension `merkle_log` is installed, every
//! message and every change of a key package is an entry of an RFC 6962 log, and [`transparency`] hands
//! out proofs that [`proof`] checks without a database. Everything else works without it.
//!
//! ```no_run
//! use catbird_db::*;
//! use uuid::Uuid;
//!
//! # async fn run() -> Result<()> {
//! let db = Database::connect(&Config::from_env()?).await?;
//! db.migrate().await?;
//!
//! let (alice, bob): (Did, Did) = ("did:plc:alice".parse()?, "did:plc:bob".parse()?);
//! let convo = Uuid::now_v7();
//! db.create_conversation_with_members(convo, &alice, Some("Birds"), &[bob.clone()]).await?;
//!
//! let id = Uuid::now_v7(); // a retry with the same id is stored once
//! let message = NewMessage { convo_id: convo, id, sender: &alice, message_type: MessageType::App, epoch: 0, ciphertext: b"sealed" };
//! db.create_message(&message, PastEpochs::Refuse).await?;
//!
//! let page = db.list_messages(convo, &bob, None, 50).await?;
//! assert_eq!(page.items[0].id, id);
//! # Ok(()) }
//! ```
//!
//! # Composing
//!
//! Each operation of [`Database`] is a function on a connection, in the module of what it is about.
//! Several become one transaction with [`Database::begin_transaction`]:
//!
//! ```no_run
//! # use catbird_db::*;
//! # async fn run(db: &Database, convo: uuid::Uuid, bob: &Did) -> Result<()> {
//! let mut transaction = db.begin_transaction().await?;
//! members::add(&mut transaction, convo, bob).await?;
//! members::reset_unread_count(&mut transaction, convo, bob, None).await?;
//! transaction.commit().await?;
//! # Ok(()) }
//! ```
//!
//! # Locks
//!
//! Locks are taken in one order, here and in the migrations' functions:
//!
//! 1. the row of a conversation (`FOR NO KEY UPDATE`), by whoever writes to it;
//! 2. rows of its members, in any order: nobody else holds them; rows of its messages;
//! 3. rows of `blobs`, by whoever adds or takes away a reference: in the order of their names, if several;
//! 4. the table `messages`, then `messages_archive`, then partitions, by maintenance ([`retention`]), which
//!    locks no other table of the crate.
//!
//! So writers of one conversation queue, those of different ones never meet, and there is nothing to
//! deadlock: neither among operations, nor in a transaction of several on one conversation in which
//! [`blobs::store`], which locks no more than the conversation's key, comes last.
//!
//! Who deletes messages locks the partitions of those alone. What maintenance holds while it asks for `messages`
//! keeps neither readers nor writers waiting, so that none of them waits for it with a lock that it asks for.
//! Everyone waits for maintenance no longer than a moment: it asks for `messages` for at most 200 ms at a time, and
//! tries again. Only who deletes messages of a month that is being dropped waits until that month has been looked at.
//!
//! Under the conversation's lock each event takes a time later than the last one's, so
//! that **times follow the order of commits**: a reader who has seen a message has seen all before it, and no
//! page is ever inserted behind a cursor.

pub mod blobs;
mod config;
pub mod conversations;
mod cursor;
mod database;
mod did;
mod error;
pub mod key_packages;
pub mod members;
pub mod messages;
mod operations;
mod pool;
pub mod retention;
pub mod transparency;

pub use blobs::{Blob, BlobInfo};
pub use catbird_proof as proof;
pub use config::Config;
pub use conversations::{Commit, Conversation, ListedConversation, Welcome};
pub use cursor::{Cursor, MAX_PAGE, Page};
pub use database::{Database, Health};
pub use did::Did;
pub use error::{Error, ErrorKind, Result};
pub use key_packages::{KeyPackage, NewKeyPackage};
pub use members::Member;
pub use messages::{Message, MessageHeader, MessageType, NewMessage, PastEpochs, Sent};
pub use pool::{Connection, Transaction};
