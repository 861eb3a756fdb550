//! The page of `merkle-log serve` in a real browser: rows are looked up, proofs are checked by the reader's own
//! machine, and what was tampered with is refused.

mod policy;
mod proofs;
mod readers;
mod site;
