//! Exact decimal numbers, as PostgreSQL's `numeric` holds them.

use crate::Error;
use num_bigint::BigUint;
use std::cmp::Ordering;

/// A decimal number in base 10000: `±Σ digits[i]·10000^(weight-i)`.
///
/// Normalised, so that equal numbers are equal values whatever scale they were written with: no
/// zero digit at either end, and zero has no digits, weight 0 and no sign.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decimal {
    negative: bool,
    weight: i32,
    digits: Vec<u16>,
}

impl Decimal {
    /// # Errors
    /// If a digit is above 9999.
    pub fn from_base_10000(negative: bool, weight: i32, digits: &[u16]) -> Result<Decimal, Error> {
        if let Some(digit) = digits.iter().find(|d| **d > 9999) {
            return Err(Error::Digit(*digit));
        }
        let Some(first) = digits.iter().position(|d| *d != 0) else {
            return Ok(Decimal {
                negative: false,
                weight: 0,
                digits: Vec::new(),
            });
        };
        let last = digits.iter().rposition(|d| *d != 0).unwrap_or(first);
        Ok(Decimal {
            negative,
            weight: weight.saturating_sub(first as i32),
            digits: digits[first..=last].to_vec(),
        })
    }

    /// True below zero.
    pub fn is_negative(&self) -> bool {
        self.negative
    }

    /// `(exponent, |mantissa|)` with the number being `±mantissa·10^exponent`, where ten does not
    /// divide the mantissa; zero is `(0, 0)`.
    pub fn parts(&self) -> (i64, BigUint) {
        let Some(last) = self.digits.last() else {
            return (0, BigUint::ZERO);
        };
        let zeros = (1..4).take_while(|z| last % 10u16.pow(*z) == 0).count();
        let exponent = 4 * (i64::from(self.weight) - (self.digits.len() as i64 - 1));
        // Nine digits are below 10^36, which 128 bits hold.
        let mantissa = if self.digits.len() <= 9 {
            let whole = self
                .digits
                .iter()
                .fold(0u128, |n, d| n * 10_000 + u128::from(*d));
            BigUint::from(whole / 10u128.pow(zeros as u32))
        } else {
            let text: String = self.digits.iter().map(|d| format!("{d:04}")).collect();
            BigUint::parse_bytes(&text.as_bytes()[..text.len() - zeros], 10).unwrap_or_default()
        };
        (exponent + zeros as i64, mantissa)
    }

    /// The number, if it is an integer of 64 bits.
    pub fn to_i64(&self) -> Option<i64> {
        let (exponent, mantissa) = self.parts();
        let magnitude = i128::from(u64::try_from(&mantissa).ok()?)
            .checked_mul(10i128.checked_pow(exponent.try_into().ok()?)?)?;
        i64::try_from(if self.negative { -magnitude } else { magnitude }).ok()
    }

    fn cmp_magnitude(&self, other: &Decimal) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (false, false) => self
                .weight
                .cmp(&other.weight)
                .then_with(|| self.digits.cmp(&other.digits)),
            (mine, others) => others.cmp(&mine),
        }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Decimal) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.cmp_magnitude(other),
            (true, true) => other.cmp_magnitude(self),
            (mine, others) => others.cmp(&mine),
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<i64> for Decimal {
    fn from(n: i64) -> Decimal {
        let mut rest = n.unsigned_abs();
        let mut digits = Vec::with_capacity(5);
        while rest > 0 {
            digits.push((rest % 10_000) as u16);
            rest /= 10_000;
        }
        digits.reverse();
        Decimal::from_base_10000(n < 0, digits.len() as i32 - 1, &digits)
            .unwrap_or_else(|_| unreachable!("remainders by 10000 are digits"))
    }
}
