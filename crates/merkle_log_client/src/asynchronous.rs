//! The same client for async programs: each call runs on a thread that may block.

use crate::{Client, Entry, Error, Latest};
use std::sync::Arc;
use tlog::{ProofBundle, Proven};
#[cfg(feature = "http")]
use {
    crate::submit::{self, Offered, SubmitError, WitnessClient},
    merkle_tree::{Hash, TreeSize},
    tlog::{Checkpoint, Signature, SignedNote, VerifierKey},
};

/// A [`Client`] whose calls are awaited, within a Tokio runtime. A call that is dropped goes on by itself and
/// keeps what it finds.
#[derive(Clone)]
pub struct AsyncClient {
    client: Arc<Client>,
}

impl From<Client> for AsyncClient {
    fn from(client: Client) -> AsyncClient {
        AsyncClient {
            client: Arc::new(client),
        }
    }
}

impl AsyncClient {
    /// As [`Client::latest`].
    ///
    /// # Errors
    /// As there.
    pub async fn latest(&self) -> Result<Latest, Error> {
        self.run(Client::latest).await
    }

    /// As [`Client::entry`].
    ///
    /// # Errors
    /// As there.
    pub async fn entry(&self, index: u64) -> Result<Entry, Error> {
        self.run(move |client| client.entry(index)).await
    }

    /// As [`Client::verify`].
    ///
    /// # Errors
    /// As there.
    pub async fn verify(&self, bundle: ProofBundle) -> Result<Proven, Error> {
        self.run(move |client| client.verify(&bundle)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Client) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let client = Arc::clone(&self.client);
        match tokio::task::spawn_blocking(move || call(&client)).await {
            Ok(done) => done,
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            Err(_) => Err(Error::Ended),
        }
    }
}

/// A [`WitnessClient`] whose calls are awaited, within a Tokio runtime.
#[cfg(feature = "http")]
#[derive(Clone, Debug)]
pub struct AsyncWitnessClient {
    witness: Arc<WitnessClient>,
}

#[cfg(feature = "http")]
impl From<WitnessClient> for AsyncWitnessClient {
    fn from(witness: WitnessClient) -> AsyncWitnessClient {
        AsyncWitnessClient {
            witness: Arc::new(witness),
        }
    }
}

#[cfg(feature = "http")]
impl AsyncWitnessClient {
    pub fn key(&self) -> &VerifierKey {
        self.witness.key()
    }

    /// As [`WitnessClient::has_cosigned`].
    pub fn has_cosigned(&self, checkpoint: &Checkpoint) {
        self.witness.has_cosigned(checkpoint);
    }

    /// As [`WitnessClient::submit`].
    ///
    /// # Errors
    /// As there.
    pub async fn submit<E, P>(
        &self,
        note: &SignedNote,
        mut prove: impl FnMut(TreeSize) -> P,
    ) -> Result<Signature, SubmitError>
    where
        E: std::error::Error + Send + Sync + 'static,
        P: Future<Output = Result<Vec<Hash>, E>>,
    {
        let checkpoint = submit::checkpoint_of(note)?;
        let mut old = self.witness.first_size(&checkpoint);
        for _ in 0..submit::ROUNDS {
            let path = match submit::needs_proof(old, &checkpoint) {
                true => prove(old)
                    .await
                    .map_err(|why| submit::cannot_prove(old, why))?,
                false => Vec::new(),
            };
            match self.offer(note, old, path).await? {
                Offered::Cosigned(signature) => return Ok(signature),
                Offered::Conflict(size) => old = submit::next_size(size, &checkpoint)?,
            }
        }
        Err(SubmitError::Busy)
    }

    /// As [`WitnessClient::offer`].
    ///
    /// # Errors
    /// As there.
    pub async fn offer(
        &self,
        note: &SignedNote,
        old: TreeSize,
        path: Vec<Hash>,
    ) -> Result<Offered, SubmitError> {
        let (witness, note) = (Arc::clone(&self.witness), note.clone());
        match tokio::task::spawn_blocking(move || witness.offer(&note, old, path)).await {
            Ok(done) => done,
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            Err(_) => Err(SubmitError::Ended),
        }
    }
}
