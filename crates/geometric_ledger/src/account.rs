//! What the ledger keeps: an [`Account`] for each 32-byte [`Key`], and what a batch does to it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The name of an account, usually a public key.
pub type Key = [u8; 32];

/// The number of 64-bit words of an account.
pub(crate) const WORDS: usize = 7;

/// An account: 56 bytes, of which the ledger interprets `balance`, `nonce` and `flags`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Account {
    /// In the smallest unit of whatever is counted.
    pub balance: i128,
    /// How many transfers have debited the account.
    pub nonce: u64,
    pub flags: Flags,
    /// The application's own number: a currency, a kind, a tenant. Only accounts with the same code
    /// take part in one transfer.
    pub code: u32,
    /// The application's own bytes.
    pub data: [u8; 24],
}

/// What an account may do in a transfer.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flags(pub u32);

impl Flags {
    pub const NONE: Flags = Flags(0);
    /// The balance may go below zero: an issuer's account, a credit line.
    pub const OVERDRAFT: Flags = Flags(1);
    /// Nothing of the account changes but its flags.
    pub const FROZEN: Flags = Flags(2);

    pub fn contains(self, flags: Flags) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({:#x})", self.0)
    }
}

impl std::ops::BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl Account {
    /// The most that a balance may be above or below zero: 2^107. The sum of all balances has 128 bits,
    /// so it takes a million accounts of this size before it has no room for others.
    pub const MAX_BALANCE: i128 = 1 << 107;

    /// An account that holds `balance` and nothing else.
    pub fn with_balance(balance: i128) -> Self {
        Account {
            balance,
            ..Account::default()
        }
    }

    pub(crate) fn to_words(self) -> [u64; WORDS] {
        let data = |at: usize| u64::from_le_bytes(self.data[at..at + 8].try_into().unwrap());
        [
            self.balance as u64,
            (self.balance >> 64) as u64,
            self.nonce,
            u64::from(self.flags.0) | u64::from(self.code) << 32,
            data(0),
            data(8),
            data(16),
        ]
    }

    pub(crate) fn from_words(words: &[u64; WORDS]) -> Self {
        let mut data = [0; 24];
        for (bytes, word) in data.chunks_exact_mut(8).zip(&words[4..]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Account {
            balance: (u128::from(words[1]) << 64 | u128::from(words[0])) as i128,
            nonce: words[2],
            flags: Flags(words[3] as u32),
            code: (words[3] >> 32) as u32,
            data,
        }
    }
}

/// A key in hexadecimal, as errors and tools show it.
pub(crate) struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_account_is_its_words(balance: i128, nonce: u64, flags: u32, code: u32, data: [u8; 24]) {
            let account = Account { balance, nonce, flags: Flags(flags), code, data };
            prop_assert_eq!(Account::from_words(&account.to_words()), account);
        }
    }
}
