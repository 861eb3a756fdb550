//! `merkle-log top`, on a terminal that tmux pretends to be.

use server_tests::command_line::{program, says};
use server_tests::*;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A shell on a terminal of its own, and a server with two logs.
struct Desk {
    cluster: Cluster,
    client: Client,
    directory: TempDir,
}

impl Drop for Desk {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("on the screen:\n{}", self.screen(&[]));
        }
        self.tmux(["kill-server"]);
    }
}

impl Desk {
    fn new() -> Desk {
        let cluster = Cluster::preloaded();
        let mut client = cluster.client("postgres");
        run(
            &mut client,
            "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
             INSERT INTO orders (note) SELECT 'n' FROM generate_series(1, 1234);
             SELECT create_log('audit', run_interval => '50 ms'); SELECT add_source('audit', 'orders', order_column => 'id');
             SELECT create_log('second')",
        );
        let desk = Desk {
            cluster,
            client,
            directory: tempfile::tempdir().unwrap(),
        };
        let shell = "env PS1='ready> ' sh";
        desk.tmux([
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "80",
            "-y",
            "24",
            shell,
        ]);
        desk.shows("ready>");
        desk
    }

    fn tmux<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let mut tmux = Command::new("tmux");
        tmux.arg("-S").arg(self.directory.path().join("tmux"));
        says(tmux.args(arguments)).1
    }

    fn screen(&self, how: &[&str]) -> String {
        self.tmux(["capture-pane", "-p"].iter().chain(how))
    }

    /// Waits until what is on the screen is right.
    fn comes_to(&self, what: &str, right: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let screen = self.screen(&[]);
            if right(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "never on the screen: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn shows(&self, text: &str) -> String {
        self.comes_to(text, |screen| screen.contains(text))
    }

    fn press(&self, key: &str) {
        self.tmux(["send-keys", key]);
    }

    /// Starts the dashboard from the shell.
    fn top(&self, environment: &str) {
        let program = program().get_program().to_owned();
        let line = format!(
            "clear; {environment} PGHOST={} PGUSER=postgres {} top --interval 0.2",
            self.cluster.socket().display(),
            program.display()
        );
        self.tmux(["send-keys", "-l", &line]);
        self.press("Enter");
        self.shows("q quit");
    }

    fn row(screen: &str, log: &str) -> Option<String> {
        let line = screen
            .lines()
            .find(|line| line.trim_start_matches(['>', ' ']).starts_with(log))?;
        Some(line.to_owned())
    }

    fn comes_to_be(&self, log: &str, state: &str) {
        self.comes_to(&format!("{log} is {state}"), |screen| {
            Desk::row(screen, log).is_some_and(|row| row.contains(state))
        });
    }

    /// That the shell has its terminal back, as it was.
    fn is_back_in_the_shell(&self) {
        self.comes_to("the prompt", |screen| {
            screen.trim_end().ends_with("ready>") && !screen.contains("q quit")
        });
        self.tmux(["send-keys", "-l", "stty -a"]);
        self.press("Enter");
        let settings = self.shows("echoctl");
        for set in ["icanon", "echo", "isig", "opost"] {
            let is_set = settings.split_whitespace().any(|word| word == set);
            assert!(is_set, "{set}: {settings}");
        }
        let cursor = self.tmux(["display-message", "-p", "#{cursor_flag} #{alternate_on}"]);
        assert_eq!(
            cursor.trim(),
            "1 0",
            "the cursor is seen, on the shell's own screen"
        );
    }
}

#[test]
fn a_log_is_seen_paused_resumed_and_verified_by_keys() {
    let mut desk = Desk::new();
    desk.top("");
    desk.comes_to_be("audit", "1,234");
    desk.comes_to_be("audit", "running");
    let paused = "SELECT paused FROM merkle_log_status WHERE log_name = 'audit'";
    desk.press("p");
    desk.comes_to_be("audit", "paused");
    assert!(one::<bool>(&mut desk.client, paused));
    desk.press("r");
    desk.comes_to_be("audit", "running");
    assert!(!one::<bool>(&mut desk.client, paused));
    desk.press("v");
    desk.shows("verified  intact");
    // Another log is acted on when it is the selected one; between them is the administration log.
    desk.press("Down");
    desk.press("Down");
    desk.press("p");
    desk.comes_to_be("second", "paused");
    assert!(!one::<bool>(&mut desk.client, paused));
    // What verification finds is named.
    run(
        &mut desk.client,
        "UPDATE orders SET note = 'other' WHERE id = 7",
    );
    desk.press("Home");
    desk.press("v");
    desk.shows("modified public.orders 7");
    desk.press("?");
    desk.shows("pause the selected log");
    desk.press("Escape");
    desk.comes_to("no help", |screen| {
        !screen.contains("pause the selected log")
    });
    desk.press("q");
    desk.is_back_in_the_shell();
}

#[test]
fn the_dashboard_outlives_the_server_and_a_narrow_terminal() {
    let mut desk = Desk::new();
    desk.top("");
    desk.comes_to_be("audit", "running");
    desk.cluster.stop();
    let lost = desk.shows("CONNECTION LOST");
    assert!(
        Desk::row(&lost, "audit").is_some(),
        "what was known is still shown: {lost}"
    );
    desk.cluster.restart();
    desk.comes_to("a connection", |screen| !screen.contains("LOST"));
    desk.client = desk.cluster.client("postgres");
    run(
        &mut desk.client,
        "INSERT INTO orders (note) SELECT 'n' FROM generate_series(1, 766)",
    );
    desk.comes_to_be("audit", "2,000");
    desk.tmux(["resize-window", "-x", "30", "-y", "8"]);
    let narrow = desk.comes_to("a narrow list", |screen| {
        screen.contains("audit") && !screen.contains("oldest")
    });
    assert!(
        narrow.lines().all(|line| line.chars().count() <= 30),
        "{narrow}"
    );
    desk.tmux(["resize-window", "-x", "120", "-y", "40"]);
    desk.shows("signed");
    desk.press("C-c");
    desk.is_back_in_the_shell();
}

#[test]
fn the_terminal_is_given_back_to_whoever_ends_the_dashboard() {
    let desk = Desk::new();
    for name in ["TERM", "INT", "HUP"] {
        desk.top("");
        let parent = desk.tmux(["display-message", "-p", "#{pane_pid}"]);
        let child = Command::new("pgrep")
            .args(["-P", parent.trim()])
            .output()
            .unwrap();
        let child = String::from_utf8(child.stdout).unwrap();
        signal(name, &[child.trim()]);
        desk.is_back_in_the_shell();
    }
}

#[test]
fn colours_are_only_for_those_who_want_them() {
    let desk = Desk::new();
    let colours = |desk: &Desk| {
        let screen = desk.screen(&["-e"]);
        let codes = screen.split("\x1b[").skip(1);
        let is_colour = |code: &str| {
            let code = code.split('m').next().unwrap_or_default();
            code.split(';')
                .any(|n| n.len() == 2 && (n.starts_with('3') || n.starts_with('9')) && n != "39")
        };
        codes.filter(|code| is_colour(code)).count()
    };
    desk.top("");
    desk.comes_to_be("audit", "running");
    assert!(colours(&desk) > 0);
    desk.press("q");
    desk.is_back_in_the_shell();
    desk.top("NO_COLOR=1");
    desk.comes_to_be("audit", "running");
    assert_eq!(colours(&desk), 0, "{}", desk.screen(&["-e"]));
}

#[test]
fn without_a_terminal_there_is_a_hint_or_lines_of_json() {
    let desk = Desk::new();
    let mut top = program();
    top.env("PGHOST", desk.cluster.socket())
        .env("PGUSER", "postgres");
    let (code, text) = says(top.arg("top"));
    assert!(
        code == 2 && text.contains("terminal") && text.contains("status"),
        "{code} {text}"
    );
    let mut lines = top
        .args(["--json", "--interval", "0.1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let read = BufReader::new(lines.stdout.take().unwrap()).lines().take(2);
    for line in read {
        let line = line.unwrap();
        assert!(
            line.starts_with("{\"database\":\"postgres\"") && line.contains("\"name\":\"audit\""),
            "{line}"
        );
    }
    lines.kill().unwrap();
    lines.wait().unwrap();
}
