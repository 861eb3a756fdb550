//! A cluster of its own for each test, in a temporary directory, on a Unix socket.

use crate::command_line::program;
use crate::{one, until};
use postgres::{Client, Config, NoTls};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;

mod disk;
mod template;

pub use disk::Disk;

pub struct Cluster {
    bin: PathBuf,
    dir: TempDir,
    settings: String,
    /// A library that the server's processes are started with.
    preloaded: Option<PathBuf>,
}

impl Cluster {
    /// A running cluster with the extension in database `postgres`.
    pub fn start() -> Cluster {
        Cluster::with("")
    }

    /// As `start`, with the library preloaded, so with background workers and the node cache.
    pub fn preloaded() -> Cluster {
        Cluster::with("shared_preload_libraries = 'merkle_log'")
    }

    /// As `start`, with lines of configuration of the test's own.
    pub fn with(settings: &str) -> Cluster {
        let cluster = Cluster::copied(settings);
        cluster.restart();
        cluster
    }

    /// With a data directory, and not running.
    fn copied(settings: &str) -> Cluster {
        let mut cluster = Cluster::empty();
        cluster.settings = settings.to_owned();
        template::copy(&cluster);
        cluster.configure();
        cluster
    }

    /// Makes the data directory from nothing, as the first start of an installation does.
    fn initialize(&self) {
        self.tool(
            "initdb",
            [
                "-D",
                &self.data(),
                "-A",
                "trust",
                "-U",
                "postgres",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ],
        );
        self.configure();
        self.restart();
        // Before version 15 everyone may create objects in this schema, where the extension refuses to be then.
        for database in ["template1", "postgres"] {
            crate::run(
                &mut self.client(database),
                "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            );
        }
        crate::run(&mut self.client("postgres"), "CREATE EXTENSION merkle_log");
        self.stop();
    }

    /// A running standby that streams from `primary`.
    pub fn standby_of(primary: &Cluster) -> Cluster {
        let mut cluster = Cluster::empty();
        cluster.settings = primary.settings.clone();
        let from = format!("host={} user=postgres", primary.socket().display());
        cluster.tool(
            "pg_basebackup",
            [
                "-D",
                &cluster.data(),
                "-d",
                &from,
                "-R",
                "-X",
                "stream",
                "-c",
                "fast",
                "--no-sync",
            ],
        );
        cluster.configure();
        cluster.restart();
        cluster
    }

    fn empty() -> Cluster {
        let pg_config = std::env::var("MERKLE_LOG_PG_CONFIG").expect(
            "MERKLE_LOG_PG_CONFIG names the pg_config to test with: use `make test-server`",
        );
        let bin = Path::new(&pg_config).parent().unwrap().to_owned();
        // Directly under /tmp: a socket's path is short, and the server's user can reach it.
        let dir = tempfile::Builder::new()
            .prefix("merkle_log-")
            .tempdir_in("/tmp")
            .unwrap();
        if as_root() {
            check(Command::new("chown").arg("postgres").arg(dir.path()));
        }
        Cluster {
            bin,
            dir,
            settings: String::new(),
            preloaded: None,
        }
    }

    /// Killed processes lose nothing that they handed to the operating system, which no test crashes: so
    /// nothing need be forced to the disk.
    fn configure(&self) {
        let settings = format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\nmax_prepared_transactions = 10\n\
             max_connections = 60\nfsync = off\nlog_min_messages = warning\nlogging_collector = off\n{}\n",
            self.socket().display(),
            self.settings
        );
        fs::write(self.dir.path().join("test.conf"), &settings).unwrap();
        let include = format!(
            "include '{}'\n",
            self.dir.path().join("test.conf").display()
        );
        let file = self.dir.path().join("data/postgresql.conf");
        let mut text = fs::read_to_string(&file).unwrap();
        if let Some(at) = text.find("include '/tmp/merkle_log-") {
            text.truncate(at);
        }
        fs::write(file, text + &include).unwrap();
    }

    /// Starts the server, after a stop or a crash.
    pub fn restart(&self) {
        let log = self.dir.path().join("log").display().to_string();
        self.tool(
            "pg_ctl",
            ["-D", &self.data(), "-l", &log, "-w", "-t", "120", "start"],
        );
    }

    /// Waits until this standby has replayed all that `primary` has flushed so far; fails after a minute.
    pub fn catches_up_with(&self, primary: &Cluster) {
        let flushed: String = one(
            &mut primary.client("postgres"),
            "SELECT pg_current_wal_flush_lsn()::text",
        );
        until(
            &mut self.client("postgres"),
            &format!("SELECT pg_last_wal_replay_lsn() >= '{flushed}'"),
        );
    }

    /// Makes a standby the primary, and waits until it is.
    pub fn promote(&self) {
        self.tool("pg_ctl", ["-D", &self.data(), "-w", "promote"]);
    }

    /// Lets the server read its configuration again, with a line added.
    pub fn reload_with(&self, line: &str) {
        let file = self.dir.path().join("test.conf");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{text}{line}\n")).unwrap();
        self.tool("pg_ctl", ["-D", &self.data(), "reload"]);
    }

    /// Makes a key with the name, and lets the server sign checkpoints with it.
    pub fn sign_with_a_new_key(&self, name: &str) {
        let key = self.dir.path().join("signing-key");
        check(
            program()
                .args(["keygen", "--name", name, "--out"])
                .arg(&key),
        );
        // The server may run as another user than the test.
        self.hand_over(&key);
        self.reload_with(&format!(
            "merkle_log.signing_key_file = '{}'",
            key.display()
        ));
    }

    /// Makes a file or directory the server's.
    pub fn hand_over(&self, path: &Path) {
        check(
            Command::new("chown")
                .args(["-R", "--reference", &self.data()])
                .arg(path),
        );
    }

    /// Stops the server as `mode` says; how long that took.
    pub fn stop_within(&self, mode: &str) -> Duration {
        let started = Instant::now();
        self.tool("pg_ctl", ["-D", &self.data(), "-w", "-m", mode, "stop"]);
        started.elapsed()
    }

    pub fn stop(&self) {
        self.tool("pg_ctl", ["-D", &self.data(), "-w", "-m", "fast", "stop"]);
    }

    /// As a power cut for the processes: none of them gets to do anything any more.
    pub fn kill_9(&self) {
        let pid = fs::read_to_string(self.dir.path().join("data/postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap().to_owned();
        // A postmaster that is stopped starts nothing any more, and one whose children die before it
        // does nothing about it. One may end by itself meanwhile, so the exit codes say nothing.
        signal("STOP", &[pid.as_str()]);
        let children = Command::new("pgrep").args(["-P", &pid]).output().unwrap();
        let children = String::from_utf8(children.stdout).unwrap();
        let children: Vec<&str> = children.lines().collect();
        signal("KILL", &children);
        signal("KILL", &[pid.as_str()]);
        let all: Vec<&str> = children.iter().copied().chain([pid.as_str()]).collect();
        let deadline = Instant::now() + Duration::from_secs(30);
        while all.iter().any(|pid| alive(pid)) {
            assert!(
                Instant::now() < deadline,
                "killed processes are still there"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        self.release_shared_memory();
        // Where nobody has collected the dead postmaster yet, its pid still looks taken.
        for lock in ["data/postmaster.pid", ".s.PGSQL.5432.lock"] {
            fs::remove_file(self.dir.path().join(lock)).unwrap();
        }
    }

    /// The System V segment by which a server knows that it is the only one on its directory outlives a killed
    /// server, though no power cut, and only a few thousand fit into the kernel's table. One that was about to
    /// end may have removed it, so the exit code says nothing.
    fn release_shared_memory(&self) {
        if let Some(segment) = self.shared_memory_segment() {
            Command::new("ipcrm")
                .args(["-m", &segment])
                .output()
                .unwrap();
        }
    }

    /// The number of that segment, as `ipcs -m` has it; none before the server has made it.
    pub fn shared_memory_segment(&self) -> Option<String> {
        let lock = fs::read_to_string(self.dir.path().join("data/postmaster.pid")).ok()?;
        let (_key, number) = lock.lines().nth(6)?.trim().split_once(' ')?;
        Some(number.trim().to_owned())
    }

    pub fn client(&self, database: &str) -> Client {
        self.client_as(database, "postgres")
    }

    pub fn client_as(&self, database: &str, user: &str) -> Client {
        self.config(database, user)
            .connect(NoTls)
            .unwrap_or_else(|e| panic!("{e:?}\n{}", self.log()))
    }

    /// A connection that puts what the server tells it on the way, notices and warnings, into `notices`.
    pub fn client_hearing(
        &self,
        user: &str,
        notices: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
    ) -> Client {
        let mut config = self.config("postgres", user);
        config.notice_callback(move |notice| {
            let parts = [Some(notice.message()), notice.detail(), notice.hint()];
            let text = parts.into_iter().flatten().collect::<Vec<_>>().join(" ");
            notices.lock().unwrap().push(text);
        });
        config
            .connect(NoTls)
            .unwrap_or_else(|e| panic!("{e:?}\n{}", self.log()))
    }

    /// A connection, if the server is there and takes one.
    pub fn try_client(&self, database: &str) -> Option<Client> {
        self.config(database, "postgres").connect(NoTls).ok()
    }

    pub fn config(&self, database: &str, user: &str) -> Config {
        let mut config = Config::new();
        config.host_path(self.socket()).user(user).dbname(database);
        config
    }

    /// Sets a limit of a server process, as `prlimit` has it.
    pub fn limit(&self, pid: i32, limit: &str) {
        let mut command = match as_root() {
            true => {
                let mut command = Command::new("runuser");
                command.args(["-u", "postgres", "--", "prlimit"]);
                command
            }
            false => Command::new("prlimit"),
        };
        check(command.args(["--pid", &pid.to_string(), limit]));
    }

    /// Runs a shell command line with the installation's programs, PGHOST and PGUSER set.
    pub fn shell(&self, line: &str) -> Output {
        let path = format!("{}:{}", self.bin.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.args(["-c", &format!("set -eo pipefail; {line}")]);
        command
            .env("PATH", path)
            .env("PGHOST", self.socket())
            .env("PGUSER", "postgres");
        check(&mut command)
    }

    /// Writes a file beside the data directory that the server alone may read; returns its path.
    pub fn secret_file(&self, name: &str, content: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        check(Command::new("chmod").arg("600").arg(&path));
        if as_root() {
            check(Command::new("chown").arg("postgres").arg(&path));
        }
        path.display().to_string()
    }

    /// Where the installation's programs are.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    pub fn socket(&self) -> &Path {
        self.dir.path()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Where the server's files are.
    pub fn data_directory(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// What whoever rules the server's machine can do: the server knows no more what it has signed.
    pub fn forgets_what_it_signed(&self) {
        fs::remove_dir_all(self.data_directory().join("merkle_log_origins")).unwrap();
    }

    fn data(&self) -> String {
        self.dir.path().join("data").display().to_string()
    }

    /// Runs one of the installation's programs as a user that a server may run as.
    fn tool<S: AsRef<OsStr>>(&self, name: &str, args: impl IntoIterator<Item = S>) {
        let program = self.bin.join(name);
        let mut command = match as_root() {
            true => {
                let mut command = Command::new("runuser");
                command.args(["-u", "postgres", "--", "env"]);
                command
            }
            false => Command::new("env"),
        };
        command.args(self.environment()).arg(program);
        check(command.args(args).current_dir("/tmp"));
    }
}

/// With `AMCHECK` set, as `make test-all-pg` does, every test ends with a look at the indexes of each database.
fn damaged_indexes(cluster: &Cluster) -> Vec<String> {
    // A server that was stopped, or that is a standby, cannot be asked.
    let databases = cluster.try_client("postgres").and_then(|mut c| {
        let sql =
            "SELECT datname::text FROM pg_database WHERE datallowconn AND NOT pg_is_in_recovery()";
        let rows = c.query(sql, &[]).ok()?;
        Some(rows.iter().map(|row| row.get(0)).collect::<Vec<String>>())
    });
    let damage = |database: &String| {
        let mut client = cluster.try_client(database)?;
        let error = crate::try_check_indexes(&mut client).err()?;
        // Corrupted data or index. Others, such as that the server is ending, say nothing of indexes.
        let is_damage = error
            .code()
            .is_some_and(|c| ["XX001", "XX002"].contains(&c.code()));
        is_damage.then(|| format!("{database}: {error:?}"))
    };
    databases.iter().flatten().filter_map(damage).collect()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let looked_for = std::env::var_os("AMCHECK").is_some() && !std::thread::panicking();
        let damaged = match looked_for {
            true => damaged_indexes(self),
            false => Vec::new(),
        };
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!(
                "the server's last words, newest first:\n{}",
                tail.join("\n")
            );
        }
        if self.dir.path().join("data/postmaster.pid").exists() {
            self.kill_9();
        }
        assert!(damaged.is_empty(), "{}", damaged.join("\n"));
    }
}

/// Sends a signal to processes, some of which may be gone.
pub fn signal(name: &str, pids: &[&str]) {
    if !pids.is_empty() {
        let signal = format!("-{name}");
        Command::new("kill")
            .arg(signal)
            .args(pids)
            .output()
            .unwrap();
    }
}

fn as_root() -> bool {
    fs::metadata("/proc/self")
        .map(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
        .unwrap_or(false)
}

fn alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z")
}

fn check(command: &mut Command) -> Output {
    // The server goes on with the descriptors it was started with: it must not get the test's.
    let output = command.stdin(std::process::Stdio::null());
    let file = tempfile::tempfile().unwrap();
    let (out, err) = (file.try_clone().unwrap(), file.try_clone().unwrap());
    let status = output
        .stdout(out)
        .stderr(err)
        .status()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut text = Vec::new();
    let mut file = file;
    std::io::Seek::rewind(&mut file).unwrap();
    std::io::Read::read_to_end(&mut file, &mut text).unwrap();
    assert!(
        status.success(),
        "{command:?}:\n{}",
        String::from_utf8_lossy(&text)
    );
    Output {
        status,
        stdout: text,
        stderr: Vec::new(),
    }
}
