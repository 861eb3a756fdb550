//! `merkle-log`: checks what logs publish, without a database; and administers, exports and serves the logs of one.
#![forbid(unsafe_code)]

mod administer;
mod connection;
mod database;
mod export;
mod files;
mod follow;
mod http;
mod hub;
mod keygen;
mod manual;
mod monitor;
mod output;
mod rehash;
mod serve;
mod status;
mod submit;
mod top;
mod verify;
mod witness;

use clap::{CommandFactory, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "merkle-log",
    version,
    about = "Checks proofs, checkpoints and exported logs, makes keys, and exports, serves and administers logs",
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
    /// Writes a log as files that anyone can serve and check (C2SP tlog-tiles)
    Export(export::Options),
    /// What the logs of a database are doing
    Status(status::Options),
    /// The same as a dashboard on the terminal, always fresh
    Top(top::Options),
    /// Makes, changes, pauses and drops logs
    Log(administer::log::Options),
    /// Adds tables to logs, and removes them
    Source(administer::source::Options),
    /// Makes logs and sources as a file declares them, after showing the difference
    Apply(administer::apply::Options),
    /// Answers over HTTP: roots, proofs, tiles, health, and a page for people
    Serve(serve::Options),
    /// Follows logs, checks all that they show, and tells when something is wrong
    Monitor(monitor::Options),
    /// Pulls checkpoints of logs into a log of its own, one timeline over many databases
    Hub(hub::Options),
    /// Has witnesses cosign new checkpoints of logs, and keeps the cosignatures in the database
    Submit(submit::Options),
    /// Cosigns checkpoints of logs that it has seen grow, over HTTP (C2SP tlog-witness)
    Witness(witness::Options),
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
        Command::Export(options) => export::run(&options, json),
        Command::Status(options) => status::run(&options, json),
        Command::Top(options) => top::run(&options, json),
        Command::Log(options) => administer::log::run(&options, json),
        Command::Source(options) => administer::source::run(&options, json),
        Command::Apply(options) => administer::apply::run(&options, json),
        Command::Serve(options) => serve::run(&options, json),
        Command::Monitor(options) => monitor::run(&options, json),
        Command::Hub(options) => hub::run(&options, json),
        Command::Submit(options) => submit::run(&options, json),
        Command::Witness(options) => witness::run(&options, json),
        Command::Completions { shell } => manual::completions(shell, Cli::command()),
        Command::Man { directory } => manual::pages(&directory, Cli::command()),
    };
    done.unwrap_or_else(output::Failure::exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_of_all_commands_agree() {
        Cli::command().debug_assert();
    }
}
