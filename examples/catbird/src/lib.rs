//! An MLS delivery service (RFC 9750 §5) in a handful of endpoints. It shows what a server does with
//! `catbird_db`, not how to authenticate: the caller's DID is in the header `x-did`, which a gateway in
//! front of it must set and no client may.
//!
//! | | |
//! | --- | --- |
//! | `POST /conversations` | make one |
//! | `GET /conversations` | the caller's |
//! | `POST /conversations/{convo}/messages` | send |
//! | `GET /conversations/{convo}/messages?after=` | catch up: go on from the last `cursor` until nothing comes |
//! | `POST /conversations/{convo}/commits` | change the group: 409 says the current epoch |
//! | `POST /key_packages` | store one |
//! | `POST /key_packages/{did}/{suite}/claim` | be given one, by a claim that may be made again |
//! | `GET /conversations/{convo}/messages/{id}/proof`, `GET /key_packages/{did}/{id}/proof` | of a message, of a key package; `?tree_size=` |
//! | `GET /logs/{log}/head`, `GET /logs/{log}/consistency?old=&new=` | `messages` or `key_packages` |
//! | `GET /health` | |

mod api;
mod failure;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use catbird_db::Database;

/// Of a request: a message in base64, and room for the rest.
const MAX_BODY: usize = 4 << 20;

pub fn router(db: Database) -> Router {
    Router::new()
        .route(
            "/conversations",
            post(api::create_conversation).get(api::list_conversations),
        )
        .route(
            "/conversations/{convo}/messages",
            post(api::send).get(api::catch_up),
        )
        .route("/conversations/{convo}/commits", post(api::commit))
        .route(
            "/conversations/{convo}/messages/{id}/proof",
            get(api::prove_message),
        )
        .route("/key_packages", post(api::store_key_package))
        .route(
            "/key_packages/{did}/{id}/claim",
            post(api::claim_key_package),
        )
        .route(
            "/key_packages/{did}/{id}/proof",
            get(api::prove_key_package),
        )
        .route("/logs/{log}/head", get(api::tree_head))
        .route("/logs/{log}/consistency", get(api::consistency))
        .route("/health", get(api::health))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(db)
}
