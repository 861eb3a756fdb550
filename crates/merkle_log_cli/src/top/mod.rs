//! `top`: what the logs of a database are doing, as a dashboard that is always fresh.
//!
//! Three parts: [`reading`] asks the database, [`screen`] holds what was heard and what keys do, and [`draw`]
//! draws that. The terminal is given back however the program ends, short of SIGKILL.

mod draw;
mod reading;
mod screen;

use crate::connection;
use crate::database::{Database, block_on};
use crate::output::{Failure, say};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use reading::{Found, Reader, Reading};
use screen::{Action, Screen};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

#[derive(clap::Args)]
pub struct Options {
    /// Seconds between two readings
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    interval: f64,
    #[command(flatten)]
    connection: connection::Connection,
}

fn interval(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.1 to 86400".to_owned()),
    }
}

/// What the dashboard is told.
pub enum Heard {
    Read(Box<Reading>),
    /// There is no connection, and why.
    Lost(String),
    /// What came of something that was asked for.
    Said(String),
    Verified {
        log: String,
        after: Duration,
        found: Result<Found, String>,
    },
}

/// How often times on the screen move on if nothing else happens.
const TICK: Duration = Duration::from_secs(1);

pub fn run(options: &Options, json: bool) -> Result<ExitCode, Failure> {
    let is_seen = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if !json && !is_seen {
        return Err(Failure::Said(
            "top draws on a terminal, and standard input or output is none\n\
             Hint: `merkle-log status` prints the same once; with --json, top prints a line for each reading."
                .to_owned(),
        ));
    }
    block_on(async {
        // Who cannot connect at all is told at once.
        let database = Database::connect(&options.connection).await?;
        let reader = Reader::new(options.connection.clone(), database);
        match json {
            true => print(reader, options).await,
            false => watch(reader, options).await,
        }
    })
}

/// A line for each reading.
async fn print(mut reader: Reader, options: &Options) -> Result<ExitCode, Failure> {
    loop {
        match reader.read().await {
            Ok(reading) => say!("{}", serde_json::to_string(&reading)?)?,
            Err(why) => say!("{}", serde_json::json!({ "lost": why }))?,
        }
        tokio::time::sleep(Duration::from_secs_f64(options.interval)).await;
    }
}

/// The terminal, for as long as it is ours.
struct Terminal(ratatui::DefaultTerminal);

impl Terminal {
    /// A panic gives it back as well, before it says why.
    fn take() -> Result<Terminal, Failure> {
        Ok(Terminal(ratatui::try_init()?))
    }

    fn draw(&mut self, screen: &Screen, colors: bool) -> Result<(), Failure> {
        self.0
            .draw(|frame| draw::draw(frame, screen, Instant::now(), colors))?;
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

async fn watch(reader: Reader, options: &Options) -> Result<ExitCode, Failure> {
    let interval = Duration::from_secs_f64(options.interval);
    // <https://no-color.org>
    let colors = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut ends = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::hangup())?,
    ];
    let (asks, asked) = mpsc::channel(16);
    let (hears, mut heard) = mpsc::channel(16);
    let mut screen = Screen::new(interval);
    let mut terminal = Terminal::take()?;
    let mut keys = keys();
    tokio::spawn(reader.run(interval, asked, hears.clone()));
    let mut tick = tokio::time::interval(TICK);
    loop {
        terminal.draw(&screen, colors)?;
        let [terminate, interrupt, hangup] = &mut ends;
        let action = tokio::select! {
            told = heard.recv() => {
                if let Some(told) = told {
                    screen.hear(told, Instant::now());
                }
                None
            }
            event = keys.recv() => match event {
                Some(Event::Key(key)) if key.kind == KeyEventKind::Press => screen.press(key, Instant::now()),
                Some(_) => None,
                // The terminal is gone.
                None => Some(Action::Quit),
            },
            _ = tick.tick() => None,
            _ = terminate.recv() => Some(Action::Quit),
            _ = interrupt.recv() => Some(Action::Quit),
            _ = hangup.recv() => Some(Action::Quit),
        };
        match action {
            None => {}
            Some(Action::Quit) => return Ok(ExitCode::SUCCESS),
            Some(Action::Ask(ask)) => match asks.try_send(ask) {
                Ok(()) => {}
                Err(_) => screen.say("the database is busy: try again"),
            },
            Some(Action::Verify(log)) => drop(tokio::spawn(reading::verify(
                options.connection.clone(),
                log,
                hears.clone(),
            ))),
        }
    }
}

/// What happens at the terminal. The thread waits for it until the program ends.
fn keys() -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    receiver
}
