//! Draws what the dashboard knows, in whatever room there is. Colours repeat what words say.

mod columns;
mod text;

use super::reading::{Log, Reading, Running};
use super::screen::{Screen, Verification};
use crate::output::printable;
use columns::{columns, percent};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Row, Table, TableState, Wrap};
use std::time::{Duration, Instant};
use text::{bytes, count, one_line, span};

/// Less than this shows nothing that anyone could read.
const SMALLEST: (u16, u16) = (24, 6);
/// Rows from which on there is room for the selected log beside the list of all.
const WITH_DETAILS: u16 = 14;

const KEYS: [(&str, &str); 6] = [
    (
        "up, down, j, k",
        "select a log; home and end: the first and the last",
    ),
    ("p, r", "pause the selected log, resume it"),
    ("v", "verify it: its rows, entries, tiles and checkpoints"),
    ("space", "read everything now"),
    ("?, h", "this help"),
    ("q, esc", "quit"),
];

struct Canvas<'s> {
    screen: &'s Screen,
    now: Instant,
    colors: bool,
}

pub fn draw(frame: &mut Frame, screen: &Screen, now: Instant, colors: bool) {
    let area = frame.area();
    let canvas = Canvas {
        screen,
        now,
        colors,
    };
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        frame.render_widget(Paragraph::new("merkle-log: no room"), area);
        return;
    }
    let details = match area.height >= WITH_DETAILS {
        true => (area.height / 2).clamp(7, 14),
        false => 0,
    };
    let [title, state, list, selected, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(2),
        Constraint::Length(details),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(canvas.title(title.width)), title);
    frame.render_widget(Paragraph::new(canvas.state()), state);
    canvas.list(frame, list);
    if details > 0 {
        canvas.details(frame, selected);
    }
    frame.render_widget(Paragraph::new(canvas.foot()), foot);
    if screen.help {
        canvas.help(frame, area);
    }
}

impl Canvas<'_> {
    fn color(&self, color: Color) -> Style {
        match self.colors {
            true => Style::new().fg(color),
            false => Style::new(),
        }
    }

    fn strong(&self, color: Color) -> Style {
        self.color(color).add_modifier(Modifier::BOLD)
    }

    fn title(&self, width: u16) -> Line<'static> {
        let Some((reading, _)) = &self.screen.reading else {
            return Line::from("merkle-log: reading");
        };
        let entries: i64 = reading.logs.iter().map(|log| log.entries).sum();
        let (worker, standby) = (
            match reading.worker {
                Some(pid) => format!("worker {pid}"),
                None => "no worker".to_owned(),
            },
            if reading.is_standby { ", standby" } else { "" },
        );
        let sizes = &reading.sizes;
        let all = sizes.entries + sizes.leaf_data + sizes.queue + sizes.other;
        let parts = [
            format!("{}{standby}", printable(&reading.database)),
            worker,
            format!("{} logs", reading.logs.len()),
            format!("{} entries", count(entries)),
            bytes(all),
            format!(
                "(entries {}, leaf data {}, queue {})",
                bytes(sizes.entries),
                bytes(sizes.leaf_data),
                bytes(sizes.queue)
            ),
            format!("every {}", span(self.screen.interval.as_secs_f64())),
        ];
        // What there is no room for is left out whole.
        let mut text = "merkle-log".to_owned();
        for part in parts {
            if text.chars().count() + 2 + part.chars().count() <= usize::from(width) {
                text = format!("{text}  {part}");
            }
        }
        Line::styled(text, Style::new().add_modifier(Modifier::BOLD))
    }

    /// The connection, if it is lost; else the checks that fail.
    fn state(&self) -> Line<'static> {
        let age = self
            .screen
            .reading
            .as_ref()
            .map(|(_, at)| self.now.saturating_duration_since(*at));
        if let Some(why) = &self.screen.lost {
            let since = age.map_or(String::new(), |age| {
                format!(" (this is {} old)", span(age.as_secs_f64()))
            });
            return Line::styled(
                format!("CONNECTION LOST, trying again{since}: {}", one_line(why)),
                self.strong(Color::Red),
            );
        }
        // An answer is late where the next one should have come.
        if let Some(age) =
            age.filter(|age| *age > 3 * self.screen.interval + Duration::from_secs(2))
        {
            return Line::styled(
                format!("no answer: this is {} old", span(age.as_secs_f64())),
                self.strong(Color::Yellow),
            );
        }
        let Some((reading, _)) = &self.screen.reading else {
            return Line::default();
        };
        match reading.health.as_deref() {
            None => Line::from("health: for members of pg_monitor"),
            Some([]) => Line::styled("health: ok", self.color(Color::Green)),
            Some([first, rest @ ..]) => {
                let object = first
                    .object
                    .as_ref()
                    .map_or(String::new(), |object| format!(" of {object}"));
                let more = match rest.len() {
                    0 => String::new(),
                    more => format!(" (and {more} more)"),
                };
                let text = format!("health: {}{object}: {}{more}", first.name, first.detail);
                Line::styled(one_line(&text), self.color(Color::Yellow))
            }
        }
    }

    fn list(&self, frame: &mut Frame, area: Rect) {
        let columns = columns(area.width);
        let header = columns
            .iter()
            .map(|column| column.cell(column.title.to_owned()));
        let header = Row::new(header).style(Style::new().add_modifier(Modifier::UNDERLINED));
        let rows = self.screen.logs().iter().map(|log| {
            let cells = columns.iter().map(|column| {
                let cell = column.cell(printable(&(column.text)(self, log)));
                match column.is_state {
                    true => cell.style(self.color(color_of(&log.state))),
                    false => cell,
                }
            });
            Row::new(cells)
        });
        let rows: Vec<_> = rows.collect();
        let mut place = TableState::default();
        if !rows.is_empty() {
            place.select(Some(self.screen.place()));
        }
        let table = Table::new(rows, columns.iter().map(|column| column.width))
            .header(header)
            .highlight_symbol(">")
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_stateful_widget(table, area, &mut place);
        if self.screen.logs().is_empty() && self.screen.reading.is_some() && area.height > 1 {
            let below = Rect {
                y: area.y + 1,
                height: 1,
                ..area
            };
            frame.render_widget(
                Paragraph::new("There is no log: merkle-log log create NAME"),
                below,
            );
        }
    }

    fn details(&self, frame: &mut Frame, area: Rect) {
        let block = Block::new().borders(Borders::TOP);
        let Some(log) = self.screen.selected() else {
            frame.render_widget(block, area);
            return;
        };
        let block = block.title(Span::styled(
            format!(" {} ", printable(&log.name)),
            Style::new().add_modifier(Modifier::BOLD),
        ));
        let text = Paragraph::new(self.about(log))
            .wrap(Wrap { trim: false })
            .block(block);
        frame.render_widget(text, area);
    }

    fn about(&self, log: &Log) -> Vec<Line<'static>> {
        let mut lines = Vec::new();
        if !log.problem.is_empty() {
            lines.push(Line::styled(
                format!("problem   {}", one_line(&log.problem)),
                self.strong(Color::Red),
            ));
        }
        let batch = match (log.batch_entries, log.batch_seconds, log.batch_age) {
            (Some(entries), took, Some(age)) => {
                let took = took.map_or(String::new(), |took| format!(" in {}", span(took)));
                format!("{} entries{took}, {} ago", count(entries), span(age))
            }
            _ => "none yet".to_owned(),
        };
        lines.push(Line::from(format!(
            "batch     {batch}; {} sources",
            log.sources
        )));
        let signed = match log.signed {
            Some(size) if size == log.entries => "signed".to_owned(),
            Some(size) => format!("{} entries are signed", count(size)),
            None => "no checkpoint is signed".to_owned(),
        };
        lines.push(Line::from(format!(
            "root      {}; {signed}",
            log.root.as_deref().unwrap_or("of no entries")
        )));
        if log.late_entries > 0 {
            lines.push(Line::from(format!(
                "late      {} entries",
                count(log.late_entries)
            )));
        }
        lines.extend(self.verified(log));
        let reading = self.screen.reading.as_ref().map(|(reading, _)| reading);
        let checks = reading
            .and_then(|reading| reading.health.as_deref())
            .unwrap_or_default();
        let of_log = |object: &str| {
            object == log.name
                || object
                    .strip_prefix(&log.name)
                    .is_some_and(|rest| rest.starts_with(": "))
        };
        for check in checks
            .iter()
            .filter(|check| check.object.as_deref().is_some_and(of_log))
        {
            let text = format!("{}: {}", check.name, check.detail);
            let text = format!("health    {}", one_line(&text));
            lines.push(Line::styled(text, self.color(Color::Yellow)));
        }
        lines
    }

    /// What the verification that was asked for here has come to.
    fn verified(&self, log: &Log) -> Vec<Line<'static>> {
        match self.screen.verifications.get(&log.name) {
            None => vec![Line::from("verified  not since this began (v)")],
            Some(Verification::Since(since)) => {
                let took = span(self.now.saturating_duration_since(*since).as_secs_f64());
                vec![Line::from(format!(
                    "verified  for {took} now{}",
                    self.how_far(log)
                ))]
            }
            Some(Verification::Ended { at, after, found }) => {
                let ago = span(self.now.saturating_duration_since(*at).as_secs_f64());
                let took = span(after.as_secs_f64());
                let (text, style, faults) = match found {
                    Err(why) => (
                        format!("could not be: {}", one_line(why)),
                        self.strong(Color::Red),
                        &[][..],
                    ),
                    Ok(found) if found.faults > 0 => (
                        format!("{} findings", count(found.faults as i64)),
                        self.strong(Color::Red),
                        found.first.as_slice(),
                    ),
                    Ok(found) if found.on_record > 0 => (
                        format!(
                            "intact; {} findings that are on record",
                            count(found.on_record as i64)
                        ),
                        self.color(Color::Green),
                        &[][..],
                    ),
                    Ok(_) => ("intact".to_owned(), self.color(Color::Green), &[][..]),
                };
                let head = Line::styled(format!("verified  {text}, in {took}, {ago} ago"), style);
                let faults = faults
                    .iter()
                    .map(|fault| Line::styled(format!("          {}", one_line(fault)), style));
                std::iter::once(head).chain(faults).collect()
            }
        }
    }

    fn running(&self, log: &Log, command: &str) -> Option<&Running> {
        let (reading, _): &(Reading, _) = self.screen.reading.as_ref()?;
        let is_it = |running: &&Running| {
            running.log.as_ref() == Some(&log.name) && running.command == command
        };
        reading.commands.iter().find(is_it)
    }

    fn how_far(&self, log: &Log) -> String {
        self.running(log, "verify_log")
            .map_or(String::new(), |running| format!(", {}", percent(running)))
    }

    fn foot(&self) -> Line<'static> {
        match self.screen.said.as_str() {
            "" => Line::from("q quit  p pause  r resume  v verify  ? help"),
            said => Line::styled(one_line(said), self.strong(Color::Cyan)),
        }
    }

    fn help(&self, frame: &mut Frame, area: Rect) {
        let lines: Vec<Line> = KEYS
            .iter()
            .map(|(key, does)| Line::from(format!("{key:<15} {does}")))
            .collect();
        let (width, height) = (area.width.min(68), area.height.min(KEYS.len() as u16 + 2));
        let middle = Rect {
            x: (area.width - width) / 2,
            y: (area.height - height) / 2,
            width,
            height,
        };
        frame.render_widget(Clear, middle);
        let block = Block::bordered().title(" Keys ");
        frame.render_widget(Paragraph::new(lines).block(block), middle);
    }
}

fn color_of(state: &str) -> Color {
    match state {
        "running" => Color::Green,
        "failing" | "held" => Color::Red,
        "waiting" | "paused" => Color::Yellow,
        _ => Color::DarkGray,
    }
}

#[cfg(test)]
mod tests;
