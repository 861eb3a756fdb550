//! The routes: what a path and its parameters mean. Each group of them is a router with its own documentation.

mod bundles;
mod checkpoints;
pub mod document;
mod entries;
mod health;
mod logs;
mod proofs;
mod tiles;

use super::gateway::Shared;
use super::page;
use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;

use document::Problems;

/// All that the public listeners serve.
pub fn public(gateway: &Shared) -> Router {
    let (router, document) = OpenApiRouter::with_openapi(document::start())
        .merge(logs::router())
        .merge(proofs::router())
        .merge(entries::router())
        .merge(bundles::router())
        .merge(checkpoints::router())
        .merge(tiles::router())
        .merge(health::router())
        .split_for_parts();
    let router = router
        .merge(page::router())
        .merge(document::router(document));
    bounded(router, gateway)
}

/// A router with what holds for every request.
pub fn bounded(router: Router<Shared>, gateway: &Shared) -> Router {
    gateway
        .admission
        .bounded(router)
        .layer(middleware::map_response(guarded))
        .with_state(Shared::clone(gateway))
}

/// What every answer tells a browser. What is served has no cookies and no forms, so other sites may read it.
async fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let add = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, "ETag, Retry-After"),
    ];
    for (name, value) in add {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

type Described = [(HeaderName, HeaderValue); 2];

/// Media type and lifetime of a content.
fn described(media_type: &'static str, cache: &'static str) -> Described {
    [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static(cache)),
    ]
}
