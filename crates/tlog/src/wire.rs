//! JSON and CBOR of one structure: byte strings are base64 in JSON, and indexes are decimal strings there,
//! since not every JSON parser keeps 64 bits.

use crate::encoding::{base64_decode, base64_encode, decimal};
use crate::{Error, SignedNote};
use merkle_tree::{Hash, LeafIndex};
use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub Vec<u8>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WireHash(pub Hash);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WireIndex(pub LeafIndex);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WireNote(pub SignedNote);

/// A list of at most `MOST` elements: what is longer is refused before it is in memory.
pub(crate) fn at_most<'de, const MOST: usize, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<const MOST: usize, T>(std::marker::PhantomData<T>);

    impl<'de, const MOST: usize, T: Deserialize<'de>> Visitor<'de> for List<MOST, T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
            write!(f, "a list of at most {MOST} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(element) = elements.next_element()? {
                if list.len() == MOST {
                    return Err(A::Error::custom(format_args!(
                        "a list has more than {MOST} elements"
                    )));
                }
                list.push(element);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_seq(List::<MOST, T>(std::marker::PhantomData))
}

/// Which structure it is: a text that is always the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Format<F>(std::marker::PhantomData<F>);

/// What a [`Format`] says.
pub(crate) trait FormatName {
    const NAME: &'static str;
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> String {
    // Texts as keys, no floats: nothing that JSON lacks.
    serde_json::to_string(value).unwrap_or_default()
}

pub(crate) fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|error| Error::ProofBundle(error.to_string()))
}

/// Deterministic (RFC 8949 §4.2.1) where structures have their fields in the order of their encoded names.
pub(crate) fn to_cbor<T: Serialize>(value: &T) -> Vec<u8> {
    let mut cbor = Vec::new();
    // Writing to memory does not fail.
    let _ = ciborium::into_writer(value, &mut cbor);
    cbor
}

/// Refuses what [`to_cbor`] would have written otherwise.
pub(crate) fn from_cbor<T: Serialize + DeserializeOwned>(cbor: &[u8]) -> Result<T, Error> {
    let value: T = ciborium::from_reader(cbor).map_err(|error| {
        Error::ProofBundle(match error {
            ciborium::de::Error::Semantic(_, what) => what,
            _ => "the CBOR is malformed".to_owned(),
        })
    })?;
    match to_cbor(&value) == cbor {
        true => Ok(value),
        false => Err(Error::ProofBundle(
            "the CBOR is not deterministic, or more follows".to_owned(),
        )),
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.serialize_str(&base64_encode(&self.0)),
            false => serializer.serialize_bytes(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            let bytes = base64_decode(&text).ok_or_else(|| D::Error::custom("not base64"))?;
            return Ok(Bytes(bytes));
        }
        deserializer.deserialize_byte_buf(ByteString)
    }
}

struct ByteString;

impl serde::de::Visitor<'_> for ByteString {
    type Value = Bytes;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a byte string")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes(bytes.to_vec()))
    }

    fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
        Ok(Bytes(bytes))
    }
}

impl Serialize for WireHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Bytes(self.0.as_bytes().to_vec()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for WireHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Bytes::deserialize(deserializer)?.0;
        Hash::try_from(bytes.as_slice())
            .map(WireHash)
            .map_err(D::Error::custom)
    }
}

impl Serialize for WireIndex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.collect_str(&self.0),
            false => serializer.serialize_u64(self.0.get()),
        }
    }
}

impl<'de> Deserialize<'de> for WireIndex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = match deserializer.is_human_readable() {
            true => decimal(&String::deserialize(deserializer)?)
                .ok_or_else(|| D::Error::custom("an index is not a decimal number"))?,
            false => u64::deserialize(deserializer)?,
        };
        LeafIndex::new(number)
            .map(WireIndex)
            .map_err(D::Error::custom)
    }
}

impl Serialize for WireNote {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for WireNote {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let note = String::deserialize(deserializer)?.parse();
        note.map(WireNote).map_err(D::Error::custom)
    }
}

impl<F: FormatName> Serialize for Format<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(F::NAME)
    }
}

impl<'de, F: FormatName> Deserialize<'de> for Format<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let format = String::deserialize(deserializer)?;
        match format == F::NAME {
            true => Ok(Format(std::marker::PhantomData)),
            false => Err(D::Error::custom(format!(
                "the format is {format:?}, not {:?}",
                F::NAME
            ))),
        }
    }
}
