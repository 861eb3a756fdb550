//! The list of logs, and a page for each.

use super::chart::{Chart, grouped, quantity};
use super::history::{self, Sample};
use super::layout::{Part, page};
use super::{Html, in_path};
use crate::output::printable;
use crate::serve::gateway::{Gateway, Shared};
use crate::serve::problems::Problem;
use crate::serve::read::health::Check;
use crate::serve::read::logs::Log;
use crate::serve::request::{LogName, Reader};
use axum::extract::State;
use maud::{Markup, html};

pub async fn overview(
    State(gateway): State<Shared>,
    reader: Result<Reader, Problem>,
) -> Result<Html, Html> {
    let reader = reader?;
    let logs = gateway.logs().await?;
    let found = findings(&gateway, &reader, None).await?;
    let content = html! {
        h1 { "Logs" }
        @if logs.is_empty() { p { "This database has no logs yet." } }
        ul class="logs" {
            @for log in &logs { li class="panel" { (summary(log, &gateway.history.of(log))) } }
        }
        h2 { "What stands out" }
        (shown_findings(&found))
    };
    Ok(Html::ok(page("Logs", Some(Part::Logs), content)))
}

fn summary(log: &Log, samples: &[Sample]) -> Markup {
    html! {
        h2 { a href=(path_of(log)) { (printable(&log.name)) } " " (state(log)) }
        (facts(log))
        (charts(samples))
    }
}

fn path_of(log: &Log) -> String {
    format!("/page/log/{}", in_path(&log.name))
}

fn state(log: &Log) -> Markup {
    let class = match log.state.as_str() {
        "running" => "good",
        "failing" | "held" => "bad",
        _ => "unsure",
    };
    html! { span class={ "state " (class) } { (log.state) } }
}

fn facts(log: &Log) -> Markup {
    let signed = log.checkpoint_size.map(counted);
    let batch = log.last_batch_at.as_deref().map(minute);
    html! {
        dl class="facts number" {
            div { dt { "Entries" } dd { (entries(log.size)) } }
            div { dt { "Lag" } dd { (lag(log)) } }
            div { dt { "Last batch" } dd { (batch.unwrap_or_else(|| "none yet".to_owned())) } }
            div { dt { "Signed" } dd { (signed.unwrap_or_else(|| "nothing yet".to_owned())) } }
        }
    }
}

fn entries(size: i64) -> String {
    grouped(size.max(0) as u64)
}

fn lag(log: &Log) -> String {
    match (log.lag_rows, log.lag_seconds) {
        (Some(0), _) => "none".to_owned(),
        (Some(1), Some(seconds)) => format!("1 row, {}", quantity(seconds, "s")),
        (Some(rows), Some(seconds)) => {
            format!("{} rows, {}", entries(rows), quantity(seconds, "s"))
        }
        (Some(rows), None) => format!("{} rows", entries(rows)),
        (None, _) => "not known".to_owned(),
    }
}

fn counted(size: i64) -> String {
    match size {
        1 => "1 entry".to_owned(),
        size => format!("{} entries", entries(size)),
    }
}

/// A time of the database's, to the minute.
fn minute(time: &str) -> String {
    let time = time.replacen('T', " ", 1);
    format!("{} UTC", time.get(..16).unwrap_or(&time))
}

fn charts(samples: &[Sample]) -> Markup {
    let sizes = samples
        .iter()
        .map(|sample| (sample.time, sample.size as f64));
    html! {
        div class="charts" {
            (Chart { title: "Entries, lately", unit: "", points: sizes.collect() }.draw())
            (lags(samples).draw())
        }
    }
}

fn lags(samples: &[Sample]) -> Chart<'static> {
    let lags = samples
        .iter()
        .filter_map(|sample| Some((sample.time, sample.lag_seconds?)));
    Chart {
        title: "Lag, lately",
        unit: "s",
        points: lags.collect(),
    }
}

/// What is not as it should be.
struct Finding {
    object: String,
    what: String,
    /// Left out where it may name rows that the reader may not see.
    detail: Option<String>,
    mend: Option<String>,
}

/// For a gateway that may not ask for the checks of health.
const FINDINGS: &str = "
    SELECT s.log_name, f.what, f.detail
      FROM @extschema@.merkle_log_status s
     CROSS JOIN LATERAL (VALUES ('the database is a copy, and the log is held', s.held_as_copy_of),
                                ('the last run failed', s.last_error),
                                ('a batch waits', s.waiting_for),
                                ('sources have problems', s.source_problems)) f (what, detail)
     WHERE f.detail IS NOT NULL
     ORDER BY s.log_name";

/// Of all logs, or of one.
async fn findings(
    gateway: &Gateway,
    reader: &Reader,
    log: Option<&str>,
) -> Result<Vec<Finding>, Problem> {
    let of_log = |name: Option<&str>| log.is_none() || name == log;
    if let (_, Some(checks)) = gateway.health(reader.has_token()).await? {
        let failing = checks
            .into_iter()
            .filter(|check| !check.ok && log.is_none_or(|log| check.is_of(log)));
        return Ok(failing.map(Finding::from).collect());
    }
    let session = gateway.session().await?;
    let mut found = Vec::new();
    for row in session.rows(FINDINGS, &[]).await? {
        let object: String = row.try_get(0)?;
        let detail: String = row.try_get(2)?;
        if of_log(Some(&object)) {
            found.push(Finding {
                what: row.try_get(1)?,
                detail: reader.may_see_rows(gateway, &object).then_some(detail),
                object,
                mend: None,
            });
        }
    }
    Ok(found)
}

impl From<Check> for Finding {
    fn from(check: Check) -> Finding {
        Finding {
            object: check.object.unwrap_or_else(|| "the database".to_owned()),
            what: check.check,
            detail: check.detail,
            mend: check.mend,
        }
    }
}

fn shown_findings(findings: &[Finding]) -> Markup {
    html! {
        @if findings.is_empty() {
            p { "Nothing." }
        } @else {
            table class="stacking" {
                thead { tr {
                    th scope="col" { "Of" }
                    th scope="col" { "Check" }
                    th scope="col" { "Detail" }
                } }
                tbody { @for finding in findings { tr {
                    th scope="row" { (printable(&finding.object)) }
                    td { (finding.what) }
                    td {
                        @match &finding.detail {
                            Some(detail) => (printable(detail)),
                            None => "withheld: the text may name rows",
                        }
                        @if let Some(mend) = &finding.mend { p class="hint" { (printable(mend)) } }
                    }
                } } }
            }
        }
        p class="quiet" {
            "Whether rows were changed behind the log's back is for those to find out who may read them: "
            code { "verify_log" } " compares every row with its entry."
        }
    }
}

pub async fn log(
    State(gateway): State<Shared>,
    name: Result<LogName, Problem>,
    reader: Result<Reader, Problem>,
) -> Result<Html, Html> {
    let (LogName(name), reader) = (name?, reader?);
    let log = named(&gateway, &name).await?;
    let found = findings(&gateway, &reader, Some(&name)).await?;
    let session = gateway.session().await?;
    let growth = history::growth(&session, &log).await?;
    let content = html! {
        h1 { (printable(&log.name)) " " (state(&log)) }
        (facts(&log))
        (identity(&log))
        h2 { "Look up an entry" }
        (by_index(&log))
        h2 { "Look up a row" }
        (by_row(&log))
        h2 { "Growth and lag" }
        div class="charts" {
            (Chart { title: "Entries, from the first batch", unit: "", points: growth }.draw())
            (lags(&gateway.history.of(&log)).draw())
        }
        h2 { "What stands out" }
        (shown_findings(&found))
    };
    Ok(Html::ok(page(
        &printable(&log.name),
        Some(Part::Logs),
        content,
    )))
}

/// The log with a name.
pub async fn named(gateway: &Gateway, name: &str) -> Result<Log, Problem> {
    let mut logs = gateway.logs().await?.into_iter();
    logs.find(|log| log.name == name)
        .ok_or_else(|| Problem::unknown_log(name))
}

fn identity(log: &Log) -> Markup {
    html! {
        dl class="facts" {
            @if let Some(origin) = &log.origin { div { dt { "Origin" } dd { (printable(origin)) } } }
            @if log.pruned_to > 0 { div { dt { "Pruned" } dd { "entries before " (entries(log.pruned_to)) } } }
            @if let Some(key) = &log.verifier_key {
                div { dt { "Verifier key, as this server says" } dd { code class="hash" { (key) } } }
            }
        }
        @if log.origin.is_none() {
            p { "No checkpoint of this log was signed yet, so that nothing can be proven to outsiders." }
        }
    }
}

fn by_index(log: &Log) -> Markup {
    let last = log
        .checkpoint_size
        .unwrap_or(log.size)
        .saturating_sub(1)
        .max(0);
    html! {
        form action={ (path_of(log)) "/entry" } method="get" {
            div {
                label for="entry" { "Leaf index or leaf hash" }
                input id="entry" name="entry" required autocomplete="off" spellcheck="false" aria-describedby="entry-hint";
                p class="hint" id="entry-hint" { "A number from 0 to " (entries(last)) ", or 64 hexadecimal digits." }
            }
            button type="submit" { "Look up" }
        }
    }
}

/// With the rows of a public log the address can be shared; a token is never in one.
fn by_row(log: &Log) -> Markup {
    html! {
        form action={ (path_of(log)) "/row" } method=(if log.rows_are_public { "get" } else { "post" }) {
            div class="fields" {
                div {
                    label for="table" { "Table" }
                    input id="table" name="table" required autocomplete="off" spellcheck="false" aria-describedby="table-hint";
                    p class="hint" id="table-hint" { "With its schema: public.orders" }
                }
                div {
                    label for="key" { "Key" }
                    textarea id="key" name="key" rows="1" required autocomplete="off" spellcheck="false" aria-describedby="key-hint" {}
                    p class="hint" id="key-hint" { "Of several columns: a line for each, in their order" }
                }
            }
            @if !log.rows_are_public {
                div {
                    label for="token" { "Access token" }
                    input id="token" name="token" type="password" required autocomplete="off" aria-describedby="token-hint";
                    p class="hint" id="token-hint" { "Rows of this log are shown to those who have a token." }
                }
            }
            button type="submit" { "Look up" }
        }
    }
}
