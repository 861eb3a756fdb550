//! Leaf data taken apart again, for those who keep it.

use crate::{Error, Kind, MAX_LEAF_DATA, canonical};
use serde_cbor::Value as Cbor;
use std::collections::BTreeMap;

/// The columns of an entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Columns {
    /// Name and value; NULLs are left out.
    Map(BTreeMap<String, Cbor>),
    /// SHA-256 of the encoded map, where that was too long.
    Digest(Vec<u8>),
}

/// Who made a change: [`crate::Origin`], owned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    pub transaction: u64,
    pub user: String,
    pub role: Option<String>,
    pub application: String,
    pub at: i64,
    pub said: Option<String>,
    pub statement: Option<String>,
    pub statement_bytes: Option<u64>,
}

impl Origin {
    /// Who made the change that leaf data are of, or their long form. Reads no more than the context: whether the bytes are
    /// leaf data, `Leaf::decode` says.
    pub fn of(leaf_data: &[u8]) -> Option<Origin> {
        let context: BTreeMap<Cbor, Cbor> =
            serde_cbor::from_slice(crate::encode::context_of(leaf_data)?).ok()?;
        let mut context = texts(context).ok()?;
        context.remove("salt");
        origin(context).ok().flatten()
    }
}

/// An entry's leaf data.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaf {
    pub source: String,
    pub kind: Kind,
    pub columns: Columns,
    pub origin: Option<Origin>,
    pub salt: Option<Vec<u8>>,
}

impl Leaf {
    /// # Errors
    /// If the bytes are not leaf data of format 1, or not its one canonical form: two different byte
    /// strings never decode to the same entry.
    pub fn decode(leaf_data: &[u8]) -> Result<Leaf, Error> {
        match leaf_data.len() > MAX_LEAF_DATA {
            true => Err(Error::NotLeafData("too long".to_owned())),
            false => Leaf::decode_in_full(leaf_data),
        }
    }

    /// As `decode`, also of the long form ([`crate::capped`]), whose columns are there in full.
    ///
    /// # Errors
    /// As `decode`.
    pub fn decode_in_full(leaf_data: &[u8]) -> Result<Leaf, Error> {
        let not = |what: &str| Error::NotLeafData(what.to_owned());
        let value: Cbor =
            serde_cbor::from_slice(leaf_data).map_err(|e| Error::NotLeafData(e.to_string()))?;
        canonical::check(leaf_data, &value)?;
        let Cbor::Array(elements) = value else {
            return Err(not("no array"));
        };
        let mut elements = elements.into_iter();
        let mut next = || elements.next();
        match next() {
            Some(Cbor::Integer(1)) => {}
            _ => return Err(not("another format")),
        }
        let (Some(Cbor::Text(source)), Some(Cbor::Text(kind))) = (next(), next()) else {
            return Err(not("source and kind are no texts"));
        };
        let columns = match next() {
            Some(Cbor::Map(map)) => Columns::Map(texts(map)?),
            Some(Cbor::Bytes(digest)) if digest.len() == 32 => Columns::Digest(digest),
            _ => return Err(not("no columns")),
        };
        let mut context = match next() {
            None => BTreeMap::new(),
            Some(Cbor::Map(map)) if map.is_empty() => return Err(not("the context is empty")),
            Some(Cbor::Map(map)) => texts(map)?,
            Some(_) => return Err(not("the context is no map")),
        };
        if next().is_some() {
            return Err(not("more than five elements"));
        }
        let salt = match context.remove("salt") {
            None => None,
            Some(Cbor::Bytes(salt)) => Some(salt),
            Some(_) => return Err(not("the salt is no byte string")),
        };
        Ok(Leaf {
            source,
            kind: Kind::try_from(kind.as_str())?,
            columns,
            origin: origin(context)?,
            salt,
        })
    }
}

fn texts(map: BTreeMap<Cbor, Cbor>) -> Result<BTreeMap<String, Cbor>, Error> {
    map.into_iter()
        .map(|(name, value)| match name {
            Cbor::Text(name) => Ok((name, value)),
            _ => Err(Error::NotLeafData("a name is no text".to_owned())),
        })
        .collect()
}

fn origin(mut context: BTreeMap<String, Cbor>) -> Result<Option<Origin>, Error> {
    if context.is_empty() {
        return Ok(None);
    }
    let not = || Error::NotLeafData("the context names no origin".to_owned());
    let mut take = |name: &str| context.remove(name);
    let parts = (take("xid"), take("user"), take("app"), take("at"));
    let text = |value: Option<Cbor>| match value {
        None => Ok(None),
        Some(Cbor::Text(text)) => Ok(Some(text)),
        Some(_) => Err(not()),
    };
    let (role, said) = (text(take("role"))?, text(take("context"))?);
    let statement = text(take("statement"))?;
    let statement_bytes = match (take("statement_bytes"), &statement) {
        (None, _) => None,
        // Only what is longer than the text that is there was cut.
        (Some(Cbor::Integer(n)), Some(cut)) if n > cut.len() as i128 => {
            Some(u64::try_from(n).map_err(|_| not())?)
        }
        _ => return Err(not()),
    };
    let (
        Some(Cbor::Integer(transaction)),
        Some(Cbor::Text(user)),
        Some(Cbor::Text(application)),
        Some(Cbor::Integer(at)),
        true,
    ) = (parts.0, parts.1, parts.2, parts.3, context.is_empty())
    else {
        return Err(not());
    };
    Ok(Some(Origin {
        transaction: u64::try_from(transaction).map_err(|_| not())?,
        user,
        role,
        application,
        at: i64::try_from(at).map_err(|_| not())?,
        said,
        statement,
        statement_bytes,
    }))
}
