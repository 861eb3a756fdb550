//! Where the key of an encrypted ledger comes from, and hexadecimal.

use crate::output::Failure;
use clap::Args;
use geometric_ledger::Secret;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Args)]
#[group(multiple = false)]
pub struct Source {
    /// A file with the ledger's key: 32 bytes, or 64 hexadecimal digits
    #[arg(long, global = true)]
    key_file: Option<PathBuf>,
    /// A shell command that prints the ledger's key: 32 bytes, or 64 hexadecimal digits
    #[arg(long, global = true)]
    key_command: Option<String>,
}

impl Source {
    pub fn read(&self) -> Result<Option<Secret>, Failure> {
        match (&self.key_file, &self.key_command) {
            (Some(file), _) => from_file(file).map(Some),
            (_, Some(command)) => {
                let output = Command::new("sh").args(["-c", command]).output()?;
                if !output.status.success() {
                    return Err(Failure::new(format!(
                        "the key command failed: {}",
                        output.status
                    )));
                }
                parse(&output.stdout).map(Some)
            }
            _ => Ok(None),
        }
    }
}

pub fn from_file(path: &Path) -> Result<Secret, Failure> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Result<Secret, Failure> {
    if let Ok(key) = bytes.try_into() {
        return Ok(Secret::new(key));
    }
    let text = String::from_utf8_lossy(bytes);
    let key = unhex(text.trim()).and_then(|bytes| bytes.try_into().ok());
    key.map(Secret::new)
        .ok_or_else(|| Failure::new("a key is 32 bytes, or 64 hexadecimal digits"))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok())
        .collect()
}
