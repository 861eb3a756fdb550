//! Health and metrics.

use super::Problems;
use crate::http::metrics_answer;
use crate::serve::answers::{Answer, Answered, Format};
use crate::serve::gateway::Shared;
use crate::serve::problems::{Kind, Problem};
use crate::serve::read::health::{self, Check, Server};
use crate::serve::read::logs::Log;
use crate::serve::request::{Parameters, Reader};
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use std::sync::atomic::Ordering::Relaxed;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(all))
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(metrics))
}

/// The state of the database and of the logs.
#[derive(Serialize, ToSchema)]
struct Health {
    /// Whether all checks are ok
    ok: bool,
    database: Server,
    /// The extension's checks; left out if the gateway's role may not ask for them
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<Vec<Check>>,
    logs: Vec<Log>,
}

/// The state of the database and of the logs, with all checks of the extension
#[utoipa::path(get, path = "/health", responses((status = 200, body = Health), Problems))]
async fn all(
    State(gateway): State<Shared>,
    reader: Reader,
    format: Format,
    parameters: Parameters,
) -> Answered<Health> {
    parameters.end()?;
    let (database, checks) = gateway.health(reader.has_token()).await?;
    let health = Health {
        ok: checks.iter().flatten().all(|check| check.ok),
        database,
        checks,
        logs: gateway.logs().await?,
    };
    Ok(Answer(format, health))
}

/// Whether the gateway runs: a reason to restart it, if not
#[utoipa::path(get, path = "/health/live", responses((status = 200, content((String = "text/plain")))))]
async fn live() -> &'static str {
    "live\n"
}

/// Whether requests should be sent here: the database answers, and the gateway is not about to end
#[utoipa::path(get, path = "/health/ready", responses((status = 200, content((String = "text/plain"))), Problems))]
async fn ready(State(gateway): State<Shared>) -> Result<&'static str, Problem> {
    if gateway.ending.load(Relaxed) {
        return Err(Problem::new(
            Kind::Unavailable,
            "the gateway is about to end",
        ));
    }
    health::server(&*gateway.session().await?).await?;
    Ok("ready\n")
}

/// The gateway's metrics and those of the extension, for Prometheus
#[utoipa::path(get, path = "/metrics", responses((status = 200, content((String = "text/plain")))))]
async fn metrics(State(gateway): State<Shared>) -> Response {
    let extension = gateway.database_metrics().await;
    let mut text = gateway.metrics_text(extension.is_ok()).await;
    if let Ok(extension) = extension {
        text.push_str((*extension).as_deref().unwrap_or_default());
    }
    metrics_answer(text)
}
