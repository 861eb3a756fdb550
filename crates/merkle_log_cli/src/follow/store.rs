//! A log in an object store, read with the credentials of the environment.

use crate::export::Stop;
use crate::export::object_store::{below, located};
use crate::output::Failure;
use futures_util::TryStreamExt;
use merkle_log_client::{Transport, TransportError};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use std::time::Duration;
use tokio::runtime::Handle;

pub struct Store {
    store: Box<dyn ObjectStore>,
    prefix: Path,
    runtime: Handle,
    timeout: Duration,
}

impl Store {
    pub fn open(url: &str, runtime: Handle, timeout: Duration) -> Result<Store, Failure> {
        match located(url) {
            Ok((store, prefix)) => Ok(Store {
                store,
                prefix,
                runtime,
                timeout,
            }),
            Err(Stop::Failed(failure)) => Err(failure),
            Err(Stop::Bad(what)) => Err(Failure::Said(what)),
        }
    }

    async fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, TransportError> {
        let failed = |error: Error| match error {
            Error::NotFound { .. } => TransportError::NotFound,
            error => TransportError::Passing(error.to_string()),
        };
        let found = self.store.get(&below(&self.prefix, path)).await;
        let mut chunks = found.map_err(failed)?.into_stream();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.try_next().await.map_err(failed)? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(TransportError::Lasting(format!(
                    "it has more than {limit} bytes"
                )));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

impl Transport for Store {
    fn get(&self, path: &str, limit: u64) -> Result<Vec<u8>, TransportError> {
        let read = async { tokio::time::timeout(self.timeout, self.read(path, limit)).await };
        self.runtime.block_on(read).unwrap_or_else(|_| {
            let seconds = self.timeout.as_secs();
            Err(TransportError::Passing(format!("no answer in {seconds} s")))
        })
    }
}
