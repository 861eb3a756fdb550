//! A log in a directory, a monitor of it, and those whom the monitor tells.

use crate::support::key;
use crate::support::log::{Log, export};
use serde_json::Value as Json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tlog::SignedNote;

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Stage {
    directory: TempDir,
    settings: String,
}

/// What a run printed.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    /// Of the log named `log`.
    pub verdict: String,
    pub why: String,
    pub entries: u64,
    pub lines: Vec<Json>,
    pub text: String,
}

pub fn orders(size: u64) -> Log {
    Log::of_orders("example.com/log", size)
}

/// The log with another first entry: everything is computed and signed anew.
pub fn rewritten(size: u64) -> Log {
    let mut log = orders(size);
    log.entries[0] = crate::order(-1);
    log
}

pub fn signed(log: &Log) -> SignedNote {
    log.signed(&[&key("example.com/log", 1)])
}

/// As in the tests of whole servers.
pub fn size<T>(short: T, long: T) -> T {
    match std::env::var_os("LONG") {
        Some(_) => long,
        None => short,
    }
}

pub fn seed() -> u64 {
    let given = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let clock = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_nanos() as u64;
    let seed = given.unwrap_or(clock);
    println!("SEED={seed}");
    seed
}

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}

impl Stage {
    pub fn new(settings: &str) -> Stage {
        Stage::new_with(settings, "")
    }

    /// With more lines about the log.
    pub fn new_with(settings: &str, of_log: &str) -> Stage {
        let stage = Stage {
            directory: tempfile::tempdir().unwrap(),
            settings: settings.to_owned(),
        };
        // One write a line: two of them may run at once, where a monitor was killed.
        let script = "event=$(cat)\nprintf '%s\\n' \"$event\" >> told\n";
        std::fs::write(stage.path("tell.sh"), script).unwrap();
        let vkey = key("example.com/log", 1).verifier_key();
        stage.configure("", &format!("key = '{vkey}'\n{of_log}"));
        stage
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn configure(&self, more: &str, of_log: &str) {
        let text = format!(
            "state = 'state'\n{}\n[[log]]\nname = 'log'\ntiles = 'log'\n{of_log}\n
             [[tell]]\nname = 'file'\ncommand = ['sh', 'tell.sh']\n{more}",
            self.settings
        );
        std::fs::write(self.path("monitor.toml"), text).unwrap();
    }

    /// Other ones who are told, and other logs. Settings of the whole go before the first table.
    pub fn configure_tell(&self, more: &str) {
        let vkey = key("example.com/log", 1).verifier_key();
        let split = more.find('[').unwrap();
        let (settings, tables) = more.split_at(split);
        let text = format!(
            "state = 'state'\n{settings}\n[[log]]\nname = 'log'\ntiles = 'log'\nkey = '{vkey}'\n{tables}"
        );
        std::fs::write(self.path("monitor.toml"), text).unwrap();
    }

    /// Shows this log from now on, as a whole.
    pub fn show(&self, log: &Log) {
        let (new, old) = (self.path("log.new"), self.path("log.old"));
        let _ = std::fs::remove_dir_all(&new);
        export(log, &signed(log), &new);
        let _ = std::fs::remove_dir_all(&old);
        let _ = std::fs::rename(self.path("log"), &old);
        std::fs::rename(&new, self.path("log")).unwrap();
    }

    pub fn show_checkpoint(&self, note: &SignedNote) {
        std::fs::write(self.path("log/checkpoint"), note.to_string()).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_merkle-log"));
        command
            .args(["--json", "monitor", "--config", "monitor.toml"])
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
        said(&self.command().args(arguments).output().unwrap())
    }

    pub fn once(&self) -> Said {
        let said = self.run(&["--once"]);
        assert!(!said.lines.is_empty(), "{said:?}");
        said
    }

    /// A run with `--once`, and how many kilobytes of memory it had at most.
    pub fn measured(&self) -> (Said, u64) {
        let mut command = self.command();
        command.arg("--once");
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let status = format!("/proc/{}/status", child.id());
        let output = std::thread::spawn(|| child.wait_with_output().unwrap());
        let mut most = 0;
        while !output.is_finished() {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            most = most.max(kilobytes.unwrap_or_default());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(most > 0);
        (said(&output.join().unwrap()), most)
    }

    pub fn daemon(&self) -> Daemon {
        let mut child = self.command().stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                assert!(!line.contains("panicked"), "{line}");
                eprintln!("monitor: {line}");
                written.lock().unwrap().push(line);
            }
        });
        // It has its state from the moment at which others do not get it.
        let state = self.path("state");
        let daemon = Daemon { child, lines };
        self.until(|| std::fs::File::open(&state).is_ok_and(|state| state.try_lock().is_err()));
        daemon
    }

    /// The events that the command was told.
    pub fn events(&self) -> Vec<Json> {
        let text = std::fs::read_to_string(self.path("told")).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Their kinds.
    pub fn told(&self) -> Vec<String> {
        let events = self.events().into_iter();
        events
            .map(|event| event["event"].as_str().unwrap().to_owned())
            .collect()
    }

    pub fn verify(&self, file: &str, name: &str, seed: u8) -> (i32, String) {
        let key = key(name, seed).verifier_key().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_merkle-log"));
        let output = command
            .args(["verify", "--key", &key, file])
            .current_dir(self.directory.path())
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8([output.stdout, output.stderr].concat()).unwrap(),
        )
    }

    pub fn until(&self, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "it does not happen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn said(output: &Output) -> Said {
    let text = [output.stdout.clone(), output.stderr.clone()].concat();
    let text = String::from_utf8(text).unwrap();
    let lines: Vec<Json> = std::str::from_utf8(&output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let first = lines.first().cloned().unwrap_or_default();
    Said {
        code: output.status.code().unwrap_or(-1),
        verdict: first["verdict"].as_str().unwrap_or_default().to_owned(),
        why: first["why"].to_string(),
        entries: first["entries"].as_u64().unwrap_or_default(),
        lines,
        text,
    }
}

pub struct Daemon {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Where it listens.
    pub fn address(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for line in self.lines.lock().unwrap().iter() {
                let json: Json = serde_json::from_str(line).unwrap_or_default();
                if json["fields"]["message"] == "listening" {
                    return json["fields"]["address"].as_str().unwrap().to_owned();
                }
            }
            assert!(Instant::now() < deadline, "it does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The status and the body.
pub fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// One who takes events by HTTP.
pub struct Hook {
    port: u16,
    state: Arc<Mutex<(u16, Vec<Json>)>>,
}

impl Hook {
    pub fn new() -> Hook {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new((200, Vec::new())));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let body = body_of(&stream);
                let mut shared = shared.lock().unwrap();
                shared.1.push(serde_json::from_slice(&body).unwrap());
                let status = shared.0;
                let _ = write!(
                    &stream,
                    "HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                );
            }
        });
        Hook { port, state }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    pub fn answers(&self, status: u16) {
        self.state.lock().unwrap().0 = status;
    }

    pub fn heard(&self) -> Vec<Json> {
        self.state.lock().unwrap().1.clone()
    }
}

fn body_of(stream: &TcpStream) -> Vec<u8> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    body
}

/// What a hostile log answers, whatever it is asked.
#[derive(Clone, Copy)]
pub enum Answer {
    Silent,
    /// A byte now and then.
    Drip,
    Endless,
    /// A gigabyte of zeros, compressed.
    Bomb,
}

/// A log that answers so until the test's process ends; its URL.
pub fn hostile(answer: Answer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer_so(stream, answer));
        }
    });
    format!("http://127.0.0.1:{port}")
}

fn answer_so(mut stream: TcpStream, answer: Answer) -> std::io::Result<()> {
    let mut request = [0; 1000];
    let _ = stream.read(&mut request)?;
    match answer {
        Answer::Silent => loop {
            std::thread::sleep(PATIENCE);
        },
        Answer::Drip => {
            stream.write_all(b"HTTP/1.1 200 x\r\ncontent-length: 100000\r\n\r\n")?;
            loop {
                stream.write_all(b"x")?;
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Answer::Endless => {
            stream.write_all(b"HTTP/1.1 200 x\r\nconnection: close\r\n\r\n")?;
            let zeros = vec![b'x'; 1 << 16];
            loop {
                stream.write_all(&zeros)?;
            }
        }
        Answer::Bomb => {
            let head = b"HTTP/1.1 200 x\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\n";
            stream.write_all(head)?;
            stream.write_all(&bomb())
        }
    }
}

/// gzip of a gigabyte of zeros, by the program gzip.
fn bomb() -> Vec<u8> {
    let made = Command::new("sh")
        .args(["-c", "head -c 1000000000 /dev/zero | gzip -1"])
        .output()
        .unwrap();
    assert!(!made.stdout.is_empty());
    made.stdout
}

/// The files of a directory over HTTP, each after a pause; the checkpoint is another one as soon as there is one. With
/// where that is put, the URL.
pub fn slow(directory: &Path, pause: Duration) -> (Arc<Mutex<Option<String>>>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (shown, directory) = (Arc::new(Mutex::new(None)), directory.to_owned());
    let checkpoint = Arc::clone(&shown);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (checkpoint, directory) = (Arc::clone(&checkpoint), directory.clone());
            std::thread::spawn(move || serve_slowly(&stream, &directory, &checkpoint, pause));
        }
    });
    (shown, format!("http://127.0.0.1:{port}"))
}

fn serve_slowly(
    stream: &TcpStream,
    directory: &Path,
    checkpoint: &Mutex<Option<String>>,
    pause: Duration,
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut first, mut line) = (String::new(), String::new());
        reader.read_line(&mut first).ok()?;
        while reader.read_line(&mut line).ok()? > 2 {
            line.clear();
        }
        let path = first.split(' ').nth(1)?.trim_start_matches('/').to_owned();
        let shown = checkpoint.lock().unwrap().clone();
        let content = match shown.filter(|_| path == "checkpoint") {
            Some(checkpoint) => Some(checkpoint.into_bytes()),
            None => std::fs::read(directory.join(&path)).ok(),
        };
        std::thread::sleep(pause);
        let status = if content.is_some() { 200 } else { 404 };
        let content = content.unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n",
            content.len()
        );
        let mut stream = stream;
        stream
            .write_all(&[head.as_bytes(), &content].concat())
            .ok()?;
    }
}

/// A server that speaks PostgreSQL as far as it must, and then answers without end: with one row of so many bytes, or with
/// short rows.
pub fn hostile_database(row: Option<u32>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer_sql(stream, row));
        }
    });
    address
}

fn message(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len() as u32 + 4;
    [&[kind][..], &length.to_be_bytes(), content].concat()
}

/// The first queries are answered as the program expects, up to its question for the checkpoint.
fn answer_sql(mut stream: TcpStream, row: Option<u32>) -> std::io::Result<()> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut startup)?;
    stream.write_all(&message(b'R', &[0; 4]))?;
    stream.write_all(&message(b'Z', b"I"))?;
    let mut text = String::new();
    loop {
        let mut header = [0; 5];
        stream.read_exact(&mut header)?;
        let [kind, length @ ..] = header;
        let mut content = vec![0; u32::from_be_bytes(length) as usize - 4];
        stream.read_exact(&mut content)?;
        match kind {
            b'Q' => {
                let settings = [message(b'C', b"SET\0"), message(b'Z', b"I")];
                stream.write_all(&settings.concat())?;
            }
            b'P' => {
                text = String::from_utf8_lossy(&content).into_owned();
                stream.write_all(&message(b'1', b""))?;
            }
            b'D' if content[0] == b'S' => {
                let parameters: &[u8] = match text.contains("$1") {
                    true => &[0, 1, 0, 0, 0, 25],
                    false => &[0, 0],
                };
                stream.write_all(&message(b't', parameters))?;
                let mut column = vec![0, 1];
                column.extend(b"note\0");
                column.extend([
                    0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 255, 255, 255, 255, 255, 255, 0, 0,
                ]);
                stream.write_all(&message(b'T', &column))?;
            }
            b'B' => {
                stream.write_all(&message(b'2', b""))?;
                let value = |text: &[u8]| {
                    let length = (text.len() as u32).to_be_bytes();
                    message(b'D', &[&[0, 1][..], &length, text].concat())
                };
                if !text.contains("$1") {
                    stream.write_all(&value(b"public"))?;
                    stream.write_all(&message(b'C', b"SELECT 1\0"))?;
                    continue;
                }
                if let Some(bytes) = row {
                    stream.write_all(&[&[b'D'][..], &bytes.to_be_bytes()].concat())?;
                }
                let rows = value(&[b'x'; 100]).repeat(1000);
                loop {
                    stream.write_all(&rows)?;
                }
            }
            b'S' => stream.write_all(&message(b'Z', b"I"))?,
            b'X' => return Ok(()),
            _ => {}
        }
    }
}
