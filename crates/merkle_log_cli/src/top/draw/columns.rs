//! The columns of the list of logs.

use super::super::reading::{Log, Running};
use super::super::screen::Verification;
use super::Canvas;
use super::text::{count, span};
use ratatui::layout::Constraint;
use ratatui::text::Line;
use ratatui::widgets::Cell;

/// What a column says of a log.
type Text = fn(&Canvas<'_>, &Log) -> String;

/// A column of the list.
pub struct Column {
    pub title: &'static str,
    pub width: Constraint,
    /// The room that it needs, without the space before it.
    room: u16,
    /// Columns with a higher number go first where there is too little room.
    drops: u8,
    is_text: bool,
    pub is_state: bool,
    pub text: Text,
}

impl Column {
    pub fn cell(&self, text: String) -> Cell<'static> {
        let line = Line::from(text);
        Cell::from(match self.is_text {
            true => line.left_aligned(),
            false => line.right_aligned(),
        })
    }
}

/// A column of numbers.
fn column(title: &'static str, room: u16, drops: u8, text: Text) -> Column {
    Column {
        title,
        width: Constraint::Length(room),
        room,
        drops,
        is_text: false,
        is_state: false,
        text,
    }
}

/// The columns that there is room for.
pub fn columns(width: u16) -> Vec<Column> {
    let mut columns = vec![
        Column {
            width: Constraint::Fill(1),
            is_text: true,
            ..column("log", 9, 0, |_, log| log.name.clone())
        },
        Column {
            is_text: true,
            is_state: true,
            ..column("state", 8, 1, |_, log| log.state.clone())
        },
        column("entries", 11, 2, |_, log| count(log.entries)),
        column("new/s", 6, 7, |canvas, log| canvas.rate(log)),
        column("lag", 7, 3, |_, log| {
            log.lag_rows.map_or("?".to_owned(), count)
        }),
        column("oldest", 6, 6, |_, log| {
            log.lag_seconds.map_or("?".to_owned(), span)
        }),
        column("batch", 6, 4, |canvas, log| canvas.batch(log)),
        column("verify", 6, 5, |canvas, log| canvas.verify(log)),
        column("found", 5, 5, |canvas, log| canvas.found(log)),
        column("signed", 11, 8, |_, log| {
            log.signed.map_or("-".to_owned(), count)
        }),
    ];
    // The mark of the selected row, and a space between columns.
    let room = |columns: &[Column]| columns.iter().map(|column| column.room + 1).sum::<u16>();
    while room(&columns) > width && columns.len() > 1 {
        let least = columns.iter().map(|column| column.drops).max().unwrap_or(0);
        columns.retain(|column| column.drops < least);
    }
    columns
}

impl Canvas<'_> {
    fn rate(&self, log: &Log) -> String {
        self.screen
            .rates
            .get(&log.name)
            .map_or("-".to_owned(), |rate| count(rate.round() as i64))
    }

    /// How far the running batch is, or how long the last one took.
    fn batch(&self, log: &Log) -> String {
        match self.running(log, "process_next_batch") {
            Some(running) if running.total > 0 => percent(running),
            _ => log.batch_seconds.map_or("-".to_owned(), span),
        }
    }

    /// The same of verifications, whoever began the running one.
    fn verify(&self, log: &Log) -> String {
        match (
            self.running(log, "verify_log"),
            self.screen.verifications.get(&log.name),
        ) {
            (Some(running), _) => percent(running),
            (None, Some(Verification::Since(since))) => {
                span(self.now.saturating_duration_since(*since).as_secs_f64())
            }
            (None, Some(Verification::Ended { after, .. })) => span(after.as_secs_f64()),
            (None, None) => "-".to_owned(),
        }
    }

    fn found(&self, log: &Log) -> String {
        match self.screen.verifications.get(&log.name) {
            Some(Verification::Ended {
                found: Ok(found), ..
            }) => count(found.faults as i64),
            Some(Verification::Ended { found: Err(_), .. }) => "error".to_owned(),
            _ => "-".to_owned(),
        }
    }
}

pub fn percent(running: &Running) -> String {
    match running.total {
        ..=0 => "0 %".to_owned(),
        total => format!(
            "{} %",
            (running.done.clamp(0, total) as i128 * 100) / total as i128
        ),
    }
}
