//! What the dashboard knows, and what keys do to it. Nothing here waits for anything.

use super::Heard;
use super::reading::{Ask, Found, Log, Reading};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    Quit,
    Ask(Ask),
    Verify(String),
}

/// A verification that this dashboard began.
pub enum Verification {
    Since(Instant),
    Ended {
        at: Instant,
        after: Duration,
        found: Result<Found, String>,
    },
}

pub struct Screen {
    pub interval: Duration,
    /// The newest reading, and when it came.
    pub reading: Option<(Reading, Instant)>,
    /// Entries a second, of each log, between the last two readings.
    pub rates: BTreeMap<String, f64>,
    /// Why there is no connection.
    pub lost: Option<String>,
    /// By name, so that it stays the same log when others come and go.
    selected: Option<String>,
    pub help: bool,
    /// What came of the last key.
    pub said: String,
    pub verifications: BTreeMap<String, Verification>,
}

impl Screen {
    pub fn new(interval: Duration) -> Screen {
        Screen {
            interval,
            reading: None,
            rates: BTreeMap::new(),
            lost: None,
            selected: None,
            help: false,
            said: String::new(),
            verifications: BTreeMap::new(),
        }
    }

    pub fn logs(&self) -> &[Log] {
        self.reading
            .as_ref()
            .map_or(&[], |(reading, _)| &reading.logs)
    }

    /// The place of the selected log, which is the first if none was selected or it is gone.
    pub fn place(&self) -> usize {
        let is_it = |log: &Log| Some(&log.name) == self.selected.as_ref();
        self.logs().iter().position(is_it).unwrap_or(0)
    }

    pub fn selected(&self) -> Option<&Log> {
        self.logs().get(self.place())
    }

    pub fn say(&mut self, what: &str) {
        what.clone_into(&mut self.said);
    }

    pub fn hear(&mut self, told: Heard, now: Instant) {
        match told {
            Heard::Read(reading) => {
                self.rates = self.rates(&reading, now);
                self.reading = Some((*reading, now));
                self.lost = None;
            }
            Heard::Lost(why) => {
                self.lost = Some(why);
                self.rates.clear();
            }
            Heard::Said(what) => self.said = what,
            Heard::Verified { log, after, found } => {
                let at = now;
                self.verifications
                    .insert(log, Verification::Ended { at, after, found });
            }
        }
    }

    fn rates(&self, new: &Reading, now: Instant) -> BTreeMap<String, f64> {
        let Some((old, at)) = &self.reading else {
            return BTreeMap::new();
        };
        let seconds = now.duration_since(*at).as_secs_f64();
        if seconds <= 0.0 {
            return BTreeMap::new();
        }
        let before: BTreeMap<_, _> = old
            .logs
            .iter()
            .map(|log| (&log.name, log.entries))
            .collect();
        let rate = |log: &Log| {
            let grown = log.entries - before.get(&log.name)?;
            Some((log.name.clone(), grown.max(0) as f64 / seconds))
        };
        new.logs.iter().filter_map(rate).collect()
    }

    pub fn press(&mut self, key: KeyEvent, now: Instant) -> Option<Action> {
        self.said.clear();
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return (key.code == KeyCode::Char('c')).then_some(Action::Quit);
        }
        if self.help {
            // Any key closes the help.
            self.help = false;
            return (key.code == KeyCode::Char('q')).then_some(Action::Quit);
        }
        let last = self.logs().len().saturating_sub(1);
        let place = self.place();
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Some(Action::Quit),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.help = true,
            KeyCode::Up | KeyCode::Char('k') => self.select(place.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(last.min(place + 1)),
            KeyCode::Home | KeyCode::Char('g') => self.select(0),
            KeyCode::End | KeyCode::Char('G') => self.select(last),
            KeyCode::Char(' ') => return Some(Action::Ask(Ask::Refresh)),
            KeyCode::Char('p') => return self.of_selected(|log| Action::Ask(Ask::Pause(log))),
            KeyCode::Char('r') => return self.of_selected(|log| Action::Ask(Ask::Resume(log))),
            KeyCode::Char('v') => return self.verify(now),
            _ => {}
        }
        None
    }

    fn select(&mut self, place: usize) {
        self.selected = self.logs().get(place).map(|log| log.name.clone());
    }

    fn of_selected(&self, action: impl FnOnce(String) -> Action) -> Option<Action> {
        self.selected().map(|log| action(log.name.clone()))
    }

    /// One verification of a log at a time.
    fn verify(&mut self, now: Instant) -> Option<Action> {
        let log = self.selected()?.name.clone();
        if matches!(self.verifications.get(&log), Some(Verification::Since(_))) {
            self.said = format!("{log} is being verified");
            return None;
        }
        self.verifications
            .insert(log.clone(), Verification::Since(now));
        Some(Action::Verify(log))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn log(name: &str, entries: i64) -> Log {
        Log {
            name: name.to_owned(),
            state: "running".to_owned(),
            entries,
            ..Log::default()
        }
    }

    pub fn reading(logs: &[(&str, i64)]) -> Heard {
        Heard::Read(Box::new(Reading {
            database: "shop".to_owned(),
            logs: logs
                .iter()
                .map(|(name, entries)| log(name, *entries))
                .collect(),
            ..Reading::default()
        }))
    }

    pub fn key(code: char) -> KeyEvent {
        KeyEvent::from(KeyCode::Char(code))
    }

    #[test]
    fn keys_act_on_the_selected_log_which_stays_selected_when_others_come() {
        let now = Instant::now();
        let mut screen = Screen::new(Duration::from_secs(1));
        assert_eq!(screen.press(key('p'), now), None, "there is no log yet");
        screen.hear(reading(&[("a", 1), ("c", 1)]), now);
        screen.press(KeyEvent::from(KeyCode::Down), now);
        screen.hear(reading(&[("a", 1), ("b", 1), ("c", 1)]), now);
        let pause = |log: &str| Some(Action::Ask(Ask::Pause(log.to_owned())));
        assert_eq!(screen.press(key('p'), now), pause("c"));
        assert_eq!(screen.press(key('j'), now), None, "it is the last one");
        assert_eq!(
            screen.press(key('r'), now),
            Some(Action::Ask(Ask::Resume("c".to_owned())))
        );
        // A log that is gone is not acted on.
        screen.hear(reading(&[("a", 1), ("b", 1)]), now);
        assert_eq!(screen.press(key('p'), now), pause("a"));
        screen.press(key('G'), now);
        screen.press(key('k'), now);
        assert_eq!(
            screen.press(key('v'), now),
            Some(Action::Verify("a".to_owned()))
        );
        assert_eq!(screen.press(key('v'), now), None, "it is under way");
    }

    #[test]
    fn every_way_out_is_one() {
        let now = Instant::now();
        let mut screen = Screen::new(Duration::from_secs(1));
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        for out in [key('q'), KeyEvent::from(KeyCode::Esc), interrupt] {
            assert_eq!(screen.press(out, now), Some(Action::Quit));
        }
        screen.press(key('?'), now);
        assert!(screen.help);
        assert_eq!(screen.press(KeyEvent::from(KeyCode::Esc), now), None);
        assert!(!screen.help, "any key closes the help");
    }

    #[test]
    fn rates_are_between_readings_and_never_below_zero() {
        let now = Instant::now();
        let mut screen = Screen::new(Duration::from_secs(1));
        screen.hear(reading(&[("a", 100)]), now);
        assert!(screen.rates.is_empty());
        screen.hear(
            reading(&[("a", 300), ("new", 5)]),
            now + Duration::from_secs(2),
        );
        assert_eq!(screen.rates, BTreeMap::from([("a".to_owned(), 100.0)]));
        // Another log of the same name.
        screen.hear(reading(&[("a", 3)]), now + Duration::from_secs(4));
        assert_eq!(screen.rates["a"], 0.0);
        screen.hear(Heard::Lost("gone".to_owned()), now + Duration::from_secs(5));
        assert!(screen.rates.is_empty() && screen.logs().len() == 1);
    }
}
