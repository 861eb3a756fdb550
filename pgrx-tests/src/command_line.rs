//! The program `merkle-log`, as its users run it.

use std::process::{Command, Stdio};

/// Without anything of the test's environment.
pub fn program() -> Command {
    // Beside the directory of the tests' own programs.
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("merkle-log");
    assert!(
        program.exists(),
        "{program:?} is not there: build the whole workspace"
    );
    let mut command = Command::new(program);
    command.env_clear();
    command
}

/// The exit code and what was printed.
pub fn says(command: &mut Command) -> (i32, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap_or(-1), text)
}
