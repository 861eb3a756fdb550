//! What the program says: lines on standard output, failures, and bars for what takes long.

use indicatif::{ProgressBar, ProgressStyle};
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Why the program does not do as it was told.
#[derive(Debug)]
pub enum Failure {
    Said(String),
    /// Nobody reads what is said any more, which is no fault.
    Unheard,
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Said(error.to_string())
    }
}

impl Failure {
    pub fn new(what: impl Into<String>) -> Self {
        Failure::Said(what.into())
    }

    pub fn exit(self) -> ExitCode {
        match self {
            Failure::Unheard => ExitCode::SUCCESS,
            Failure::Said(what) => {
                // Standard error may be closed as well.
                let _ = writeln!(io::stderr(), "geometric-ledger: {what}");
                ExitCode::from(2)
            }
        }
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

/// A bar for so many things. It is drawn on standard error, if that is a terminal.
pub fn bar(len: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} {per_sec} {eta}");
    ProgressBar::new(len).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

pub fn spinner(message: impl Into<String>) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(message.into());
    spinner.enable_steady_tick(Duration::from_millis(200));
    spinner
}

/// Microseconds since 1970 as RFC 3339 writes them.
pub fn time(micros: i64) -> String {
    let (seconds, micros) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Howard Hinnant, "chrono-compatible low-level date algorithms": civil_from_days.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_are_written_as_everybody_reads_them() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(time(951_782_400_000_001), "2000-02-29T00:00:00.000001Z");
        assert_eq!(time(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(time(4_102_444_799_999_999), "2099-12-31T23:59:59.999999Z");
    }
}
