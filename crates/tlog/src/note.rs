//! Signed notes (C2SP signed-note): a text, and signatures over it.

use crate::cosignature::{UnixSeconds, cosignature_message, split_timestamp};
use crate::encoding::{base64_decode, base64_encode};
use crate::{Error, KeyId, KeyName, SignatureType, SigningKey, VerifierKey};
use std::fmt;
use std::str::FromStr;

/// More signatures than this are refused.
pub const MAX_SIGNATURES: usize = 100;

/// A text with signatures, none of which has been verified: see [`SignedNote::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<Signature>,
}

/// One signature line. Whose signature it claims to be, and whether it is one, are two things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    pub name: KeyName,
    pub id: KeyId,
    /// What follows the key id: a signature, with the time before it if it is a cosignature.
    pub payload: Vec<u8>,
}

/// What signs notes: a [`SigningKey`], or a key that is kept elsewhere or of another kind.
pub trait Signer {
    fn name(&self) -> &KeyName;

    fn id(&self) -> KeyId;

    /// The signature's payload over a note's text. `time` is for cosignatures; others ignore it.
    ///
    /// # Errors
    /// If the text cannot be signed.
    fn sign(&self, text: &str, time: UnixSeconds) -> Result<Vec<u8>, Error>;
}

impl SignedNote {
    /// A note that has no signature yet.
    ///
    /// # Errors
    /// If the text does not end in a newline, or has another control character.
    pub fn new(text: &str) -> Result<SignedNote, Error> {
        check_characters(text)?;
        if !text.ends_with('\n') {
            return Err(Error::Note("the text does not end in a newline"));
        }
        Ok(SignedNote {
            text: text.to_owned(),
            signatures: Vec::new(),
        })
    }

    /// # Errors
    /// As [`SignedNote::from_str`], and if the bytes are not UTF-8.
    pub fn from_bytes(bytes: &[u8]) -> Result<SignedNote, Error> {
        let text = std::str::from_utf8(bytes);
        text.map_err(|_| Error::Note("it is not UTF-8"))?.parse()
    }

    /// The text that is signed, with its final newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Adds a signature; one by the same key gives way to it.
    ///
    /// # Errors
    /// If the signer fails, or there are too many signatures.
    pub fn sign(&mut self, signer: &dyn Signer, time: UnixSeconds) -> Result<(), Error> {
        let payload = signer.sign(&self.text, time)?;
        self.add(Signature {
            name: signer.name().clone(),
            id: signer.id(),
            payload,
        })
    }

    /// Adds a signature that someone else has made, unverified; one by the same key gives way to it.
    ///
    /// # Errors
    /// If there are too many signatures, or this one is empty.
    pub fn add(&mut self, signature: Signature) -> Result<(), Error> {
        let by_same_key = |s: &Signature| (&s.name, s.id) == (&signature.name, signature.id);
        self.signatures.retain(|other| !by_same_key(other));
        if self.signatures.len() == MAX_SIGNATURES {
            return Err(Error::Note("it has too many signatures"));
        }
        if signature.payload.is_empty() {
            return Err(Error::Note("a signature is empty"));
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// The signatures by known keys, each with its key. Signatures by others are left out.
    ///
    /// # Errors
    /// If a signature by a known key is false, or there is none by a known key.
    pub fn verify<'k>(
        &self,
        known: impl IntoIterator<Item = &'k VerifierKey>,
    ) -> Result<Vec<(&Signature, &'k VerifierKey)>, Error> {
        let known: Vec<_> = known.into_iter().collect();
        let mut verified = Vec::new();
        for signature in &self.signatures {
            let by =
                |key: &&&VerifierKey| (key.name(), key.id()) == (&signature.name, signature.id);
            for key in known.iter().filter(by) {
                if !signature.is_by(key, &self.text) {
                    let (name, id) = (signature.name.clone(), signature.id);
                    return Err(Error::BadSignature { name, id });
                }
                verified.push((signature, *key));
            }
        }
        match verified.is_empty() {
            true => Err(Error::NotSigned),
            false => Ok(verified),
        }
    }
}

impl Signature {
    /// When the cosigner saw the checkpoint, if the signature is a cosignature by such a key.
    pub fn time(&self, key: &VerifierKey) -> Option<UnixSeconds> {
        let timed = key.signature_type().is_cosignature();
        timed
            .then(|| split_timestamp(&self.payload))?
            .map(|(time, _)| time)
    }

    /// Whether this is a signature over `text` by `key`.
    fn is_by(&self, key: &VerifierKey, text: &str) -> bool {
        if key.signature_type() == SignatureType::Ed25519 {
            return key.is_signature(text.as_bytes(), &self.payload);
        }
        let Some((time, signature)) = split_timestamp(&self.payload) else {
            return false;
        };
        cosignature_message(key.signature_type(), key.name(), text, time)
            .is_ok_and(|message| key.is_signature(&message, signature))
    }
}

impl Signer for SigningKey {
    fn name(&self) -> &KeyName {
        self.key().name()
    }

    fn id(&self) -> KeyId {
        self.key().id()
    }

    fn sign(&self, text: &str, time: UnixSeconds) -> Result<Vec<u8>, Error> {
        match self.key().signature_type() {
            SignatureType::Ed25519 => Ok(self.sign_message(text.as_bytes())),
            cosignature => {
                let message = cosignature_message(cosignature, self.name(), text, time)?;
                let mut payload = time.to_be_bytes().to_vec();
                payload.extend(self.sign_message(&message));
                Ok(payload)
            }
        }
    }
}

impl FromStr for SignedNote {
    type Err = Error;

    /// # Errors
    /// If it is not a note: text, blank line, and 1 to [`MAX_SIGNATURES`] signature lines.
    fn from_str(note: &str) -> Result<SignedNote, Error> {
        check_characters(note)?;
        let blank_line = note
            .rfind("\n\n")
            .ok_or(Error::Note("it has no blank line"))?;
        let (text, signatures) = (&note[..=blank_line], &note[blank_line + 2..]);
        let lines = signatures
            .strip_suffix('\n')
            .ok_or(Error::Note("it does not end in a signature line"))?;
        if lines.split('\n').count() > MAX_SIGNATURES {
            return Err(Error::Note("it has too many signatures"));
        }
        let signatures = lines
            .split('\n')
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        Ok(SignedNote {
            text: text.to_owned(),
            signatures,
        })
    }
}

impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures
            .iter()
            .try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

impl FromStr for Signature {
    type Err = Error;

    /// A signature line without its newline.
    fn from_str(line: &str) -> Result<Signature, Error> {
        let form = Error::Note("a signature line has not the form: dash, name, base64");
        let (name, signature) = line
            .strip_prefix("— ")
            .and_then(|line| line.split_once(' '))
            .ok_or(form.clone())?;
        let signature = base64_decode(signature).ok_or(form)?;
        match signature.split_first_chunk::<4>() {
            Some((id, payload)) if !payload.is_empty() => Ok(Signature {
                name: KeyName::new(name)?,
                id: KeyId::from(*id),
                payload: payload.to_vec(),
            }),
            _ => Err(Error::Note("a signature is too short")),
        }
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.id.to_bytes(), self.payload.as_slice()].concat();
        write!(f, "— {} {}", self.name, base64_encode(&bytes))
    }
}

fn check_characters(text: &str) -> Result<(), Error> {
    match text.bytes().any(|byte| byte < b' ' && byte != b'\n') {
        true => Err(Error::Note("it has a control character")),
        false => Ok(()),
    }
}
