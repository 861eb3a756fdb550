//! Entry bundles (C2SP tlog-tiles): 1 to 256 consecutive entries, each behind its length as two bytes,
//! big-endian. The length is not part of what is hashed.

use crate::Error;

/// Appends an entry to a bundle.
///
/// # Errors
/// If the entry has more than 65,535 bytes.
pub fn append(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), Error> {
    let length = u16::try_from(entry.len())
        .map_err(|_| Error::EntryBundle("an entry has more than 65,535 bytes"))?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

/// The entries of a bundle.
///
/// # Errors
/// If the bytes are not exactly `width` entries.
pub fn entries(bundle: &[u8], width: u16) -> Result<Vec<&[u8]>, Error> {
    let mut rest = bundle;
    let mut entries = Vec::new();
    for _ in 0..width {
        let (length, after) = rest
            .split_first_chunk::<2>()
            .ok_or(Error::EntryBundle("it has too few entries"))?;
        let (entry, after) = after
            .split_at_checked(usize::from(u16::from_be_bytes(*length)))
            .ok_or(Error::EntryBundle("its last entry is cut off"))?;
        entries.push(entry);
        rest = after;
    }
    match rest.is_empty() {
        true => Ok(entries),
        false => Err(Error::EntryBundle("it goes on after the last entry")),
    }
}
