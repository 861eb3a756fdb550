//! The witness: its key, its logs, and the directory that is its alone.

use super::answers::refused;
use super::config::{Config, Live};
use super::log::{Log, digest};
use crate::files;
use crate::http::{self, Admission};
use crate::output::Failure;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tlog::{SigningKey, VerifierKey};

pub struct Witness {
    pub key: SigningKey,
    directory: PathBuf,
    /// As long as this is held, no other process has the state.
    _lock: File,
    live: RwLock<Arc<Live>>,
    /// All logs that were ever in the policy, by their digests: a log that leaves it and comes back must not be there
    /// twice, since what keeps its requests apart is here.
    logs: RwLock<HashMap<String, Arc<Log>>>,
    pub admission: http::Shared,
    /// Answers to requests to cosign, by what they were.
    verdicts: Mutex<BTreeMap<&'static str, u64>>,
    /// The program was told to end.
    pub ending: AtomicBool,
}

impl Witness {
    pub fn open(config: &Config) -> Result<Witness, Failure> {
        let directory = config.state.clone();
        files::make_directory(&directory).map_err(Failure::of(&directory))?;
        let witness = Witness {
            key: config.signing_key()?,
            _lock: files::lock(&directory)?,
            directory,
            live: RwLock::new(Arc::new(Live::of(config)?)),
            logs: RwLock::default(),
            admission: Admission::new(
                config.limits,
                "merkle_log_witness",
                &config.trusted_proxies,
                refused,
            ),
            verdicts: Mutex::default(),
            ending: AtomicBool::new(false),
        };
        witness.read_logs(&witness.live())?;
        Ok(witness)
    }

    pub fn verifier_key(&self) -> VerifierKey {
        self.key.verifier_key()
    }

    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// # Errors
    /// If what is kept of a log cannot be read. Then nothing has changed.
    pub fn reload(&self, live: Live) -> Result<(), Failure> {
        self.read_logs(&live)?;
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
        Ok(())
    }

    fn read_logs(&self, live: &Live) -> Result<(), Failure> {
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        for origin in &live.origins {
            if let Entry::Vacant(place) = logs.entry(digest(origin)) {
                let of_log = |key: &&VerifierKey| key.name().as_str() == origin;
                let keys = live.policy.logs().iter().filter(of_log).cloned();
                let keys = keys.chain([self.verifier_key()]).collect();
                place.insert(Arc::new(Log::read(&self.directory, origin, keys)?));
            }
        }
        Ok(())
    }

    /// A log of the policy, by its digest.
    pub fn log(&self, digest: &str) -> Option<Arc<Log>> {
        let log = {
            let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(logs.get(digest)?)
        };
        self.live().origins.contains(&log.origin).then_some(log)
    }

    /// The logs of the policy, in order.
    pub fn logs(&self) -> Vec<Arc<Log>> {
        let live = self.live();
        let digests = live.origins.iter().map(|origin| digest(origin));
        digests.filter_map(|digest| self.log(&digest)).collect()
    }

    pub fn count(&self, verdict: &'static str) {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        *verdicts.entry(verdict).or_default() += 1;
    }

    pub fn verdicts(&self) -> Vec<(&'static str, u64)> {
        let verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = verdicts.iter();
        counts.map(|(name, count)| (*name, *count)).collect()
    }
}
