//! The gateway, `merkle-log serve`, as a process of its own, and a client that says to it what a test wants said.

use crate::Cluster;
use crate::command_line::program;
use merkle_tree::{HASH_SIZE, Hash};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Gateway {
    child: Child,
    pub address: String,
    /// The lines that it has written, each an object.
    lines: Arc<Mutex<Vec<Value>>>,
    pub directory: TempDir,
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Gateway {
    /// A gateway of the database `postgres` of a cluster, on a free port, with lines of configuration.
    pub fn start(cluster: &Cluster, configuration: &str) -> Gateway {
        Gateway::start_as(cluster, "postgres", configuration)
    }

    /// As `start`, as another role.
    pub fn start_as(cluster: &Cluster, user: &str, configuration: &str) -> Gateway {
        let directory = tempfile::tempdir().unwrap();
        Gateway::prepare(directory, configuration, |command| {
            command
                .env("PGHOST", cluster.socket())
                .env("PGUSER", user)
                .env("PGDATABASE", "postgres")
                .args(["--listen", "127.0.0.1:0"]);
        })
    }

    /// A gateway that a test starts in its own way. `{directory}` in the configuration is a directory of its own.
    pub fn prepare(
        directory: TempDir,
        configuration: &str,
        prepare: impl FnOnce(&mut Command),
    ) -> Gateway {
        Gateway::of_command("serve", directory, configuration, prepare)
    }

    /// As `prepare`, by another command that answers over HTTP.
    pub fn of_command(
        name: &str,
        directory: TempDir,
        configuration: &str,
        prepare: impl FnOnce(&mut Command),
    ) -> Gateway {
        Gateway::spawn(program(), directory, configuration, |command, file| {
            command.args(["--json", name, "--config"]).arg(file);
            prepare(command);
        })
    }

    /// As `prepare`, by another program, which becomes the gateway.
    pub fn prepare_program(
        directory: TempDir,
        configuration: &str,
        program: &str,
        prepare: impl FnOnce(&mut Command, &Path),
    ) -> Gateway {
        let mut command = Command::new(program);
        command.env_clear();
        Gateway::spawn(command, directory, configuration, prepare)
    }

    /// A command that a test puts together itself; it is given a file with the configuration.
    pub fn spawn(
        mut command: Command,
        directory: TempDir,
        configuration: &str,
        prepare: impl FnOnce(&mut Command, &Path),
    ) -> Gateway {
        let file = directory.path().join("gateway.toml");
        std::fs::write(&file, filled(configuration, directory.path())).unwrap();
        prepare(&mut command, &file);
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (written, stderr) = (Arc::clone(&lines), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                eprintln!("gateway: {line}");
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                written.lock().unwrap().push(line);
            }
        });
        let mut gateway = Gateway {
            child,
            address: String::new(),
            lines,
            directory,
        };
        let address = gateway.says("listening");
        gateway.address = address["fields"]["address"].as_str().unwrap().to_owned();
        gateway
    }

    /// Waits for a line with this message.
    pub fn says(&mut self, message: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lines = self.lines();
            if let Some(line) = lines
                .iter()
                .find(|line| line["fields"]["message"] == message)
            {
                return line.clone();
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "not said: {message}; {ended:?} {lines:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn lines(&self) -> Vec<Value> {
        self.lines.lock().unwrap().clone()
    }

    pub fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Replaces the configuration, and waits until it was read, or refused.
    pub fn reload(&mut self, configuration: &str, message: &str) {
        let file = self.directory.path().join("gateway.toml");
        std::fs::write(file, filled(configuration, self.directory.path())).unwrap();
        self.lines.lock().unwrap().clear();
        crate::signal("HUP", &[&self.pid()]);
        self.says(message);
    }

    /// Waits until it has ended by itself.
    pub fn ends(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[])
    }

    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.request("GET", path, headers, "")
    }

    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        exchange(self.connect(), method, path, headers, body)
    }

    /// The answer as JSON, which must be good.
    pub fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer}");
        answer.json()
    }

    /// Waits until a path has a status.
    pub fn until_status(&self, path: &str, status: u16) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.get(path);
            if answer.status == status {
                return;
            }
            assert!(Instant::now() < deadline, "{path}: still {answer}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn filled(configuration: &str, directory: &Path) -> String {
    configuration.replace("{directory}", directory.to_str().unwrap())
}

/// Bytes that an answer in JSON has.
pub fn bytes(value: &Value) -> Vec<u8> {
    let text = value
        .as_str()
        .unwrap_or_else(|| panic!("no bytes: {value}"));
    let digits = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
    (0..text.len() / 2).map(digits).collect()
}

pub fn hash(value: &Value) -> Hash {
    let bytes = <[u8; HASH_SIZE]>::try_from(bytes(value)).unwrap();
    Hash::from(bytes)
}

/// Writes a file of tokens that nobody else may read; returns its path.
pub fn token_file(directory: &Path, name: &str, lines: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let file = directory.join(name);
    std::fs::write(&file, lines).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    file
}

/// One request over a stream of its own.
pub fn exchange(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    let written = stream.write_all(format!("{head}\r\n{body}").as_bytes());
    // Whoever refuses a request need not read all of it.
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    assert!(!answer.is_empty(), "{method} {path}: {written:?} {read:?}");
    Answer::parse(&answer)
}

pub fn exchange_unix(
    socket: &Path,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    exchange(stream, method, path, headers, body)
}

impl Answer {
    pub fn parse(bytes: &[u8]) -> Answer {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head: {}", String::from_utf8_lossy(bytes)));
        let answer = Answer {
            body: bytes[end + 4..].to_vec(),
            ..Answer::parse_head(&bytes[..end])
        };
        if let Some(length) = answer.header("content-length") {
            let length: usize = length.parse().unwrap();
            // A HEAD has the length and not the content.
            let whole = answer.body.len() == length || answer.body.is_empty();
            assert!(whole, "torn: {answer}");
        }
        answer
    }

    /// An answer without its body.
    pub fn parse_head(bytes: &[u8]) -> Answer {
        let head = String::from_utf8(bytes.to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let headers = lines.filter_map(|line| line.split_once(": "));
        let answer = Answer {
            status: status.and_then(|status| status.parse().ok()).unwrap(),
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect(),
            body: Vec::new(),
        };
        let chunked = answer.header("transfer-encoding").is_some();
        assert!(!chunked, "answers are of a known length: {head}");
        answer
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(given, _)| given == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// The problem's kind and its hint.
    pub fn problem(&self) -> (u16, String, String) {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{self}");
        let kind = problem["type"]
            .as_str()
            .unwrap()
            .trim_start_matches("/docs#")
            .to_owned();
        let hint = problem["hint"].as_str().unwrap_or_default().to_owned();
        (self.status, kind, hint)
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {:?} {}",
            self.status,
            self.headers,
            String::from_utf8_lossy(&self.body)
        )
    }
}
