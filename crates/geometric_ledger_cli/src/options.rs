//! How a ledger is opened, from the command line.

use clap::Args;
use geometric_ledger::{Options, Secret};

#[derive(Args)]
#[command(
    next_help_heading = "Memory and disk of a ledger that is opened (K, M, G and T may follow a number)"
)]
pub struct Tuning {
    /// Memory for what is not in the files yet; also for replaying a crash's log when only reading
    #[arg(long, global = true, value_name = "BYTES", value_parser = bytes, default_value = "2G")]
    dirty_bytes: u64,
    /// Memory that may be kept beside the page cache
    #[arg(long, global = true, value_name = "BYTES", value_parser = bytes, default_value = "4G")]
    resident_bytes: u64,
    /// A checkpoint is made after so much log: what a crash has to replay
    #[arg(long, global = true, value_name = "BYTES", value_parser = bytes, default_value = "1G")]
    checkpoint_bytes: u64,
    /// Log kept for history and for followers
    #[arg(long, global = true, value_name = "BYTES", value_parser = bytes, default_value = "256M")]
    history_bytes: u64,
    /// Older batches than so many are pruned, with what proves them; all are kept if this is not given
    #[arg(long, global = true, value_name = "BATCHES")]
    keep_batches: Option<u64>,
    /// Records and entries of transfers that are older than so many batches are let go; all are kept if this is
    /// not given
    #[arg(long, global = true, value_name = "BATCHES")]
    keep_transfers: Option<u64>,
}

impl Tuning {
    pub fn options(&self, key: Option<Secret>) -> Options {
        let options = Options::new()
            .dirty_bytes(self.dirty_bytes)
            .resident_bytes(self.resident_bytes)
            .checkpoint_bytes(self.checkpoint_bytes)
            .history_bytes(self.history_bytes)
            .batches(self.keep_batches.unwrap_or(u64::MAX))
            .transfers(self.keep_transfers.unwrap_or(u64::MAX));
        match key {
            Some(key) => options.key(key),
            None => options,
        }
    }
}

/// A number of bytes, as 4096, 64M or 2G.
pub fn bytes(text: &str) -> Result<u64, String> {
    let (number, shift) = match text.char_indices().next_back() {
        Some((at, unit)) if !unit.is_ascii_digit() => {
            let unit = unit.to_ascii_uppercase();
            let power = "KMGT".find(unit).ok_or("the unit is K, M, G or T")?;
            (&text[..at], 10 * (power as u32 + 1))
        }
        _ => (text, 0),
    };
    let number: u64 = number.parse().map_err(|_| "this is no number of bytes")?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "this is too many bytes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(bytes("0"), Ok(0));
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("2g"), Ok(2 << 30));
        assert_eq!(bytes("1T"), Ok(1 << 40));
        for wrong in ["", "G", "-1", "1X", "1.5G", "99999999999T", "1é"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
