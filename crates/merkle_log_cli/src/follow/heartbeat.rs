//! `/metrics` and `/health` of a program that follows logs, and its time from start to end.

use crate::http::{
    self, Admission, Limits, Listener, Metrics, Refusal, Server, SharedTls, metrics_answer,
};
use crate::output::Failure;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::fmt::Display;
use std::sync::Arc;
use tokio::sync::watch;

/// What is said of the program's state.
pub trait Heartbeat: Send + Sync + 'static {
    fn metrics(&self, page: &mut Page);

    /// Whether all is well, and what there is to say.
    fn health(&self) -> (bool, serde_json::Value);
}

/// Metrics as they are written.
pub struct Page<'m> {
    metrics: &'m Metrics,
    text: String,
}

impl Page<'_> {
    /// One metric, and its values with their labels.
    pub fn add<V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        values: impl IntoIterator<Item = (String, V)>,
    ) {
        self.metrics.head(&mut self.text, name, kind, help);
        for (labels, value) in values {
            self.metrics.line(&mut self.text, name, &labels, value);
        }
    }
}

/// What a program says at `/metrics`, but for what it counts of its requests.
#[cfg(test)]
pub fn text(prefix: &'static str, program: &impl Heartbeat) -> String {
    let metrics = Metrics::new(prefix);
    let mut page = Page {
        metrics: &metrics,
        text: String::new(),
    };
    program.metrics(&mut page);
    page.text
}

/// The label of a log. Names have no character that would end it.
pub fn of_log(name: &str) -> String {
    format!("{{log=\"{name}\"}}")
}

/// Answers at an address, if there is one, until the program is told to end. What is under way then is done again at the
/// next start: whatever is on disk or committed is whole at any moment.
pub async fn until_ended(
    address: Option<&str>,
    prefix: &'static str,
    program: Arc<impl Heartbeat>,
) -> Result<(), Failure> {
    let (end, ending) = watch::channel(false);
    let mut serving = Vec::new();
    if let Some(address) = address {
        let listener = Listener::bind(address)?;
        tracing::info!(address = listener.name(), "listening");
        let admission = Admission::new(Limits::default(), prefix, &[], refuse);
        let router = admission.bounded(router(&admission, program));
        let server = Server::new(admission, router, SharedTls::new(None)?, ending);
        serving.push((server, listener));
    }
    let on_hang_up = || tracing::warn!("the configuration is read at the start only");
    http::until_ended(serving, end, on_hang_up, || ()).await
}

fn router(admission: &http::Shared, program: Arc<impl Heartbeat>) -> Router {
    let (admission, healthy) = (Arc::clone(admission), Arc::clone(&program));
    let metrics = async move || {
        let mut page = Page {
            metrics: &admission.metrics,
            text: admission.metrics.text(),
        };
        program.metrics(&mut page);
        metrics_answer(page.text)
    };
    let health = async move || {
        let (ok, health) = healthy.health();
        let status = match ok {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        let headers = [(header::CACHE_CONTROL, "no-store")];
        (status, headers, axum::Json(health)).into_response()
    };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
}

fn refuse(refusal: Refusal) -> Response {
    let (status, what) = match refusal {
        Refusal::NoSuchPath => (StatusCode::NOT_FOUND, "there are /metrics and /health\n"),
        Refusal::NoSuchMethod => (StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n"),
        Refusal::TooOften => (StatusCode::TOO_MANY_REQUESTS, "too many requests\n"),
        Refusal::TooSlow => (StatusCode::SERVICE_UNAVAILABLE, "it took too long\n"),
        Refusal::Failed => (StatusCode::INTERNAL_SERVER_ERROR, "it failed\n"),
    };
    (status, what).into_response()
}
