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
use super::problems::{Kind, Problem};
use super::{limits, metrics, page};
use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
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
    let state = || Shared::clone(gateway);
    router
        .fallback(|| async {
            Problem::new(Kind::NotFound, "nothing has this path")
                .with_hint("GET /docs says what there is.")
        })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                Kind::MethodNotAllowed,
                "this path is not asked with that method",
            )
        })
        .layer(axum::extract::DefaultBodyLimit::max(
            gateway.limits.body_bytes,
        ))
        .layer(middleware::from_fn_with_state(state(), limits::time))
        .layer(middleware::from_fn_with_state(state(), limits::rate))
        .layer(middleware::from_fn_with_state(state(), metrics::observe))
        .layer(CatchPanicLayer::custom(
            |_: Box<dyn std::any::Any + Send>| {
                tracing::error!("a request made the gateway panic");
                Problem::new(Kind::Internal, "the gateway failed").into_response()
            },
        ))
        .layer(middleware::map_response(guarded))
        .with_state(state())
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
