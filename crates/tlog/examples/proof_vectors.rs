//! Prints the vectors of the proof format: `cargo run -p tlog --example proof_vectors > docs/proof-format-vectors.json`.

#[path = "../tests/support/mod.rs"]
mod support;

fn main() {
    print!("{}", support::vectors::file());
}
