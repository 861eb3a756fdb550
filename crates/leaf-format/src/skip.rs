//! Where an item of CBOR ends, without taking it apart.

/// The place behind the item that begins at `at`; `None` if the bytes are no whole item of definite length. Takes
/// no memory, whatever the depth.
pub(crate) fn item(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at;
    // Items that are still to come, of all containers that have begun.
    let mut left: u64 = 1;
    while left > 0 {
        let first = *bytes.get(at)?;
        let (length, argument) = argument(bytes.get(at..)?)?;
        at = at.checked_add(length)?;
        left -= 1;
        match first >> 5 {
            // Byte strings and texts.
            2 | 3 => at = at.checked_add(usize::try_from(argument).ok()?)?,
            4 => left = left.checked_add(argument)?,
            5 => left = left.checked_add(argument.checked_mul(2)?)?,
            6 => left = left.checked_add(1)?,
            // Integers, floats and simple values.
            _ => {}
        }
    }
    (at <= bytes.len()).then_some(at)
}

/// Length and argument of the head of an item.
fn argument(bytes: &[u8]) -> Option<(usize, u64)> {
    let number = |length: usize| -> Option<(usize, u64)> {
        let bytes = bytes.get(1..=length)?;
        let number = bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        Some((length + 1, number))
    };
    match bytes.first()? & 0x1f {
        small @ 0..=23 => Some((1, small.into())),
        24 => number(1),
        25 => number(2),
        26 => number(4),
        27 => number(8),
        _ => None,
    }
}
