//! Attempts, and the pauses between them.

use crate::transport::{Transport, TransportError};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

/// How often a file is asked for. Each pause is about twice as long as the one before it, shortened at random
/// by up to a half, so that many clients do not come back at once.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    pub attempts: u32,
    pub first_pause: Duration,
    pub longest_pause: Duration,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            attempts: 5,
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(10),
        }
    }
}

impl Retry {
    /// A file's content, or why the last attempt failed, with the number of attempts.
    pub(crate) fn get(
        &self,
        transport: &dyn Transport,
        path: &str,
        limit: u64,
    ) -> Result<Vec<u8>, (TransportError, u32)> {
        self.until_lasting(|| transport.get(path, limit))
    }

    /// What comes of an attempt that did not fail in passing, or of the last one, with the number of attempts.
    pub(crate) fn until_lasting<T>(
        &self,
        attempt: impl Fn() -> Result<T, TransportError>,
    ) -> Result<T, (TransportError, u32)> {
        let mut number = 1;
        loop {
            match attempt() {
                Err(TransportError::Passing(_)) if number < self.attempts => {
                    std::thread::sleep(self.pause(number));
                    number += 1;
                }
                got => return got.map_err(|error| (error, number)),
            }
        }
    }

    fn pause(&self, attempt: u32) -> Duration {
        let doubled = self.first_pause.saturating_mul(1 << (attempt - 1).min(30));
        // The standard library's random keys serve as random bits.
        let random = RandomState::new().hash_one(attempt) as u16;
        let share = 1.0 - f64::from(random) / f64::from(u16::MAX) / 2.0;
        doubled.min(self.longest_pause).mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest() {
        let retry = Retry::default();
        for attempt in 1..100 {
            let whole = retry
                .first_pause
                .saturating_mul(1 << (attempt - 1).min(30))
                .min(retry.longest_pause);
            let pause = retry.pause(attempt);
            assert!(whole / 2 <= pause && pause <= whole, "{attempt}: {pause:?}");
        }
    }
}
