//! `merkle-log`: what an outsider needs of merkle_log, in one program. It needs no database.
#![forbid(unsafe_code)]

mod keygen;
mod manual;
mod output;
mod verify;

use clap::{CommandFactory, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "merkle-log",
    version,
    about = "Checks proofs, checkpoints and exported logs, and makes keys",
    after_help = "Exit codes: 0 good; 1 proven bad; 2 could not tell."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// One JSON object a line instead of text
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Checks proof bundles, tlog-proofs, consistency proofs, checkpoints and exported directories, offline
    Verify(verify::Options),
    /// Makes a signing key, and prints its verifier key
    Keygen(keygen::Options),
    /// Prints the completions of a shell
    Completions { shell: clap_complete::Shell },
    /// Writes the manual pages into a directory
    Man { directory: PathBuf },
}

fn main() -> ExitCode {
    let Cli { command, json } = Cli::parse();
    let done = match command {
        Command::Verify(options) => verify::run(&options, json),
        Command::Keygen(options) => keygen::run(&options, json),
        Command::Completions { shell } => manual::completions(shell, Cli::command()),
        Command::Man { directory } => manual::pages(&directory, Cli::command()),
    };
    done.unwrap_or_else(output::Failure::exit)
}
