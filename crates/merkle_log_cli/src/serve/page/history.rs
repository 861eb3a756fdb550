//! How logs grew and lagged. Sizes over all time come from the tree heads; what only the moment knows, the lag, is
//! noted while the gateway runs.

use crate::serve::gateway::Shared;
use crate::serve::pool::Session;
use crate::serve::problems::Problem;
use crate::serve::read::logs::Log;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What was seen of logs since the gateway started.
#[derive(Default)]
pub struct History(Mutex<BTreeMap<String, VecDeque<Sample>>>);

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Seconds since 1970.
    pub time: u64,
    pub size: i64,
    pub lag_seconds: Option<f64>,
}

const INTERVAL: Duration = Duration::from_secs(15);
/// Four hours.
const KEPT: usize = 960;

impl History {
    /// Notes what all logs are like now. Logs that are not there any more are forgotten.
    pub fn note(&self, time: u64, logs: &[Log]) {
        let mut history = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        history.retain(|name, _| logs.iter().any(|log| log.name == *name));
        for log in logs {
            let samples = history.entry(log.name.clone()).or_default();
            if samples.len() == KEPT {
                samples.pop_front();
            }
            samples.push_back(Sample {
                time,
                size: log.size,
                lag_seconds: log.lag_seconds,
            });
        }
    }

    /// What was noted of a log, and what it is like now.
    pub fn of(&self, log: &Log) -> Vec<Sample> {
        let history = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = history.get(&log.name).into_iter().flatten().copied();
        let now = Sample {
            time: now(),
            size: log.size,
            lag_seconds: log.lag_seconds,
        };
        noted.chain([now]).collect()
    }
}

/// Notes the state of all logs now and then, for as long as it is polled.
pub async fn watch(gateway: Shared) {
    loop {
        // A database that cannot be reached leaves a hole.
        if let Ok(logs) = gateway.logs().await {
            gateway.history.note(now(), &logs);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Calls in a select list end when the first row is there, which those in FROM do not.
const GROWTH: &str = "
    SELECT DISTINCT h.tree_size, pg_catalog.date_part('epoch', h.created_at)
      FROM pg_catalog.generate_series(0, 32) i
     CROSS JOIN LATERAL (SELECT (t.head).tree_size, (t.head).created_at
                           FROM (SELECT @extschema@.tree_heads($1, $2::pg_catalog.int8 * i / 32) AS head LIMIT 1) t) h
     WHERE h.created_at IS NOT NULL ORDER BY h.tree_size";

/// Some of the log's tree heads, from the first to the latest: when it had which size.
pub async fn growth(session: &Session, log: &Log) -> Result<Vec<(u64, f64)>, Problem> {
    let rows = session.rows(GROWTH, &[&log.name, &log.size]).await?;
    let head = |row: &tokio_postgres::Row| {
        let (size, time): (i64, f64) = (row.try_get(0)?, row.try_get(1)?);
        Ok((time.max(0.0) as u64, size as f64))
    };
    let now = Ok((now(), log.size as f64));
    rows.iter().map(head).chain([now]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str, size: i64) -> Log {
        Log {
            name: name.to_owned(),
            size,
            state: "running".to_owned(),
            origin: None,
            verifier_key: None,
            checkpoint_size: None,
            lag_rows: None,
            lag_seconds: Some(size as f64),
            last_batch_at: None,
            pruned_to: 0,
            rows_are_public: false,
        }
    }

    #[test]
    fn history_is_bounded_and_forgets_logs_that_are_gone() {
        let history = History::default();
        for time in 0..2 * KEPT as u64 {
            history.note(time, &[log("a", time as i64), log("b", 0)]);
        }
        let kept = history.of(&log("a", 1));
        assert_eq!(kept.len(), KEPT + 1);
        assert_eq!(kept[0].time, KEPT as u64);
        history.note(5000, &[log("a", 1)]);
        assert_eq!(history.of(&log("b", 0)).len(), 1);
    }
}
