//! The same client for async programs: each call runs on a thread that may block.

use crate::{Client, Entry, Error, Latest};
use std::sync::Arc;
use tlog::{ProofBundle, Proven};

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
