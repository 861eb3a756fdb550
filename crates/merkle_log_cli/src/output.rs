//! What the program says: lines on standard output, and why it failed.

use leaf_format::Cbor;
use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

/// Why the program cannot do as it was told.
#[derive(Debug)]
pub enum Failure {
    Said(String),
    /// Nobody reads what is said any more, so that nobody knows what was found.
    Unheard,
}

impl Failure {
    /// A failure of a file operation, with the file's name.
    pub fn of(path: &std::path::Path) -> impl FnOnce(io::Error) -> Failure {
        move |error| Failure::Said(format!("{}: {error}", path.display()))
    }

    pub fn exit(self) -> ExitCode {
        if let Failure::Said(what) = self {
            // A hint has a line of its own.
            let lines: Vec<String> = what.lines().map(printable).collect();
            // Standard error may be closed as well.
            let _ = writeln!(io::stderr(), "merkle-log: {}", lines.join("\n"));
        }
        ExitCode::from(2)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Said(error.to_string())
    }
}

/// Prints a line, as `println` does, but without a panic where nobody reads it.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::output::line(format_args!($($text)*))
    };
}
pub(crate) use say;

pub fn line(text: fmt::Arguments) -> Result<(), Failure> {
    match writeln!(io::stdout().lock(), "{text}") {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::Unheard),
        Err(error) => Err(error.into()),
    }
}

/// A text from outside, without what a terminal would obey.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        // Unicode's directional controls would let a text seem to be another one.
        let hides = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match c.is_control() || hides {
            true => shown.extend(c.escape_unicode()),
            false => shown.push(c),
        }
    }
    shown
}

pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 15)].into());
    }
    text
}

/// A column's value for people, much as RFC 8949 §8 writes it; numbers and UUIDs as SQL does.
pub fn value(value: &Cbor) -> String {
    let list = |values: &[Cbor]| {
        values
            .iter()
            .map(self::value)
            .collect::<Vec<_>>()
            .join(", ")
    };
    match value {
        Cbor::Null => "null".to_owned(),
        Cbor::Bool(value) => value.to_string(),
        Cbor::Integer(number) => number.to_string(),
        Cbor::Float(number) => number.to_string(),
        Cbor::Text(text) => serde_json::to_string(&printable(text)).unwrap_or_default(),
        Cbor::Bytes(bytes) => format!("h'{}'", hex(bytes)),
        Cbor::Array(values) => format!("[{}]", list(values)),
        Cbor::Map(map) => {
            let pairs: Vec<_> = map
                .iter()
                .map(|(name, value)| format!("{}: {}", self::value(name), self::value(value)))
                .collect();
            format!("{{{}}}", pairs.join(", "))
        }
        Cbor::Tag(tag, content) => match (tag, content.as_ref()) {
            (37, Cbor::Bytes(bytes)) if bytes.len() == 16 => uuid(bytes),
            (4, Cbor::Array(parts)) => match parts.as_slice() {
                [Cbor::Integer(exponent), Cbor::Integer(mantissa)] => decimal(*mantissa, *exponent),
                _ => format!("4([{}])", list(parts)),
            },
            (tag, content) => format!("{tag}({})", self::value(content)),
        },
        _ => "?".to_owned(),
    }
}

/// `mantissa` × 10^`exponent`, written out where that takes few digits.
fn decimal(mantissa: i128, exponent: i128) -> String {
    const MOST: usize = 40;
    let shift = match usize::try_from(exponent.unsigned_abs()) {
        Ok(shift) if shift <= MOST => shift,
        _ => return format!("{mantissa}e{exponent}"),
    };
    let sign = if mantissa < 0 { "-" } else { "" };
    let digits = mantissa.unsigned_abs().to_string();
    match exponent {
        _ if mantissa == 0 || exponent == 0 => format!("{sign}{digits}"),
        1.. => format!("{sign}{digits}{}", "0".repeat(shift)),
        _ => {
            let digits = format!("{digits:0>width$}", width = shift + 1);
            let (whole, fraction) = digits.split_at(digits.len() - shift);
            format!("{sign}{whole}.{fraction}")
        }
    }
}

fn uuid(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (place, byte) in bytes.iter().enumerate() {
        let dash = if matches!(place, 4 | 6 | 8 | 10) {
            "-"
        } else {
            ""
        };
        let _ = write!(text, "{dash}{byte:02x}");
    }
    text
}

/// Seconds since 1970 as RFC 3339 writes them.
pub fn time(seconds: u64) -> String {
    let (days, second) = ((seconds / 86_400) as u128 + 719_468, seconds % 86_400);
    // Howard Hinnant, "chrono-compatible low-level date algorithms": civil_from_days.
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u128::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_written_as_sql_does() {
        for (mantissa, exponent, text) in [
            (42, 0, "42"),
            (12804, -2, "128.04"),
            (-5, -3, "-0.005"),
            (7, 3, "7000"),
            (0, 3, "0"),
            (1, -41, "1e-41"),
            (1, i128::MAX, "1e170141183460469231731687303715884105727"),
            (i128::MIN, 0, "-170141183460469231731687303715884105728"),
        ] {
            assert_eq!(decimal(mantissa, exponent), text);
        }
    }

    #[test]
    fn times_are_written_as_everybody_reads_them() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(time(4_102_444_799), "2099-12-31T23:59:59Z");
        assert!(time(u64::MAX).ends_with('Z'));
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(
            printable("a\x1b[2Jb\u{9b}c\nd"),
            "a\\u{1b}[2Jb\\u{9b}c\\u{a}d"
        );
        assert_eq!(printable("\u{202e}txt"), "\\u{202e}txt");
        assert_eq!(printable("Zoë 日本"), "Zoë 日本");
    }
}
