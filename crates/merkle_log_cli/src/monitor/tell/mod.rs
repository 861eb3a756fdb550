//! Who is told of events: each of them by a thread of its own, in the order of what happened to a log, again and again
//! until it was heard.

mod command;
mod syslog;
mod webhook;

use super::check::Watched;
use super::config::Tell;
use super::event::Event;
use crate::output::{Failure, printable};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// The lines on standard error are told as all others are.
pub const OUTPUT: &str = "output";

/// Pauses between attempts: twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// How often a thread looks for something to tell.
const LOOK: Duration = Duration::from_millis(200);

pub struct Teller {
    pub name: String,
    way: Way,
}

enum Way {
    Output,
    Webhook(webhook::Webhook),
    Syslog(syslog::Syslog),
    Command(command::Command),
}

impl Teller {
    /// All that are configured, and standard error.
    pub fn all(tells: &[Tell], runtime: &Handle) -> Result<Vec<Teller>, Failure> {
        let output = Teller {
            name: OUTPUT.to_owned(),
            way: Way::Output,
        };
        let configured = tells.iter().map(|tell| Teller::of(tell, runtime));
        std::iter::once(Ok(output)).chain(configured).collect()
    }

    fn of(tell: &Tell, runtime: &Handle) -> Result<Teller, Failure> {
        let timeout = Duration::from_secs(tell.timeout_seconds.max(1));
        let way = match (&tell.webhook, &tell.syslog, &tell.command) {
            (Some(url), _, _) => {
                let token = tell.token_file.as_deref();
                Way::Webhook(webhook::Webhook::new(url, token, timeout, runtime)?)
            }
            (_, Some(socket), _) => Way::Syslog(syslog::Syslog::new(socket)),
            (_, _, Some(command)) => Way::Command(command::Command::new(command, timeout)),
            (None, None, None) => return Err(Failure::Said(format!("{:?} is no way", tell.name))),
        };
        Ok(Teller {
            name: tell.name.clone(),
            way,
        })
    }

    fn tell(&self, event: &Event) -> Result<(), String> {
        let json = serde_json::to_string(event).map_err(|error| error.to_string())?;
        match &self.way {
            Way::Output => {
                say(event);
                Ok(())
            }
            Way::Webhook(webhook) => webhook.tell(json),
            Way::Syslog(syslog) => syslog.tell(event, &json),
            Way::Command(command) => command.tell(&json),
        }
    }

    /// Tells what waits. An event that is not taken holds back the later ones of its log, and no other log's.
    ///
    /// # Errors
    /// The first reason why something was not told.
    fn tell_all(&self, logs: &[Arc<Watched>]) -> Result<(), String> {
        let told = logs.iter().map(|log| self.tell_of(log));
        let told: Vec<Result<(), String>> = told.collect();
        told.into_iter().collect()
    }

    fn tell_of(&self, log: &Watched) -> Result<(), String> {
        loop {
            let Some(event) = log.state().next_for(&self.name).cloned() else {
                return Ok(());
            };
            self.tell(&event)?;
            let told = log.state().was_told(&self.name, &event.id);
            told.map_err(|failure| match failure {
                Failure::Said(what) => what,
                Failure::Unheard => String::new(),
            })?;
        }
    }

    /// Tells what happens, for ever.
    pub fn run(&self, logs: &[Arc<Watched>]) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.tell_all(logs) {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    std::thread::sleep(LOOK);
                }
                Err(why) => {
                    let (name, why) = (&self.name, printable(&why));
                    tracing::warn!(tell = name, why, "could not be told; trying again");
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Tells what is found while the logs are checked, and then for so long at most. What is left waits for the next time.
    pub fn run_until(&self, logs: &[Arc<Watched>], are_checked: &AtomicBool, patience: Duration) {
        while !are_checked.load(SeqCst) {
            // What is not taken is told again below.
            let _ = self.tell_all(logs);
            std::thread::sleep(LOOK);
        }
        let (mut pause, deadline) = (FIRST_PAUSE, Instant::now() + patience);
        while let Err(why) = self.tell_all(logs) {
            let (name, why) = (&self.name, printable(&why));
            if Instant::now() + pause > deadline {
                tracing::warn!(
                    tell = name,
                    why,
                    "could not be told; it waits for the next run"
                );
                return;
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
    }
}

fn say(event: &Event) {
    let (id, log, kind) = (&event.id, &event.log, &event.event);
    let (origin, detail) = (printable(&event.origin), printable(&event.detail));
    let evidence = event.evidence.as_deref().unwrap_or_default();
    let was = event.was.map_or("", super::event::Trouble::as_str);
    match event.was {
        Some(_) => tracing::info!(id, log, origin, was, "recovered"),
        None if event.proven => {
            tracing::error!(id, log, origin, kind, detail, evidence, "proven bad");
        }
        None => tracing::warn!(id, log, origin, kind, detail, "not as it should be"),
    }
}
