//! The operations as methods of [`Database`]: which function, and over which connection.
//!
//! - `replica`: a connection to the replica, or to the primary where there is none. What it returns may
//!   be older than what the caller has just written.
//! - `primary`: a connection to the primary, for what is one statement.
//! - `transaction`: a transaction on the primary.
//!
//! What the server rolls back for the sake of another transaction is tried again, a few times.

use crate::database::Tries;
use crate::*;
use chrono::{DateTime, Utc};
use uuid::Uuid;

macro_rules! operations {
    ($($over:ident $name:ident($($argument:ident: $type:ty),*) -> $output:ty = $module:ident::$function:ident;)*) => {
        impl Database {
            $(
                #[doc = concat!("[`", stringify!($module), "::", stringify!($function), "`], over: ", stringify!($over), ".")]
                ///
                /// # Errors
                /// As the function's; [`Error::kind`] says what to do.
                pub async fn $name(&self, $($argument: $type),*) -> Result<$output> {
                    let mut tries = Tries::default();
                    loop {
                        let result: Result<$output> =
                            async { operations!(@$over self, $module::$function, $($argument),*) }.await;
                        match result {
                            Err(error) if tries.again(&error).await => {}
                            done => return done,
                        }
                    }
                }
            )*
        }
    };
    (@replica $self:ident, $function:path, $($argument:ident),*) => {{
        let mut connection = $self.replica.as_ref().unwrap_or(&$self.primary).lend().await?;
        let result = $function(&mut connection, $($argument),*).await;
        connection.judge(result)
    }};
    (@primary $self:ident, $function:path, $($argument:ident),*) => {{
        let mut connection = $self.primary.lend().await?;
        let result = $function(&mut connection, $($argument),*).await;
        connection.judge(result)
    }};
    (@transaction $self:ident, $function:path, $($argument:ident),*) => {{
        let mut transaction = $self.primary.begin().await?;
        match $function(&mut transaction, $($argument),*).await {
            Ok(done) => transaction.commit().await.map(|()| done),
            Err(error) => {
                // If that fails as well, the connection is closed, which does the same.
                let _ = transaction.rollback().await;
                Err(error)
            }
        }
    }};
}

operations! {
    primary     create_conversation(id: Uuid, creator: &Did, title: Option<&str>) -> Conversation = conversations::create;
    primary     create_conversation_with_members(id: Uuid, creator: &Did, title: Option<&str>, others: &[Did]) -> Conversation = conversations::create_with_members;
    primary     get_conversation(id: Uuid) -> Conversation = conversations::get;
    replica     list_conversations(member: &Did, before: Option<Cursor>, limit: u16) -> Page<ListedConversation> = conversations::list;
    transaction update_epoch(commit: &Commit<'_>) -> Sent = conversations::update_epoch;
    primary     get_current_epoch(id: Uuid) -> i64 = conversations::get_current_epoch;
    primary     delete_conversation(id: Uuid) -> () = conversations::delete;

    transaction add_member(convo_id: Uuid, did: &Did) -> Member = members::add;
    transaction remove_member(convo_id: Uuid, did: &Did) -> Member = members::remove;
    primary     is_member(convo_id: Uuid, did: &Did) -> bool = members::is_member;
    replica     list_members(convo_id: Uuid, after: Option<&Did>, limit: u16) -> Vec<Member> = members::list;
    primary     get_membership(convo_id: Uuid, did: &Did) -> Option<Member> = members::get_membership;
    primary     update_unread_count(convo_id: Uuid, did: &Did, by: i32) -> i32 = members::update_unread_count;
    transaction reset_unread_count(convo_id: Uuid, did: &Did, read_to: Option<Cursor>) -> i32 = members::reset_unread_count;

    primary     create_message(message: &NewMessage<'_>, past_epochs: PastEpochs) -> Sent = messages::create;
    replica     get_message(convo_id: Uuid, id: Uuid, reader: &Did) -> Message = messages::get;
    replica     list_messages(convo_id: Uuid, reader: &Did, before: Option<Cursor>, limit: u16) -> Page<Message> = messages::list;
    replica     list_messages_since(convo_id: Uuid, reader: &Did, after: Option<Cursor>, limit: u16) -> Page<Message> = messages::list_since;
    replica     list_message_headers(convo_id: Uuid, reader: &Did, before: Option<Cursor>, limit: u16) -> Page<MessageHeader> = messages::list_headers;
    replica     count_messages(convo_id: Uuid, reader: &Did) -> i64 = messages::count;
    primary     delete_message(convo_id: Uuid, id: Uuid) -> () = messages::delete;

    primary     store_key_package(package: &NewKeyPackage<'_>) -> KeyPackage = key_packages::store;
    primary     get_key_package(did: &Did, cipher_suite: u16) -> KeyPackage = key_packages::get;
    transaction claim_key_package(did: &Did, cipher_suite: u16, claim: Uuid) -> KeyPackage = key_packages::claim;
    transaction consume_key_package(did: &Did, id: i64, claim: Uuid) -> KeyPackage = key_packages::consume;
    primary     count_key_packages(did: &Did, cipher_suite: u16) -> i64 = key_packages::count;
    primary     delete_expired_key_packages(before: DateTime<Utc>, limit: u32) -> u64 = key_packages::delete_expired;

    primary     store_blob(cid: &str, data: &[u8], uploader: &Did, convo_id: Option<Uuid>) -> BlobInfo = blobs::store;
    replica     get_blob(cid: &str) -> Blob = blobs::get;
    replica     list_blobs(convo_id: Uuid, before: Option<&BlobInfo>, limit: u16) -> Vec<BlobInfo> = blobs::list;
    primary     delete_blob(cid: &str, uploader: &Did, convo_id: Option<Uuid>) -> () = blobs::delete;
    primary     blob_storage_size(uploader: &Did) -> i64 = blobs::storage_size;
}
