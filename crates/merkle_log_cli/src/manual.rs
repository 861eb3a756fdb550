//! Completions and manual pages, made from the program's own description of its arguments.

use crate::output::Failure;
use clap::Command;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

pub fn completions(shell: clap_complete::Shell, mut command: Command) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "merkle-log", &mut script);
    match std::io::stdout().write_all(&script) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(_) => Err(Failure::Unheard),
    }
}

/// A page for the program and one for each command.
pub fn pages(directory: &Path, command: Command) -> Result<ExitCode, Failure> {
    std::fs::create_dir_all(directory).map_err(Failure::of(directory))?;
    clap_mangen::generate_to(command, directory).map_err(Failure::of(directory))?;
    Ok(ExitCode::SUCCESS)
}
