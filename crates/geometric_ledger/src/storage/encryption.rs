//! What guards stored bytes: a checksum, or with a key AES-256-GCM, which is one too.
//!
//! Both give a 16-byte tag over bytes and what is bound to them. Nonces never repeat: each time a
//! ledger is opened for writing it starts a new *epoch*, durable before anything is written in it,
//! and each epoch and purpose has a key of its own; within an epoch a nonce is the sequence of a
//! batch and a place in it, or a position of the write-ahead log.

use crate::error::Error;
use aes_gcm::aead::AeadInPlace;
use aes_gcm::{Aes256Gcm, KeyInit};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock, RwLock};
use xxhash_rust::xxh3::xxh3_128;

pub type Tag = [u8; 16];

/// What a tag is for; each purpose has its own key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    Slot,
    Record,
    Row,
    Snapshot,
}

/// What bytes are encrypted under, beside the key: never twice the same.
#[derive(Clone, Copy, Debug)]
pub struct Nonce {
    pub epoch: u32,
    pub major: u64,
    pub minor: u32,
}

impl Nonce {
    /// The epoch is left out: it chooses the key.
    fn bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.major.to_le_bytes());
        bytes[8..].copy_from_slice(&self.minor.to_le_bytes());
        bytes
    }
}

/// A 32-byte secret that shows nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub(crate) [u8; 32]);

impl Secret {
    pub fn new(bytes: [u8; 32]) -> Self {
        Secret(bytes)
    }

    pub(crate) fn random() -> Result<Self, Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| Error::Key(error.to_string()))?;
        Ok(Secret(bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Encrypts and decrypts; without a key, makes and checks checksums.
pub(crate) struct Encryption(Option<Keys>);

struct Keys {
    /// Data keys, each from its epoch on, in order.
    data: Vec<(u32, Secret)>,
    /// Derived keys, each where its epoch and purpose say, if no other was there first: to take a lock
    /// for each slot would cost as much as to open it.
    first: [[OnceLock<Derived>; PURPOSES]; EPOCHS],
    others: RwLock<HashMap<(Purpose, u32), Arc<Aes256Gcm>>>,
}

/// A key and its epoch.
type Derived = Box<(u32, Aes256Gcm)>;

const PURPOSES: usize = Purpose::Snapshot as usize + 1;
/// Epochs whose keys are found without a lock.
const EPOCHS: usize = 64;

impl Encryption {
    pub fn plain() -> Self {
        Encryption(None)
    }

    pub fn encrypted(data: Vec<(u32, Secret)>) -> Self {
        Encryption(Some(Keys {
            data,
            first: std::array::from_fn(|_| Default::default()),
            others: RwLock::default(),
        }))
    }

    /// Encryption of the same kind with keys of its own, for what is written once under a random salt.
    pub fn salted(&self, salt: &[u8; 32]) -> Self {
        let Some(keys) = &self.0 else {
            return Encryption::plain();
        };
        let salted = |secret: &Secret| {
            let material = [&secret.0[..], salt].concat();
            Secret(blake3::derive_key(
                "geometric_ledger 2026-11-21 snapshot key",
                &material,
            ))
        };
        Encryption::encrypted(
            keys.data
                .iter()
                .map(|(from, secret)| (*from, salted(secret)))
                .collect(),
        )
    }

    /// What only who knows the ledger's key makes of a challenge; of a plain ledger, zeros.
    pub fn prove(&self, challenge: &[u8; 32]) -> [u8; 32] {
        let Some((_, first)) = self.0.as_ref().and_then(|keys| keys.data.first()) else {
            return [0; 32];
        };
        let key = blake3::derive_key("geometric_ledger 2026-11-29 reader", &first.0);
        *blake3::keyed_hash(&key, challenge).as_bytes()
    }

    pub fn encrypts(&self) -> bool {
        self.0.is_some()
    }

    /// Encrypts `body` in place, with `bound` bound to it. Without a key, the tag is a checksum of both and
    /// nothing is encrypted.
    pub fn encrypt(&self, purpose: Purpose, nonce: Nonce, bound: &[u8], body: &mut [u8]) -> Tag {
        match &self.0 {
            None => checksum(bound, body),
            Some(keys) => keys.with(purpose, nonce.epoch, |cipher| {
                cipher
                    .encrypt_in_place_detached(&nonce.bytes().into(), bound, body)
                    .expect("no body is as long as AES-GCM's limit of 64 GB")
                    .into()
            }),
        }
    }

    /// Decrypts `body` in place; false if it, or what is bound to it, is not what was encrypted.
    pub fn decrypt(
        &self,
        purpose: Purpose,
        nonce: Nonce,
        bound: &[u8],
        body: &mut [u8],
        tag: &Tag,
    ) -> bool {
        match &self.0 {
            None => checksum(bound, body) == *tag,
            Some(keys) => keys.with(purpose, nonce.epoch, |cipher| {
                cipher
                    .decrypt_in_place_detached(&nonce.bytes().into(), bound, body, tag.into())
                    .is_ok()
            }),
        }
    }
}

impl Keys {
    /// Calls `use_it` with the key of a purpose and epoch.
    fn with<T>(&self, purpose: Purpose, epoch: u32, use_it: impl FnOnce(&Aes256Gcm) -> T) -> T {
        let place = &self.first[epoch as usize % EPOCHS][purpose as usize];
        let first = place.get_or_init(|| Box::new((epoch, self.derive(purpose, epoch))));
        if first.0 == epoch {
            return use_it(&first.1);
        }
        let known = self.others.read().unwrap().get(&(purpose, epoch)).cloned();
        let cipher = known.unwrap_or_else(|| {
            let cipher = Arc::new(self.derive(purpose, epoch));
            let mut others = self.others.write().unwrap();
            others.insert((purpose, epoch), cipher.clone());
            cipher
        });
        use_it(&cipher)
    }

    fn derive(&self, purpose: Purpose, epoch: u32) -> Aes256Gcm {
        let data = self.data.iter().rev().find(|(from, _)| *from <= epoch);
        let secret = data.map_or([0; 32], |(_, secret)| secret.0);
        let mut material = secret.to_vec();
        material.extend(epoch.to_le_bytes());
        material.push(purpose as u8);
        let key = blake3::derive_key("geometric_ledger 2026-11-21 epoch key", &material);
        Aes256Gcm::new(&key.into())
    }
}

/// What [`Encryption::encrypt`] gives without a key.
pub fn checksum(bound: &[u8], body: &[u8]) -> Tag {
    let mut short = [0; 256];
    let whole = bound.len() + body.len();
    if whole <= short.len() {
        short[..bound.len()].copy_from_slice(bound);
        short[bound.len()..whole].copy_from_slice(body);
        return xxh3_128(&short[..whole]).to_le_bytes();
    }
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(bound);
    hasher.update(body);
    hasher.digest128().to_le_bytes()
}

/// Wraps a data key under the user's key: nonce, sealed key, tag.
pub(crate) fn wrap(secret: &Secret, under: &Secret) -> Result<Vec<u8>, Error> {
    let mut nonce = [0; 12];
    getrandom::fill(&mut nonce).map_err(|error| Error::Key(error.to_string()))?;
    let mut body = secret.0;
    let tag = Aes256Gcm::new(&under.0.into())
        .encrypt_in_place_detached(&nonce.into(), b"geometric_ledger data key", &mut body)
        .expect("32 bytes are within the limit");
    Ok([&nonce[..], &body, &tag].concat())
}

pub(crate) fn unwrap(wrapped: &[u8], under: &Secret) -> Result<Secret, Error> {
    let wrong = || Error::Key("the key does not open this ledger".into());
    let bytes: &[u8; 60] = wrapped.try_into().map_err(|_| wrong())?;
    let mut body: [u8; 32] = bytes[12..44].try_into().unwrap();
    let nonce: [u8; 12] = bytes[..12].try_into().unwrap();
    let tag: Tag = bytes[44..].try_into().unwrap();
    Aes256Gcm::new(&under.0.into())
        .decrypt_in_place_detached(
            &nonce.into(),
            b"geometric_ledger data key",
            &mut body,
            &tag.into(),
        )
        .map_err(|_| wrong())?;
    Ok(Secret(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_has_a_key_of_its_own_however_many_there_are() {
        let encryption = Encryption::encrypted(vec![(0, Secret::new([1; 32]))]);
        let nonce = |epoch| Nonce {
            epoch,
            major: 7,
            minor: 9,
        };
        let sealed: Vec<_> = (0..3 * EPOCHS as u32)
            .map(|epoch| {
                let mut body = *b"what is sealed";
                let tag = encryption.encrypt(Purpose::Slot, nonce(epoch), b"bound", &mut body);
                (epoch, body, tag)
            })
            .collect();
        for (epoch, body, tag) in &sealed {
            let open = |epoch, encryption: &Encryption| {
                let mut body = *body;
                let opened =
                    encryption.decrypt(Purpose::Slot, nonce(epoch), b"bound", &mut body, tag);
                opened.then_some(body)
            };
            assert_eq!(open(*epoch, &encryption).as_ref(), Some(b"what is sealed"));
            assert_eq!(open(*epoch + EPOCHS as u32, &encryption), None);
            // Whatever key was derived first.
            let other = Encryption::encrypted(vec![(0, Secret::new([1; 32]))]);
            assert_eq!(open(*epoch + EPOCHS as u32, &other), None);
            assert_eq!(open(*epoch, &other).as_ref(), Some(b"what is sealed"));
        }
    }
}
