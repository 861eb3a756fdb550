//! What an account may pay and get.

use crate::account::{Account, Flags, Key};
use crate::error::Refusal;

/// An amount as a balance counts it.
pub fn amount_of(amount: u128, key: &Key) -> Result<i128, Refusal> {
    match i128::try_from(amount) {
        Ok(0) => Err(Refusal::ZeroAmount),
        Ok(amount) => Ok(amount),
        Err(_) => Err(Refusal::Overflow(*key)),
    }
}

/// Whether accounts take part in transfers at all, and in one with each other.
pub fn check_parties(debit: (&Key, &Account), credit: (&Key, &Account)) -> Result<(), Refusal> {
    for (key, account) in [debit, credit] {
        check_not_frozen(key, account)?;
    }
    if debit.1.code != credit.1.code {
        return Err(Refusal::CodeMismatch {
            debit_key: *debit.0,
            debit: debit.1.code,
            credit_key: *credit.0,
            credit: credit.1.code,
        });
    }
    Ok(())
}

pub fn check_not_frozen(key: &Key, account: &Account) -> Result<(), Refusal> {
    match account.flags.contains(Flags::FROZEN) {
        true => Err(Refusal::Frozen(*key)),
        false => Ok(()),
    }
}

/// Takes an amount off an account, and counts that.
pub fn pay(key: &Key, account: &mut Account, amount: i128) -> Result<(), Refusal> {
    let overflow = Refusal::Overflow(*key);
    let left = account.balance.checked_sub(amount).filter(within);
    let left = left.ok_or(overflow.clone())?;
    if left < 0 && !account.flags.contains(Flags::OVERDRAFT) {
        return Err(Refusal::InsufficientFunds {
            key: *key,
            balance: account.balance,
            amount: amount.unsigned_abs(),
        });
    }
    account.nonce = account.nonce.checked_add(1).ok_or(overflow)?;
    account.balance = left;
    Ok(())
}

/// Adds an amount to an account.
pub fn get(key: &Key, account: &mut Account, amount: i128) -> Result<(), Refusal> {
    let sum = account.balance.checked_add(amount).filter(within);
    account.balance = sum.ok_or(Refusal::Overflow(*key))?;
    Ok(())
}

fn within(balance: &i128) -> bool {
    balance.unsigned_abs() <= Account::MAX_BALANCE as u128
}
