//! `/metrics` and `/health` of a program that follows logs.

use crate::output::Failure;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::fmt::{Display, Write};
use std::sync::Arc;
use tokio::net::TcpListener;

/// What is said of the program's state.
pub trait Heartbeat: Send + Sync + 'static {
    /// In the text format of Prometheus.
    fn metrics(&self) -> String;

    /// Whether all is well, and what there is to say.
    fn health(&self) -> (bool, serde_json::Value);
}

/// Answers until the runtime ends.
pub async fn listen(address: &str, program: Arc<impl Heartbeat>) -> Result<(), Failure> {
    let listener = TcpListener::bind(address).await;
    let listener =
        listener.map_err(|error| Failure::Said(format!("cannot listen on {address}: {error}")))?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    let health = Arc::clone(&program);
    let router = Router::new()
        .route("/metrics", get(async move || metrics(&*program)))
        .route("/health", get(async move || self::health(&*health)));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

fn metrics(program: &impl Heartbeat) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, program.metrics()).into_response()
}

fn health(program: &impl Heartbeat) -> Response {
    let (ok, health) = program.health();
    let status = match ok {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (
        status,
        [(header::CACHE_CONTROL, "no-store")],
        axum::Json(health),
    )
        .into_response()
}

/// Metrics as they are written.
pub struct Metrics {
    pub text: String,
    prefix: &'static str,
}

impl Metrics {
    pub fn new(prefix: &'static str) -> Metrics {
        Metrics {
            text: String::new(),
            prefix,
        }
    }

    /// One metric, and its values with their labels.
    pub fn add<V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        values: impl IntoIterator<Item = (String, V)>,
    ) {
        let prefix = self.prefix;
        // Writing to a String does not fail.
        let _ = writeln!(
            self.text,
            "# HELP {prefix}_{name} {help}\n# TYPE {prefix}_{name} {kind}"
        );
        for (labels, value) in values {
            let _ = writeln!(self.text, "{prefix}_{name}{labels} {value}");
        }
    }
}

/// The label of a log. Names have no character that would end it.
pub fn of_log(name: &str) -> String {
    format!("{{log=\"{name}\"}}")
}
