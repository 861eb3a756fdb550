//! Key names, key ids, verifier keys, and signing keys (C2SP signed-note, "Verifier keys").
//!
//! The private form, `PRIVATE+KEY+<name>+<id>+base64(type ‖ seed)`, is that of Go's package
//! `golang.org/x/mod/sumdb/note`; no specification covers it.

use crate::Error;
use crate::encoding::{base64_decode, base64_encode};
use ed25519_dalek::{Signature as Ed25519Signature, Signer as _};
use hkdf::Hkdf;
use ml_dsa::signature::Verifier as _;
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// What a secret that follows from another one is for.
const OF_LOG: &[u8] = b"merkle_log/key-of-log@v1\n";

/// Who a key belongs to: for a log, its origin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

/// The first four bytes of `SHA-256(name ‖ 0x0A ‖ type ‖ public key)`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 4]);

/// What a signature is made with, and over which bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignatureType {
    /// Ed25519 over the text of the note.
    Ed25519,
    /// Ed25519 over a checkpoint and the time at which it was seen (cosignature/v1).
    Ed25519Cosignature,
    /// ML-DSA-44 over a tree head and the time at which it was seen (subtree/v1).
    MlDsa44Cosignature,
}

/// A public key with its name.
///
/// ```
/// let text = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
/// let key: tlog::VerifierKey = text.parse()?;
/// assert_eq!(key.name().as_str(), "example.com/foo");
/// assert_eq!(key.id().to_string(), "530d903a");
/// assert_eq!(key.to_string(), text);
/// # Ok::<(), tlog::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct VerifierKey {
    name: KeyName,
    id: KeyId,
    signature_type: SignatureType,
    public_key: PublicKey,
}

#[derive(Clone, PartialEq)]
enum PublicKey {
    Ed25519(ed25519_dalek::VerifyingKey),
    MlDsa44(Box<ml_dsa::VerifyingKey<ml_dsa::MlDsa44>>),
}

/// An Ed25519 key that can sign. Its memory is overwritten when it is dropped, and no error or debugging
/// output contains it.
#[derive(Clone)]
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
    verifier_key: VerifierKey,
}

impl KeyName {
    /// # Errors
    /// If the name is empty, or has a space (in the sense of Unicode), a control character or a plus.
    pub fn new(name: impl Into<String>) -> Result<KeyName, Error> {
        let name = name.into();
        if name.is_empty() {
            return Err(Error::KeyName("it is empty"));
        }
        if name
            .chars()
            .any(|c| c.is_whitespace() || c < ' ' || c == '+')
        {
            return Err(Error::KeyName(
                "it has a space, a control character or a plus",
            ));
        }
        Ok(KeyName(name))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl KeyId {
    /// The id of a key.
    fn of(name: &KeyName, signature_type: SignatureType, public_key: &[u8]) -> KeyId {
        let digest = Sha256::new()
            .chain_update(name.as_str())
            .chain_update([b'\n', signature_type.byte()])
            .chain_update(public_key)
            .finalize();
        KeyId([digest[0], digest[1], digest[2], digest[3]])
    }

    pub fn to_bytes(self) -> [u8; 4] {
        self.0
    }
}

impl From<[u8; 4]> for KeyId {
    fn from(bytes: [u8; 4]) -> KeyId {
        KeyId(bytes)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl SignatureType {
    /// The byte that the specification assigns.
    pub fn byte(self) -> u8 {
        match self {
            SignatureType::Ed25519 => 0x01,
            SignatureType::Ed25519Cosignature => 0x04,
            SignatureType::MlDsa44Cosignature => 0x06,
        }
    }

    /// Whether signatures are cosignatures, which have a time.
    pub fn is_cosignature(self) -> bool {
        self != SignatureType::Ed25519
    }
}

impl TryFrom<u8> for SignatureType {
    type Error = Error;

    fn try_from(byte: u8) -> Result<SignatureType, Error> {
        match byte {
            0x01 => Ok(SignatureType::Ed25519),
            0x04 => Ok(SignatureType::Ed25519Cosignature),
            0x06 => Ok(SignatureType::MlDsa44Cosignature),
            _ => Err(Error::SignatureType(byte)),
        }
    }
}

impl VerifierKey {
    /// # Errors
    /// If the bytes are no public key of that type, or one under which anything verifies.
    pub fn new(
        name: KeyName,
        signature_type: SignatureType,
        public_key: &[u8],
    ) -> Result<VerifierKey, Error> {
        let id = KeyId::of(&name, signature_type, public_key);
        let public_key = PublicKey::new(signature_type, public_key)?;
        Ok(VerifierKey {
            name,
            id,
            signature_type,
            public_key,
        })
    }

    pub fn name(&self) -> &KeyName {
        &self.name
    }

    pub fn id(&self) -> KeyId {
        self.id
    }

    pub fn signature_type(&self) -> SignatureType {
        self.signature_type
    }

    /// The key without its name, as the specification of its type encodes it.
    pub fn public_key(&self) -> Vec<u8> {
        match &self.public_key {
            PublicKey::Ed25519(key) => key.to_bytes().to_vec(),
            PublicKey::MlDsa44(key) => key.encode().to_vec(),
        }
    }

    /// Whether `signature` is one over `message`. Signatures that only a lenient verifier accepts are false.
    pub(crate) fn is_signature(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.public_key {
            PublicKey::Ed25519(key) => Ed25519Signature::from_slice(signature)
                .and_then(|signature| key.verify_strict(message, &signature))
                .is_ok(),
            PublicKey::MlDsa44(key) => ml_dsa::Signature::try_from(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        }
    }
}

impl PublicKey {
    fn new(signature_type: SignatureType, bytes: &[u8]) -> Result<PublicKey, Error> {
        let length = Error::VerifierKey("the public key has the wrong length");
        match signature_type {
            SignatureType::Ed25519 | SignatureType::Ed25519Cosignature => {
                let bytes: &[u8; 32] = bytes.try_into().map_err(|_| length)?;
                match ed25519_dalek::VerifyingKey::from_bytes(bytes) {
                    Ok(key) if !key.is_weak() => Ok(PublicKey::Ed25519(key)),
                    _ => Err(Error::VerifierKey(
                        "it is no Ed25519 public key, or a weak one",
                    )),
                }
            }
            SignatureType::MlDsa44Cosignature => {
                let bytes = bytes.try_into().map_err(|_| length)?;
                let key = ml_dsa::VerifyingKey::decode(&bytes);
                Ok(PublicKey::MlDsa44(Box::new(key)))
            }
        }
    }
}

impl FromStr for VerifierKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<VerifierKey, Error> {
        let (name, id, key) = name_id_key(text).ok_or(Error::VerifierKey(
            "it has not the form name+id+key, with an id of 8 lowercase hexadecimal digits",
        ))?;
        let key = base64_decode(key).ok_or(Error::VerifierKey("the key is not base64"))?;
        let (signature_type, public_key) = key
            .split_first()
            .ok_or(Error::VerifierKey("the key is empty"))?;
        let signature_type = SignatureType::try_from(*signature_type)?;
        let key = VerifierKey::new(KeyName::new(name)?, signature_type, public_key)?;
        match key.id.to_string() == id {
            true => Ok(key),
            false => Err(Error::VerifierKey("the id is not that of the key")),
        }
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![self.signature_type.byte()];
        key.extend(self.public_key());
        write!(f, "{}+{}+{}", self.name, self.id, base64_encode(&key))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.name, self.id)
    }
}

impl SigningKey {
    /// The key that follows from 32 random bytes.
    ///
    /// # Errors
    /// If there are no Ed25519 keys of that type.
    pub fn from_seed(
        name: KeyName,
        signature_type: SignatureType,
        seed: &[u8; 32],
    ) -> Result<SigningKey, Error> {
        if signature_type == SignatureType::MlDsa44Cosignature {
            return Err(Error::SignatureType(signature_type.byte()));
        }
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
        let public_key = key.verifying_key().to_bytes();
        Ok(SigningKey {
            verifier_key: VerifierKey::new(name, signature_type, &public_key)?,
            key,
        })
    }

    /// `PRIVATE+KEY+<name>+<id>+base64(type ‖ seed)`, as it is kept in a file.
    ///
    /// # Errors
    /// If the text is anything else, without a line end.
    pub fn from_text(text: &str) -> Result<SigningKey, Error> {
        let form = Error::SigningKey(
            "it has not the form PRIVATE+KEY+name+id+key, with an id of 8 lowercase hexadecimal digits",
        );
        let rest = text.strip_prefix("PRIVATE+KEY+").ok_or(form.clone())?;
        let (name, id, key) = name_id_key(rest).ok_or(form)?;
        let key =
            Zeroizing::new(base64_decode(key).ok_or(Error::SigningKey("the key is not base64"))?);
        let (signature_type, seed) = key
            .split_first()
            .ok_or(Error::SigningKey("the key is empty"))?;
        let seed: &[u8; 32] = seed
            .try_into()
            .map_err(|_| Error::SigningKey("the seed has not 32 bytes"))?;
        let signature_type = SignatureType::try_from(*signature_type)?;
        let key = SigningKey::from_seed(KeyName::new(name)?, signature_type, seed)?;
        match key.verifier_key.id.to_string() == id {
            true => Ok(key),
            false => Err(Error::SigningKey("the id is not that of the key")),
        }
    }

    /// From the content of a file: the text, with or without a newline at the end.
    ///
    /// # Errors
    /// As [`SigningKey::from_text`].
    pub fn from_file(content: &[u8]) -> Result<SigningKey, Error> {
        let text =
            std::str::from_utf8(content).map_err(|_| Error::SigningKey("it is not UTF-8"))?;
        SigningKey::from_text(text.strip_suffix('\n').unwrap_or(text))
    }

    /// The inverse of [`SigningKey::from_text`]: a secret.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut key = Zeroizing::new([self.verifier_key.signature_type.byte(); 33]);
        key[1..].copy_from_slice(&*Zeroizing::new(self.key.to_bytes()));
        let encoded = Zeroizing::new(base64_encode(&*key));
        let VerifierKey { name, id, .. } = &self.verifier_key;
        Zeroizing::new(format!("PRIVATE+KEY+{name}+{id}+{}", encoded.as_str()))
    }

    pub fn verifier_key(&self) -> VerifierKey {
        self.verifier_key.clone()
    }

    /// The key of a log with this origin: this key if the origin is its name, and otherwise one with a secret of its own,
    /// which follows from this one's (HKDF with SHA-256, RFC 5869: no salt, the seed, [`OF_LOG`] and the origin). So one
    /// file serves many logs, each of which has a public key that no other has, as a policy demands.
    ///
    /// # Errors
    /// Never, for a key that there is.
    pub fn of_log(&self, origin: KeyName) -> Result<SigningKey, Error> {
        if origin == self.verifier_key.name {
            return Ok(self.clone());
        }
        let seed = Zeroizing::new(self.key.to_bytes());
        let mut derived = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(None, &*seed)
            .expand_multi_info(&[OF_LOG, origin.as_str().as_bytes()], &mut *derived)
            .map_err(|_| Error::SigningKey("no key follows from it"))?;
        SigningKey::from_seed(origin, self.verifier_key.signature_type, &derived)
    }

    pub(crate) fn sign_message(&self, message: &[u8]) -> Vec<u8> {
        self.key.sign(message).to_bytes().to_vec()
    }

    pub(crate) fn key(&self) -> &VerifierKey {
        &self.verifier_key
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the signing key of {:?}", self.verifier_key)
    }
}

/// `name+id+key`, where the base64 of the key may have a plus, and the others have none.
fn name_id_key(text: &str) -> Option<(&str, &str, &str)> {
    let mut parts = text.splitn(3, '+');
    let (name, id, key) = (parts.next()?, parts.next()?, parts.next()?);
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (id.len() == 8 && id.bytes().all(hex)).then_some((name, id, key))
}
