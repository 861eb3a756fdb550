//! The page: logs, look-ups and proofs for people, and the verifier that runs in their browser.

use super::gateway::Shared;
use axum::Router;

/// The paths that are not for programs. They share limits, headers and metrics with all others. `Shared` is the
/// gateway's state: `gateway.session()` is a session for the functions of `super::read`, and `gateway.logs()` and
/// `gateway.health(…)` are what many ask for; `super::request::Reader` says who may see rows.
pub fn router() -> Router<Shared> {
    Router::new()
}
