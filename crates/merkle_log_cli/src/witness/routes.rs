//! What a witness serves: `add-checkpoint`, what it has cosigned last, evidence, health and metrics.

use super::answers::{self, said, with_type};
use super::log::{Decision, checkpoint_of, digest, time_of};
use super::state::Witness;
use crate::http::metrics_answer;
use crate::output::time;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tlog::AddCheckpoint;

type Shared = Arc<Witness>;

pub fn router(witness: &Shared) -> Router {
    let router = Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/{log}/checkpoint", get(checkpoint))
        .route("/{log}/evidence/{name}", get(evidence))
        .route("/health", get(health))
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics));
    let bounded = witness.admission.bounded(router);
    bounded.with_state(Arc::clone(witness))
}

async fn add_checkpoint(
    State(witness): State<Shared>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => {
            witness.count("bad_request");
            return said(rejection.status(), "the request cannot be read");
        }
    };
    let request = match AddCheckpoint::from_bytes(&body) {
        Ok(request) => request,
        Err(error) => {
            witness.count("bad_request");
            return said(StatusCode::BAD_REQUEST, &error.to_string());
        }
    };
    let decision = decide(&witness, request).await;
    witness.count(match &decision {
        Decision::Cosigned(_) => "cosigned",
        Decision::Refused(verdict) => answers::name(*verdict),
        Decision::Failed => "failed",
    });
    answers::of(decision)
}

async fn decide(witness: &Witness, request: AddCheckpoint) -> Decision {
    let admitted = match request.admit(&witness.live().policy) {
        Ok(admitted) => admitted,
        Err(verdict) => return Decision::Refused(verdict),
    };
    match witness.log(&digest(request.checkpoint().origin())) {
        Some(log) => log.decide(request, admitted, witness.key.clone()).await,
        // The policy was replaced meanwhile.
        None => Decision::Refused(tlog::Verdict::NotFound),
    }
}

/// The last checkpoint that was cosigned, with the cosignature.
async fn checkpoint(State(witness): State<Shared>, Path(log): Path<String>) -> Response {
    let note = witness.log(&log).and_then(|log| log.shown().note);
    match note {
        Some(note) => with_type(
            StatusCode::OK,
            "text/plain; charset=utf-8",
            note.to_string(),
        ),
        None => said(
            StatusCode::NOT_FOUND,
            "no checkpoint of such a log was cosigned here",
        ),
    }
}

/// A fork: what everyone may hold against the log.
async fn evidence(
    State(witness): State<Shared>,
    Path((log, name)): Path<(String, String)>,
) -> Response {
    let found = witness.log(&log);
    let file = found.and_then(|log| {
        // Only what is in the list is ever opened.
        let forks = log.shown().forks;
        forks.contains(&name).then(|| log.evidence_file(&name))
    });
    let read = match file {
        Some(file) => tokio::fs::read_to_string(file).await.ok(),
        None => None,
    };
    match read {
        Some(content) => with_type(StatusCode::OK, "application/json", content),
        None => said(StatusCode::NOT_FOUND, "there is no such evidence"),
    }
}

#[derive(Serialize)]
struct Health {
    /// No log has forked, and what is cosigned can be kept
    ok: bool,
    /// The key that cosigns
    key: String,
    logs: Vec<LogHealth>,
}

#[derive(Serialize)]
struct LogHealth {
    ok: bool,
    origin: String,
    /// Of the last checkpoint that was cosigned
    size: Option<u64>,
    root: Option<String>,
    cosigned_at: Option<String>,
    /// Paths of what convicts the log
    forks: Vec<String>,
    /// Forks of which no evidence could be kept; the program's log has it
    forks_lost: u64,
    /// Checkpoints that were not shown to continue the log; whoever sent them may have altered the proof
    unproven: usize,
}

async fn health(State(witness): State<Shared>) -> Response {
    let logs: Vec<_> = witness
        .logs()
        .iter()
        .map(|log| {
            let shown = log.shown();
            let forks_lost = log.forks_lost.load(Relaxed);
            let digest = digest(&log.origin);
            let checkpoint = shown.note.as_ref().and_then(checkpoint_of);
            let cosigned_at = shown
                .note
                .as_ref()
                .map(|note| time(time_of(note, &witness.key)));
            LogHealth {
                ok: shown.forks.is_empty() && forks_lost == 0 && !shown.failing,
                forks_lost,
                origin: log.origin.clone(),
                size: checkpoint
                    .as_ref()
                    .map(|checkpoint| checkpoint.size().get()),
                root: checkpoint.map(|checkpoint| checkpoint.root().to_string()),
                cosigned_at,
                forks: shown
                    .forks
                    .iter()
                    .map(|name| format!("/{digest}/evidence/{name}"))
                    .collect(),
                unproven: shown.unproven,
            }
        })
        .collect();
    let health = Health {
        ok: logs.iter().all(|log| log.ok),
        key: witness.verifier_key().to_string(),
        logs,
    };
    // Texts and numbers have a JSON form.
    let body = serde_json::to_string(&health).unwrap_or_default();
    with_type(StatusCode::OK, "application/json", body)
}

/// Whether requests should be sent here.
async fn ready(State(witness): State<Shared>) -> Response {
    match witness.ending.load(Relaxed) {
        true => answers::unavailable("the witness is about to end"),
        false => "ready\n".into_response(),
    }
}

async fn metrics(State(witness): State<Shared>) -> Response {
    metrics_answer(witness.metrics_text())
}
