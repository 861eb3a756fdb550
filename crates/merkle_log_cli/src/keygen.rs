//! `keygen`: a new signing key, in a file that only its owner can read.

use crate::output::{Failure, say};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;
use tlog::{KeyName, SignatureType, SigningKey};
use zeroize::Zeroizing;

#[derive(clap::Args)]
pub struct Options {
    /// The key's name; for a log, its origin, such as example.com/orders
    #[arg(long)]
    name: String,
    /// The file to create; it must not exist
    #[arg(long)]
    out: PathBuf,
    /// A key that cosigns the checkpoints of others (a witness) instead of signing a log's own
    #[arg(long)]
    cosigner: bool,
}

pub fn run(options: &Options, json: bool) -> Result<ExitCode, Failure> {
    let name = KeyName::new(&options.name)?;
    let signature_type = match options.cosigner {
        true => SignatureType::Ed25519Cosignature,
        false => SignatureType::Ed25519,
    };
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed)?;
    let key = SigningKey::from_seed(name, signature_type, &seed)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&options.out)
        .map_err(Failure::of(&options.out))?;
    let text = Zeroizing::new(format!("{}\n", key.to_text().as_str()));
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(Failure::of(&options.out))?;
    let verifier_key = key.verifier_key().to_string();
    match json {
        true => say!(
            "{}",
            serde_json::json!({"file": options.out, "verifier_key": verifier_key})
        )?,
        false => say!("{verifier_key}")?,
    }
    Ok(ExitCode::SUCCESS)
}
