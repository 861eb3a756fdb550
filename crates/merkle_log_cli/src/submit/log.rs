//! One log and its witnesses.

use super::source::Source;
use super::standing::{Standing, Target};
use crate::output::{Failure, printable};
use merkle_log_client::{AsyncWitnessClient, SubmitError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tlog::{Policy, SignedNote, UnixSeconds};
use tokio::sync::{OnceCell, watch};

/// What all logs share.
pub struct Submitter {
    pub source: Source,
    pub policy: Policy,
    /// The witnesses that have a URL, by their names in the policy.
    pub clients: Vec<(String, AsyncWitnessClient)>,
    pub interval: Duration,
    pub late: Duration,
}

pub struct Log {
    /// In the database.
    pub name: String,
    standing: Mutex<Standing>,
    target: watch::Sender<Option<Target>>,
    /// Whether the witnesses are held to what they cosigned before this program was started.
    is_recalled: OnceCell<()>,
}

/// Checkpoints that are read at once, and in all, for what each witness cosigned last.
const RECALLED_AT_ONCE: i64 = 100;
const RECALLED: usize = 10_000;

/// Pauses after failures, each about twice as long as the one before it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

impl Log {
    pub fn new(name: &str, policy: &Policy) -> Log {
        Log {
            name: name.to_owned(),
            standing: Mutex::new(Standing::of(policy)),
            target: watch::Sender::new(None),
            is_recalled: OnceCell::new(),
        }
    }

    pub fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks what the newest checkpoint is.
    pub async fn look(&self, submitter: &Submitter) -> Result<(), Failure> {
        self.is_recalled
            .get_or_try_init(|| self.recall(submitter))
            .await?;
        let note = submitter.source.newest(&self.name).await?;
        let target = self
            .standing()
            .see(&note, &submitter.policy, Instant::now(), now())?;
        if let Some(target) = target {
            self.target.send_replace(Some(target));
        }
        Ok(())
    }

    /// Holds each witness to the newest checkpoint that it is known to have cosigned: one that says a smaller size now has
    /// lost its state. The database has the cosignatures, and nobody can forge them there.
    async fn recall(&self, submitter: &Submitter) -> Result<(), Failure> {
        let mut unknown: BTreeMap<&str, &AsyncWitnessClient> = submitter
            .clients
            .iter()
            .map(|(name, client)| (name.as_str(), client))
            .collect();
        let (mut size, mut read) = (i64::MAX, 0);
        while !unknown.is_empty() && read < RECALLED {
            let notes = submitter
                .source
                .before(&self.name, size, RECALLED_AT_ONCE)
                .await?;
            let Some((smallest, _)) = notes.last() else {
                break;
            };
            (size, read) = (*smallest, read + notes.len());
            for (_, note) in &notes {
                let verified = SignedNote::from_bytes(note.as_bytes())
                    .and_then(|note| submitter.policy.verify_log(&note));
                // What nobody known has signed says nothing of witnesses.
                let Ok(verified) = verified else { continue };
                for cosigned in &verified.cosigned {
                    if let Some(client) = unknown.remove(cosigned.witness.as_str()) {
                        client.has_cosigned(&verified.checkpoint);
                    }
                }
            }
        }
        Ok(())
    }

    /// Looks again and again.
    pub async fn follow(self: Arc<Log>, submitter: Arc<Submitter>) {
        let mut ticks = tokio::time::interval(submitter.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(failure) = self.look(&submitter).await {
                let why = why(&failure);
                let mut standing = self.standing();
                if standing.problem.as_ref() != Some(&why) {
                    tracing::error!(
                        log = printable(&self.name),
                        why,
                        "the newest checkpoint is not known"
                    );
                }
                standing.problem = Some(why);
            }
        }
    }

    /// Has one witness cosign each target.
    pub async fn follow_witness(self: Arc<Log>, submitter: Arc<Submitter>, client: usize) {
        let mut targets = self.target.subscribe();
        let mut failures = 0;
        loop {
            let target = targets.borrow_and_update().clone();
            let witness = &submitter.clients[client].0;
            let wanted = target.filter(|target| !self.standing().has(witness, target));
            match wanted {
                Some(target) => match self.submit(&submitter, client, &target).await {
                    true => failures = 0,
                    false => {
                        failures += 1;
                        tokio::time::sleep(pause(failures)).await;
                    }
                },
                None if targets.changed().await.is_err() => return,
                None => {}
            }
        }
    }

    /// Has all witnesses cosign the target that have not, at once.
    pub async fn submit_to_all(&self, submitter: &Submitter) {
        let Some(target) = self.target.borrow().clone() else {
            return;
        };
        let clients = (0..submitter.clients.len())
            .filter(|client| !self.standing().has(&submitter.clients[*client].0, &target));
        let submissions: Vec<_> = clients
            .map(|client| self.submit(submitter, client, &target))
            .collect();
        futures_util::future::join_all(submissions).await;
    }

    /// One submission; whether the cosignature is kept in the database.
    async fn submit(&self, submitter: &Submitter, client: usize, target: &Target) -> bool {
        let (witness, client) = &submitter.clients[client];
        let (log, size) = (printable(&self.name), target.checkpoint.size());
        match self.cosigned(submitter, client, target).await {
            Ok(()) => {
                tracing::info!(
                    log,
                    witness = printable(witness),
                    entries = size.get(),
                    "cosigned"
                );
                true
            }
            Err(error) => {
                tracing::warn!(
                    log,
                    witness = printable(witness),
                    entries = size.get(),
                    error,
                    "not cosigned"
                );
                self.standing().failed(witness, error);
                false
            }
        }
    }

    async fn cosigned(
        &self,
        submitter: &Submitter,
        client: &AsyncWitnessClient,
        target: &Target,
    ) -> Result<(), String> {
        let new = target.checkpoint.size();
        let prove = |old| async move {
            let proof = submitter.source.proof(&self.name, old, new).await;
            proof.map_err(|failure| std::io::Error::other(why(&failure)))
        };
        let signature = client.submit(&target.note, prove).await;
        let signature = signature.map_err(|error| with_hint(&error))?;
        let text = target.note.text();
        let kept = submitter
            .source
            .keep(&self.name, text, &signature, client.key());
        kept.await.map_err(|failure| why(&failure))?;
        let (policy, now) = (&submitter.policy, Instant::now());
        self.standing().add(text, &signature, policy, now);
        Ok(())
    }
}

fn with_hint(error: &SubmitError) -> String {
    match error {
        SubmitError::Ahead { .. } | SubmitError::NotConsistent { .. } => format!(
            "{error}\nHint: Give what the witness has cosigned to accept_checkpoint(…): it says whether the log has lost or rewritten entries."
        ),
        error => error.to_string(),
    }
}

pub fn why(failure: &Failure) -> String {
    match failure {
        Failure::Said(why) => why.clone(),
        Failure::Unheard => String::new(),
    }
}

/// Shortened at random by up to a half, so that many do not come back at once.
fn pause(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(30));
    let mut random = [0; 1];
    // Without randomness the pause is only less random.
    let _ = getrandom::fill(&mut random);
    let share = 1.0 - f64::from(random[0]) / 512.0;
    doubled.min(LONGEST_PAUSE).mul_f64(share)
}

pub fn now() -> UnixSeconds {
    let passed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    passed.map_or(0, |passed| passed.as_secs())
}
