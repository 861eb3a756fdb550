//! What the program says: lines on standard output, failures, and bars for what takes long.

use crate::stop;
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

/// Moves a bar as something goes on, and ends that where the program is told to stop.
pub fn follows(bar: &ProgressBar) -> impl FnMut(u64, u64) -> bool + Send + 'static {
    let bar = bar.clone();
    move |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        !stop::asked()
    }
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

/// Microseconds since 1970, of a number of them or of a time in UTC as [`time`] writes it, of which the end may be
/// left out.
pub fn parse_time(text: &str) -> Result<i64, String> {
    if let Ok(micros) = text.parse() {
        return Ok(micros);
    }
    parse_date_and_time(text).ok_or_else(|| {
        "a time is 2026-01-31, 2026-01-31T12:00:00Z, or microseconds since 1970".to_owned()
    })
}

fn parse_date_and_time(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, clock) = text.split_once('T').unwrap_or((text, "00:00:00"));
    let numbers = |text: &str, between: char| -> Option<Vec<i64>> {
        let are_digits =
            |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
        text.split(between)
            .map(|part| are_digits(part).then(|| part.parse().ok())?)
            .collect()
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let ([year, month, day], [hour, minute, second]) = (
        numbers(date, '-')?[..].try_into().ok()?,
        numbers(clock, ':')?[..].try_into().ok()?,
    );
    let fraction = numbers(fraction, '.').filter(|_| fraction.len() <= 6)?[0]
        * 10i64.pow(6 - fraction.len() as u32);
    let is_time = hour < 24 && minute < 60 && second < 60;
    let days = days_from_civil(year, month, day).filter(|_| is_time)?;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    let micros = seconds * 1_000_000 + fraction;
    // A day that the month does not have would be written as one of the next month.
    time(micros).starts_with(date).then_some(micros)
}

/// Howard Hinnant, "chrono-compatible low-level date algorithms".
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(0..=9_999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * month + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::{parse_time, time};

    #[test]
    fn times_are_read_as_they_are_written() {
        for micros in [0, 951_782_400_000_001, -1, 4_102_444_799_999_999] {
            assert_eq!(parse_time(&time(micros)), Ok(micros));
        }
        assert_eq!(parse_time("1970-01-02"), Ok(86_400_000_000));
        assert_eq!(parse_time("1970-01-01T00:01:00.5Z"), Ok(60_500_000));
        assert_eq!(parse_time("-5"), Ok(-5));
        for wrong in [
            "",
            "today",
            "2026-02-30",
            "2026-13-01",
            "2026-01-01T24:00:00Z",
            "1970-1-1",
            "1970-01-01T+1:00:00",
        ] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_written_as_everybody_reads_them() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(time(951_782_400_000_001), "2000-02-29T00:00:00.000001Z");
        assert_eq!(time(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(time(4_102_444_799_999_999), "2099-12-31T23:59:59.999999Z");
    }
}
