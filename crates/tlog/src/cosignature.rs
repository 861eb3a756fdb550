//! What a cosigner signs (C2SP tlog-cosignature): a checkpoint, and when it was the newest one seen.

use crate::{Checkpoint, Error, KeyName, SignatureType};

/// Seconds since 1970-01-01 00:00 UTC.
pub type UnixSeconds = u64;

/// The specification allows no later time.
const LATEST: UnixSeconds = i64::MAX as u64;

/// The signed bytes over the checkpoint `text`.
///
/// # Errors
/// If the text is no checkpoint, the time is too late, or a name does not fit the message.
pub(crate) fn cosignature_message(
    signature_type: SignatureType,
    cosigner: &KeyName,
    text: &str,
    time: UnixSeconds,
) -> Result<Vec<u8>, Error> {
    let checkpoint: Checkpoint = text.parse()?;
    if time > LATEST {
        return Err(Error::Note("the time of a cosignature is too late"));
    }
    match signature_type {
        SignatureType::MlDsa44Cosignature => subtree_message(cosigner, &checkpoint, time),
        _ => Ok(format!("cosignature/v1\ntime {time}\n{text}").into_bytes()),
    }
}

/// The structure `cosigned_message` for a whole tree.
fn subtree_message(
    cosigner: &KeyName,
    checkpoint: &Checkpoint,
    time: UnixSeconds,
) -> Result<Vec<u8>, Error> {
    let mut message = b"subtree/v1\n\0".to_vec();
    let push_name = |message: &mut Vec<u8>, name: &str| {
        let length = u8::try_from(name.len())
            .map_err(|_| Error::Note("a name is longer than an ML-DSA-44 cosignature can state"))?;
        message.push(length);
        message.extend_from_slice(name.as_bytes());
        Ok::<(), Error>(())
    };
    push_name(&mut message, cosigner.as_str())?;
    message.extend_from_slice(&time.to_be_bytes());
    push_name(&mut message, checkpoint.origin())?;
    message.extend_from_slice(&0u64.to_be_bytes());
    message.extend_from_slice(&checkpoint.size().get().to_be_bytes());
    message.extend_from_slice(checkpoint.root().as_bytes());
    Ok(message)
}

/// The time and the signature of a cosignature's payload.
pub(crate) fn split_timestamp(payload: &[u8]) -> Option<(UnixSeconds, &[u8])> {
    let (time, signature) = payload.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*time), signature))
}
