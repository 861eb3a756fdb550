//! What holds for every request, whatever it asks for: rates, times, sizes, and that no panic ends the program.

use super::limits::{self, Limits, Rates};
use super::metrics::{self, Metrics};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::response::Response;
use std::any::Any;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use tower_http::catch_panic::CatchPanicLayer;

pub type Shared = Arc<Admission>;

pub struct Admission {
    pub limits: Limits,
    pub metrics: Metrics,
    pub(super) rates: Rates,
    /// Reverse proxies whose X-Forwarded-For is believed.
    trusted_proxies: RwLock<Vec<IpAddr>>,
    pub(super) refuse: fn(Refusal) -> Response,
}

/// Why a request is refused before anyone looks at what it asks for. Each command says it in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    NoSuchPath,
    NoSuchMethod,
    TooOften,
    TooSlow,
    /// The answer's code panicked.
    Failed,
}

impl Admission {
    pub fn new(
        limits: Limits,
        metrics_prefix: &'static str,
        trusted_proxies: &[IpAddr],
        refuse: fn(Refusal) -> Response,
    ) -> Shared {
        Arc::new(Admission {
            limits,
            metrics: Metrics::new(metrics_prefix),
            rates: Rates::new(&limits),
            trusted_proxies: RwLock::new(trusted_proxies.to_vec()),
            refuse,
        })
    }

    /// From now on these are believed, and no others.
    pub fn trust(&self, proxies: &[IpAddr]) {
        let mut trusted = self
            .trusted_proxies
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *trusted = proxies.to_vec();
    }

    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        let trusted = self
            .trusted_proxies
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        trusted.contains(&peer.to_canonical())
    }

    /// A router with what holds for every request.
    pub fn bounded<S: Clone + Send + Sync + 'static>(
        self: &Arc<Admission>,
        router: Router<S>,
    ) -> Router<S> {
        let (state, refuse) = (|| Arc::clone(self), self.refuse);
        router
            .fallback(move || async move { refuse(Refusal::NoSuchPath) })
            .method_not_allowed_fallback(move || async move { refuse(Refusal::NoSuchMethod) })
            .layer(DefaultBodyLimit::max(self.limits.body_bytes))
            .layer(middleware::from_fn_with_state(state(), limits::time))
            .layer(middleware::from_fn_with_state(state(), limits::rate))
            .layer(middleware::from_fn_with_state(state(), metrics::observe))
            .layer(CatchPanicLayer::custom(move |_: Box<dyn Any + Send>| {
                tracing::error!("a request made the program panic");
                refuse(Refusal::Failed)
            }))
    }
}
