//! How the logs stand with their witnesses, as JSON and for Prometheus.

use super::Running;
use super::log::now;
use super::standing::Standing;
use crate::http::{self, Metrics, Refusal, label, metrics_answer};
use crate::output::time;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use std::time::Instant;
use tokio::sync::watch;

#[derive(Clone)]
struct Shared {
    running: watch::Receiver<Running>,
    admission: http::Shared,
}

pub fn router(running: watch::Receiver<Running>, admission: &http::Shared) -> Router {
    let router = Router::new()
        .route("/health", get(health))
        .route("/health/live", get(|| async { "live\n" }))
        .route("/metrics", get(metrics));
    admission.bounded(router).with_state(Shared {
        running,
        admission: http::Shared::clone(admission),
    })
}

pub fn refused(refusal: Refusal) -> Response {
    let status = match refusal {
        Refusal::NoSuchPath => StatusCode::NOT_FOUND,
        Refusal::NoSuchMethod => StatusCode::METHOD_NOT_ALLOWED,
        Refusal::TooOften => StatusCode::TOO_MANY_REQUESTS,
        Refusal::TooSlow => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    };
    status.into_response()
}

/// How a log stands.
pub fn of_log(name: &str, standing: &Standing, at: Instant) -> Value {
    let witnesses = standing.witnesses.iter().map(|(name, witness)| {
        json!({
            "name": name,
            "size": witness.cosigned.map(|cosigned| cosigned.head.size),
            "cosigned_at": witness.cosigned.map(|cosigned| time(cosigned.at.min(now()))),
            "error": witness.error,
            "failures": witness.failures,
        })
    });
    json!({
        "log": name,
        "origin": standing.origin,
        "size": standing.newest.map(|newest| newest.size),
        "quorum": standing.is_reached(),
        "quorum_size": standing.quorum.map(|quorum| quorum.head.size),
        "quorum_at": standing.quorum.map(|quorum| time(quorum.at.min(now()))),
        "waiting_seconds": standing.waiting(at).as_secs(),
        "problem": standing.problem,
        "witnesses": witnesses.collect::<Vec<_>>(),
    })
}

async fn health(State(shared): State<Shared>) -> Response {
    let running = shared.running.borrow();
    let at = Instant::now();
    let mut ok = true;
    let mut logs = Vec::new();
    for log in &running.logs {
        let standing = log.standing();
        // Before the first look nothing is known, and nothing is late.
        let good = standing.problem.is_none() && standing.waiting(at) <= running.submitter.late;
        ok &= good;
        let mut value = of_log(&log.name, &standing, at);
        value["ok"] = good.into();
        logs.push(value);
    }
    let body = json!({"ok": ok, "logs": logs}).to_string();
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, body).into_response()
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let metrics = &shared.admission.metrics;
    let mut text = metrics.text();
    let running = shared.running.borrow();
    let at = Instant::now();
    type Read<'r> = &'r dyn Fn(&Standing) -> u64;
    let gauges: [(&str, &str, Read); 6] = [
        (
            "heartbeat_timestamp_seconds",
            "When the database said last what the newest checkpoint is.",
            &|standing| standing.heartbeat,
        ),
        (
            "newest_entries",
            "Entries of the newest checkpoint.",
            &|standing| standing.newest.map_or(0, |newest| newest.size),
        ),
        (
            "quorum_entries",
            "Entries of the newest checkpoint that has its quorum.",
            &|standing| standing.quorum.map_or(0, |quorum| quorum.head.size),
        ),
        (
            "quorum_timestamp_seconds",
            "When that checkpoint was cosigned last.",
            &|standing| standing.quorum.map_or(0, |quorum| quorum.at.min(now())),
        ),
        (
            "quorum_age_seconds",
            "Seconds since that; 0 if no checkpoint ever had its quorum.",
            &|standing| {
                standing
                    .quorum
                    .map_or(0, |quorum| now().saturating_sub(quorum.at))
            },
        ),
        (
            "waiting_seconds",
            "For how long a checkpoint has waited for its quorum.",
            &|standing| standing.waiting(at).as_secs(),
        ),
    ];
    for (name, help, value) in gauges {
        metrics.head(&mut text, name, "gauge", help);
        for log in &running.logs {
            let labels = format!("{{log=\"{}\"}}", label(&log.name));
            metrics.line(&mut text, name, &labels, value(&log.standing()));
        }
    }
    witnesses(metrics, &running, &mut text);
    metrics_answer(text)
}

fn witnesses(metrics: &Metrics, running: &Running, text: &mut String) {
    let name = "witness_failures";
    let help = "Attempts that failed since the witness cosigned last.";
    metrics.head(text, name, "gauge", help);
    for log in &running.logs {
        for (witness, standing) in &log.standing().witnesses {
            let (log, witness) = (label(&log.name), label(witness));
            let labels = format!("{{log=\"{log}\",witness=\"{witness}\"}}");
            metrics.line(text, name, &labels, standing.failures);
        }
    }
}
