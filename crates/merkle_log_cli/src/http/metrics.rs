//! What is counted, in the text format of Prometheus.

use super::Shared;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub struct Metrics {
    /// What all names begin with.
    prefix: &'static str,
    /// By route and status.
    requests: Mutex<BTreeMap<(String, u16), u64>>,
    /// By route.
    durations: Mutex<BTreeMap<String, Histogram>>,
    in_flight: AtomicI64,
    pub connections: AtomicI64,
    pub connections_refused: AtomicU64,
    pub reloads: AtomicU64,
    pub reloads_failed: AtomicU64,
}

/// Seconds up to which requests are counted together.
const BOUNDS: [f64; 9] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];

#[derive(Default)]
struct Histogram {
    /// Requests up to each bound, and beyond the last.
    counts: [u64; BOUNDS.len() + 1],
    seconds: f64,
}

impl Histogram {
    fn add(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let place = BOUNDS.iter().position(|bound| seconds <= *bound);
        self.counts[place.unwrap_or(BOUNDS.len())] += 1;
        self.seconds += seconds;
    }
}

/// Counts down when a request ends, however it ends.
struct InFlight<'m>(&'m AtomicI64);

impl<'m> InFlight<'m> {
    fn one(counter: &'m AtomicI64) -> InFlight<'m> {
        counter.fetch_add(1, Relaxed);
        InFlight(counter)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

pub async fn observe(State(admission): State<Shared>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let _in_flight = InFlight::one(&admission.metrics.in_flight);
    // Not the path itself, of which there are as many as clients like.
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("none", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    admission
        .metrics
        .count(route, response.status().as_u16(), started.elapsed());
    response
}

impl Metrics {
    pub fn new(prefix: &'static str) -> Metrics {
        Metrics {
            prefix,
            requests: Mutex::default(),
            durations: Mutex::default(),
            in_flight: AtomicI64::new(0),
            connections: AtomicI64::new(0),
            connections_refused: AtomicU64::new(0),
            reloads: AtomicU64::new(0),
            reloads_failed: AtomicU64::new(0),
        }
    }

    fn count(&self, route: String, status: u16, duration: Duration) {
        let mut durations = self
            .durations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        durations.entry(route.clone()).or_default().add(duration);
        drop(durations);
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((route, status)).or_default() += 1;
    }

    pub fn head(&self, text: &mut String, name: &str, kind: &str, help: &str) {
        let prefix = self.prefix;
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "# HELP {prefix}_{name} {help}\n# TYPE {prefix}_{name} {kind}"
        );
    }

    pub fn line(&self, text: &mut String, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(text, "{}_{name}{labels} {value}", self.prefix);
    }

    /// A metric without labels.
    pub fn one(&self, text: &mut String, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(text, name, kind, help);
        self.line(text, name, "", value);
    }

    /// What is counted here.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.requests(&mut text);
        let values = [
            (
                "requests_in_flight",
                "gauge",
                "Requests that are being answered.",
                self.in_flight.load(Relaxed),
            ),
            (
                "connections",
                "gauge",
                "Connections of clients.",
                self.connections.load(Relaxed),
            ),
            (
                "connections_refused_total",
                "counter",
                "Connections that were closed at once because their client had too many.",
                self.connections_refused.load(Relaxed) as i64,
            ),
            (
                "reloads_total",
                "counter",
                "Reloads of the configuration.",
                self.reloads.load(Relaxed) as i64,
            ),
            (
                "reloads_failed_total",
                "counter",
                "Reloads that failed, so that the old configuration stayed.",
                self.reloads_failed.load(Relaxed) as i64,
            ),
        ];
        for (name, kind, help, value) in values {
            self.one(&mut text, name, kind, help, value);
        }
        text
    }

    fn requests(&self, text: &mut String) {
        self.head(
            text,
            "requests_total",
            "counter",
            "Requests by route and status.",
        );
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        for ((route, status), count) in &*requests {
            self.line(
                text,
                "requests_total",
                &format!("{{route=\"{route}\",status=\"{status}\"}}"),
                count,
            );
        }
        drop(requests);
        self.head(
            text,
            "request_duration_seconds",
            "histogram",
            "How long requests took, by route.",
        );
        let durations = self
            .durations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (route, histogram) in &*durations {
            let mut sum = 0;
            let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
            for (bound, count) in bounds.zip(histogram.counts) {
                sum += count;
                let labels = format!("{{route=\"{route}\",le=\"{bound}\"}}");
                self.line(text, "request_duration_seconds_bucket", &labels, sum);
            }
            let labels = format!("{{route=\"{route}\"}}");
            self.line(
                text,
                "request_duration_seconds_sum",
                &labels,
                histogram.seconds,
            );
            self.line(text, "request_duration_seconds_count", &labels, sum);
        }
    }
}

/// A label's value as Prometheus reads it.
pub fn label(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// The answer to whoever asks for metrics.
pub fn metrics_answer(text: String) -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        ),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_up_to_each_bound() {
        let metrics = Metrics::new("merkle_log_test");
        for millis in [0, 3, 100, 60_000] {
            metrics.count("/logs".to_owned(), 200, Duration::from_millis(millis));
        }
        let mut text = String::new();
        metrics.requests(&mut text);
        for expected in [
            "requests_total{route=\"/logs\",status=\"200\"} 4\n",
            "bucket{route=\"/logs\",le=\"0.0005\"} 1\n",
            "bucket{route=\"/logs\",le=\"0.005\"} 2\n",
            "bucket{route=\"/logs\",le=\"+Inf\"} 4\n",
            "count{route=\"/logs\"} 4\n",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }
}
