//! A program that reads the event as JSON from its standard input. Exit code 0 means that it was heard.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

pub struct Command {
    words: Vec<String>,
    timeout: Duration,
}

impl Command {
    pub fn new(words: &[String], timeout: Duration) -> Command {
        Command {
            words: words.to_vec(),
            timeout,
        }
    }

    pub fn tell(&self, json: &str) -> Result<(), String> {
        let [program, arguments @ ..] = self.words.as_slice() else {
            return Err("there is no command".to_owned());
        };
        let failed = |error: std::io::Error| format!("{program}: {error}");
        // In a group of its own, so that what it starts ends with it.
        let mut child = std::process::Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        // An event is shorter than what a pipe holds, so that this does not wait for the program.
        if let Some(mut stdin) = child.stdin.take() {
            // One that ends without reading tells by its exit code what it thinks of it.
            let _ = stdin.write_all(json.as_bytes());
        }
        let deadline = Instant::now() + self.timeout;
        while Instant::now() < deadline {
            match child.try_wait().map_err(failed)? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("{program}: {status}")),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        end(&mut child);
        let seconds = self.timeout.as_secs();
        Err(format!("{program} did not end in {seconds} s"))
    }
}

/// Ends a program and all that it has started.
fn end(child: &mut Child) {
    if let Some(group) = rustix::process::Pid::from_raw(child.id() as i32) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(script: &str, timeout: Duration) -> Command {
        let words = ["sh", "-c", script].map(str::to_owned);
        Command::new(&words, timeout)
    }

    #[test]
    fn a_command_is_given_the_event_and_bounded_time() {
        let long = Duration::from_secs(60);
        let json = format!("{{\"detail\":\"{}\"}}", "x".repeat(10_000));
        let counts = format!("test $(wc -c) -eq {}", json.len());
        command(&counts, long).tell(&json).unwrap();
        command("exit 0", long).tell(&json).unwrap();
        assert!(command("exit 3", long).tell(&json).is_err());
        let started = Instant::now();
        let slow = command("sleep 100 & wait", Duration::from_millis(200));
        assert!(slow.tell(&json).unwrap_err().contains("did not end"));
        assert!(started.elapsed() < long);
        let words = ["/nonexistent/program".to_owned()];
        assert!(Command::new(&words, long).tell(&json).is_err());
    }
}
