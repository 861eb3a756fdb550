//! `merkle-log witness` over HTTP: each answer to the letter, its limits, what it keeps as evidence, and requests that
//! nobody in good faith makes.

use merkle_tree::leaf_hash;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use server_tests::command_line::{program, says};
use server_tests::gateway::{Answer, exchange};
use server_tests::witness::*;
use server_tests::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tlog::{AddCheckpoint, Checkpoint, Policy, SignedNote, Verdict};

const ORIGIN: &str = "example.com/log";

fn history(shared: u64, name: &str) -> History {
    History::new(ORIGIN, log_key(ORIGIN), shared, name, 1_000)
}

fn place(more: &str) -> Place {
    Place::new(1, &[log_key(ORIGIN).verifier_key()], more)
}

fn says_in_words(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer}");
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; charset=utf-8"),
        "{answer}"
    );
    assert!(answer.body.ends_with(b"\n"), "{answer}");
}

fn conflicts(answer: &Answer, size: u64) {
    assert_eq!(answer.status, 409, "{answer}");
    assert_eq!(answer.header("content-type"), Some("text/x.tlog.size"));
    assert_eq!(answer.body, format!("{size}\n").as_bytes());
}

#[test]
fn every_answer_is_to_the_letter() {
    let (place, log, fork) = (place(""), history(1_000, "a"), history(50, "b"));
    let witness = place.start();
    assert_eq!(witness.last(ORIGIN), None);
    // Nothing was cosigned: the size is zero.
    conflicts(&witness.add(&log.request(100, 100)), 0);
    let first = witness.add(&log.request(0, 100));
    let time = cosigned_at(&first, &log.checkpoint(100).to_string(), &witness.key);
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs();
    assert!(now - 60 < time && time <= now);
    // What monitors are shown: the log's signature, and the witness'.
    let shown = witness.last(ORIGIN).unwrap();
    let known = [&log_key(ORIGIN).verifier_key(), &witness.key];
    assert_eq!(shown.text(), log.checkpoint(100).to_string());
    assert_eq!(shown.verify(known).unwrap().len(), 2);
    // Growth, the same again, and nothing that goes back.
    let grown = witness.add(&log.request(100, 300));
    cosigned_at(&grown, &log.checkpoint(300).to_string(), &witness.key);
    let again = witness.add(&log.request(300, 300));
    cosigned_at(&again, &log.checkpoint(300).to_string(), &witness.key);
    conflicts(&witness.add(&log.request(0, 400)), 300);
    conflicts(&witness.add(&log.request(100, 200)), 300);
    conflicts(&witness.add(&log.request(301, 400)), 300);
    says_in_words(&witness.add(&log.request(300, 299)), 400);
    // Other histories, and proofs that are none.
    says_in_words(&witness.add(&fork.request(300, 400)), 422);
    says_in_words(&witness.add(&fork.request(300, 300)), 422);
    let with = |old, path, note| AddCheckpoint::new(tree_size(old), path, note).unwrap();
    let sound = log.proof(300, 400);
    let short = with(300, sound[1..].to_vec(), log.note(400));
    says_in_words(&witness.add(&short), 422);
    let needless = with(300, sound.clone(), log.note(300));
    says_in_words(&witness.add(&needless), 422);
    let other = place_of_nothing().start();
    let to_nothing = with(0, sound, log.note(400));
    says_in_words(&other.add(&to_nothing), 422);
    // Logs and keys that are not known.
    let unknown = History::new("example.com/x", log_key("example.com/x"), 9, "a", 9);
    says_in_words(&witness.add(&unknown.request(0, 9)), 404);
    let stranger = History::new(ORIGIN, log_key("example.com/x"), 1_000, "a", 1_000);
    says_in_words(&witness.add(&stranger.request(300, 400)), 403);
    let mut forged = SignedNote::new(log.note(400).text()).unwrap();
    forged.add(log.note(300).signatures()[0].clone()).unwrap();
    says_in_words(&witness.add(&with(300, log.proof(300, 400), forged)), 403);
    // Not a request at all.
    for body in ["", "old 0\n", "old 0\n\n", "\n\n\n", "old 300\nx\n\n"] {
        says_in_words(&witness.post(body), 400);
    }
    let many = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n".repeat(64);
    says_in_words(
        &witness.post(&format!("old 300\n{many}\n{}", log.note(400))),
        400,
    );
    says_in_words(&witness.program.get("/add-checkpoint"), 405);
    says_in_words(&witness.program.get("/nothing"), 404);
    // And none of that has changed what it knows.
    assert_eq!(
        witness.last(ORIGIN).unwrap().text(),
        log.checkpoint(300).to_string()
    );
    assert_eq!(
        witness.metric(&format!("cosigned_entries{{origin=\"{ORIGIN}\"}}")),
        300
    );
    assert_eq!(
        witness.metric("add_checkpoint_total{answer=\"cosigned\"}"),
        3
    );
    assert_eq!(
        witness.metric("add_checkpoint_total{answer=\"forbidden\"}"),
        2
    );
}

fn place_of_nothing() -> Place {
    Place::new(2, &[log_key(ORIGIN).verifier_key()], "")
}

#[test]
fn signatures_by_strangers_are_neither_believed_nor_kept() {
    let (place, log) = (place(""), history(1_000, "a"));
    let witness = place.start();
    let mut note = log.note(7);
    for seed in 10..40 {
        note.sign(&cosigner(seed), 1).unwrap();
    }
    let request = AddCheckpoint::new(tree_size(0), Vec::new(), note).unwrap();
    cosigned_at(&witness.add(&request), request.note().text(), &witness.key);
    assert_eq!(witness.last(ORIGIN).unwrap().signatures().len(), 2);
}

#[test]
fn what_is_too_large_too_often_or_too_slow_is_refused_and_others_are_served() {
    let limits = "[limits]\nrate_per_client = 5\nburst_per_client = 30\nbody_bytes = 20000\nheader_seconds = 1\nrequest_ms = 1000\nconnections_per_client = 8\nstalled_seconds = 2";
    let (place, log) = (place(limits), history(1_000, "a"));
    let witness = place.start();
    says_in_words(&witness.post(&"x".repeat(20_001)), 413);
    // A body that does not come, and a head that does not end.
    let started = Instant::now();
    let mut slow = witness.program.connect();
    write!(
        slow,
        "POST /add-checkpoint HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nold"
    )
    .unwrap();
    let mut endless = witness.program.connect();
    write!(endless, "POST /add-checkpoint HTTP/1.1\r\nx: ").unwrap();
    let granted = witness.add(&log.request(0, 100));
    cosigned_at(&granted, &log.checkpoint(100).to_string(), &witness.key);
    for stream in [&mut slow, &mut endless] {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        let refused = ["HTTP/1.1 503", "HTTP/1.1 408"]
            .iter()
            .any(|head| text.starts_with(head));
        assert!(text.is_empty() || refused, "{text}");
    }
    assert!(started.elapsed() < Duration::from_secs(20));
    let statuses: Vec<u16> = (0..60)
        .map(|_| witness.add(&log.request(100, 100)).status)
        .collect();
    assert!(statuses.contains(&429), "{statuses:?}");
    assert!(
        statuses.iter().all(|status| [200, 429].contains(status)),
        "{statuses:?}"
    );
}

/// That `merkle-log verify` convicts a log by a file.
fn convicts(file: &std::path::Path, says_fork: bool) {
    let key = log_key(ORIGIN).verifier_key().to_string();
    let (code, text) = says(program().args(["verify", "--key", &key]).arg(file));
    assert_eq!(code, 1, "{text}");
    assert_eq!(text.contains("two roots"), says_fork, "{text}");
}

#[test]
fn a_fork_is_refused_and_both_halves_convict_the_log() {
    let (place, log, fork) = (place(""), history(1_000, "a"), history(50, "b"));
    let mut witness = place.start();
    witness.add(&log.request(0, 300));
    assert_eq!(witness.program.json("/health")["ok"], true);
    // Another root of the same size; a larger tree whose own proof shows another beginning; both said again.
    for _ in 0..3 {
        assert_eq!(witness.add(&fork.request(300, 300)).status, 422);
        assert_eq!(witness.add(&fork.request(300, 400)).status, 422);
    }
    // A fork is evidence also where the old size is not the witness'.
    conflicts(&witness.add(&fork.request(200, 300)), 300);
    let said = witness.program.says("the log has signed two histories");
    assert_eq!(said["level"], "ERROR");
    let health = witness.program.json("/health");
    assert_eq!(health["ok"], false);
    let forks = health["logs"][0]["forks"].as_array().unwrap();
    assert_eq!(
        (forks.len(), &health["logs"][0]["unproven"]),
        (2, &0.into())
    );
    assert_eq!(witness.metric(&format!("forks{{origin=\"{ORIGIN}\"}}")), 2);
    let policy = Policy::of_log(log_key(ORIGIN).verifier_key());
    for path in forks {
        let answer = witness.program.get(path.as_str().unwrap());
        let bundle = tlog::ConsistencyBundle::from_json(&answer.body).unwrap();
        assert!(matches!(
            bundle.fork(&policy),
            Some(tlog::Error::Fork { size: 300, .. })
        ));
        // The half that was cosigned has the cosignature.
        assert!(bundle.old.verify([&witness.key]).is_ok());
        let file = place.state().join("evidence").join(
            path.as_str()
                .unwrap()
                .replace("/evidence/", "/")
                .trim_start_matches('/'),
        );
        convicts(&file, true);
    }
    // The log as it was is cosigned further, and the evidence stays over a restart.
    assert_eq!(witness.add(&log.request(300, 301)).status, 200);
    signal("TERM", &[&witness.program.pid()]);
    assert!(witness.program.ends().success());
    let witness = place.start();
    assert_eq!(witness.metric(&format!("forks{{origin=\"{ORIGIN}\"}}")), 2);
    assert_eq!(witness.program.json("/health")["logs"][0]["size"], 301);
    for path in ["lock", "../key", "..%2fkey", "fork-x.json"] {
        let path = format!("/{}/evidence/{path}", digest(ORIGIN));
        assert_eq!(witness.program.get(&path).status, 404, "{path}");
    }
}

#[test]
fn what_anyone_can_make_of_an_honest_checkpoint_is_no_fork() {
    let (place, log, fork) = (place(""), history(1_000, "a"), history(50, "b"));
    let witness = place.start();
    witness.add(&log.request(0, 256));
    // With a size that is a power of two, a proof does not say what the old root is.
    assert_eq!(witness.add(&fork.request(256, 400)).status, 422);
    let nonsense =
        AddCheckpoint::new(tree_size(256), vec![leaf_hash(b"x"); 3], log.note(300)).unwrap();
    assert_eq!(witness.add(&nonsense).status, 422);
    let health = witness.program.json("/health");
    assert_eq!(
        (&health["ok"], &health["logs"][0]["unproven"]),
        (&true.into(), &2.into())
    );
    let directory = place.state().join("evidence").join(digest(ORIGIN));
    for file in std::fs::read_dir(&directory).unwrap() {
        convicts(&file.unwrap().path(), false);
    }
    // The honest one is proven after all; the other stays.
    assert_eq!(witness.add(&log.request(256, 300)).status, 200);
    assert_eq!(
        witness.metric(&format!("unproven_checkpoints{{origin=\"{ORIGIN}\"}}")),
        1
    );
    // And where the witness has its size, it is a fork.
    assert_eq!(witness.add(&log.request(300, 400)).status, 200);
    assert_eq!(witness.add(&fork.request(400, 400)).status, 422);
    let log = &witness.program.json("/health")["logs"][0];
    assert_eq!(
        (log["forks"].as_array().unwrap().len(), &log["unproven"]),
        (1, &0.into())
    );
}

#[test]
fn a_second_witness_on_the_same_state_is_refused() {
    let (place, log) = (place(""), history(1_000, "a"));
    let witness = place.start();
    let file = place.path().join("second.toml");
    std::fs::write(&file, place.configuration()).unwrap();
    let second = || {
        let mut command = program();
        command
            .args(["witness", "--listen", "127.0.0.1:0", "--config"])
            .arg(&file);
        says(&mut command)
    };
    let (code, text) = second();
    assert!(
        code == 2 && text.contains("another process has the state"),
        "{code} {text}"
    );
    assert_eq!(witness.add(&log.request(0, 5)).status, 200);
}

/// A note whose root begins with another letter.
fn damaged(note: &str) -> String {
    let lines: Vec<&str> = note.splitn(4, '\n').collect();
    let other = if lines[2].starts_with('A') { 'B' } else { 'A' };
    let root = format!("{other}{}", &lines[2][1..]);
    [lines[0], lines[1], &root, lines[3]].join("\n")
}

#[test]
fn what_it_cannot_trust_stops_it_before_it_listens() {
    use std::os::unix::fs::PermissionsExt;
    let place = place("");
    let file = place.path().join("witness.toml");
    let start = || {
        std::fs::write(&file, place.configuration()).unwrap();
        let mut command = program();
        command
            .args(["witness", "--listen", "127.0.0.1:0", "--config"])
            .arg(&file);
        says(&mut command)
    };
    std::fs::create_dir(place.state()).unwrap();
    let kept = place.state().join(format!("{}.checkpoint", digest(ORIGIN)));
    let other = History::new("example.com/x", log_key("example.com/x"), 9, "a", 9);
    for (content, why) in [
        ("".to_owned(), "not a signed note"),
        (
            history(9, "a").note(5).to_string()[..40].to_owned(),
            "not a signed note",
        ),
        (other.note(5).to_string(), "another log"),
        (damaged(&history(9, "a").note(5).to_string()), "damaged"),
    ] {
        std::fs::write(&kept, &content).unwrap();
        let (code, text) = start();
        assert!(code == 2 && text.contains(why), "{content:?}: {text}");
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), content);
    }
    std::fs::remove_file(&kept).unwrap();
    let key = place.path().join("key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(start().1.contains("others may read the key"));
    std::fs::write(&key, format!("{}\n", log_key(ORIGIN).to_text().as_str())).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(start().1.contains("does not cosign"));
}

#[test]
fn a_reload_changes_the_logs_and_forgets_none() {
    let second = "example.com/second";
    let (place, log) = (place(""), history(1_000, "a"));
    let other = History::new(second, log_key(second), 100, "a", 100);
    let mut witness = place.start();
    assert_eq!(witness.add(&log.request(0, 10)).status, 200);
    assert_eq!(witness.add(&other.request(0, 10)).status, 404);
    let configuration = place.configuration();
    let reloaded = "the configuration was reloaded";
    place.knows(&[log_key(second).verifier_key()]);
    witness.program.reload(&configuration, reloaded);
    assert_eq!(witness.add(&other.request(0, 10)).status, 200);
    assert_eq!(witness.add(&log.request(10, 20)).status, 404);
    assert_eq!(witness.last(ORIGIN), None);
    // A policy that is not valid changes nothing.
    std::fs::write(place.path().join("policy"), "log nonsense\n").unwrap();
    let refused = "the configuration was not reloaded, and stays as it was";
    witness.program.reload(&configuration, refused);
    assert_eq!(witness.add(&other.request(10, 20)).status, 200);
    // A log that comes back is where it was.
    place.knows(&[
        log_key(ORIGIN).verifier_key(),
        log_key(second).verifier_key(),
    ]);
    witness.program.reload(&configuration, reloaded);
    conflicts(&witness.add(&log.request(0, 20)), 10);
    assert_eq!(witness.add(&log.request(10, 20)).status, 200);
    signal("TERM", &[&witness.program.pid()]);
    assert!(witness.program.ends().success());
}

#[test]
fn what_cannot_be_kept_is_not_cosigned() {
    let (place, log) = (place(""), history(1_000, "a"));
    let witness = place.start();
    assert_eq!(witness.add(&log.request(0, 10)).status, 200);
    let before = witness.last(ORIGIN).unwrap();
    let block = place
        .state()
        .join(format!("{}.checkpoint.new", digest(ORIGIN)));
    std::fs::create_dir(&block).unwrap();
    let answer = witness.add(&log.request(10, 20));
    says_in_words(&answer, 503);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(witness.program.json("/health")["ok"], false);
    assert_eq!(witness.last(ORIGIN).unwrap(), before);
    // Refusals need no disk.
    conflicts(&witness.add(&log.request(0, 20)), 10);
    std::fs::remove_dir(&block).unwrap();
    assert_eq!(witness.add(&log.request(10, 20)).status, 200);
    assert_eq!(witness.program.json("/health")["ok"], true);
    assert_eq!(
        witness.metric(&format!("failures_total{{origin=\"{ORIGIN}\"}}")),
        1
    );
}

#[test]
fn a_state_that_others_have_changed_is_not_gone_on_with() {
    let (place, log) = (place(""), history(1_000, "a"));
    let witness = place.start();
    assert_eq!(witness.add(&log.request(0, 10)).status, 200);
    assert_eq!(witness.add(&log.request(10, 20)).status, 200);
    let file = place.state().join(format!("{}.checkpoint", digest(ORIGIN)));
    let newest = std::fs::read(&file).unwrap();
    // Taken away, and an empty one in its place: what was cosigned is not forgotten.
    let away = place.path().join("away");
    std::fs::rename(place.state(), &away).unwrap();
    says_in_words(&witness.add(&log.request(20, 30)), 503);
    std::fs::create_dir(place.state()).unwrap();
    for old in [0, 20] {
        assert_ne!(witness.add(&log.request(old, 30)).status, 200);
    }
    std::fs::remove_dir_all(place.state()).unwrap();
    std::fs::rename(&away, place.state()).unwrap();
    // A damaged one.
    let newest = String::from_utf8(newest).unwrap();
    std::fs::write(&file, damaged(&newest)).unwrap();
    says_in_words(&witness.add(&log.request(20, 30)), 503);
    std::fs::write(&file, &newest).unwrap();
    assert_eq!(witness.add(&log.request(20, 30)).status, 200);
    assert_eq!(witness.program.json("/health")["ok"], true);
}

#[test]
fn no_time_is_signed_that_the_clock_does_not_show_or_that_is_earlier_than_before() {
    let (place, log) = (place(""), history(1_000, "a"));
    std::fs::create_dir(place.state()).unwrap();
    let kept = place.state().join(format!("{}.checkpoint", digest(ORIGIN)));
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs();
    let mut note = log.note(10);
    note.sign(place.key(), now + 3_600).unwrap();
    std::fs::write(&kept, note.to_string()).unwrap();
    let mut witness = place.start();
    says_in_words(&witness.add(&log.request(10, 20)), 503);
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), note.to_string());
    signal("TERM", &[&witness.program.pid()]);
    witness.program.ends();
    // The way out when a clock was wrong: the cosignature is taken out of the file, and the log's signature stays.
    std::fs::write(&kept, log.note(10).to_string()).unwrap();
    let witness = place.start();
    conflicts(&witness.add(&log.request(0, 20)), 10);
    assert_eq!(witness.add(&log.request(10, 20)).status, 200);
}

#[test]
fn a_witness_can_listen_on_a_socket_in_a_file() {
    let (place, log) = (place(""), history(1_000, "a"));
    let socket = place.path().join("socket");
    let mut place = place;
    place.stays_at(&format!("unix:{}", socket.display()));
    let witness = place.start();
    let body = log.request(0, 10).to_string();
    let stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let answer = exchange(stream, "POST", "/add-checkpoint", &[], &body);
    cosigned_at(&answer, &log.checkpoint(10).to_string(), &witness.key);
}

/// A connection that is used again for as long as it lasts.
struct Wire {
    address: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Wire {
    fn post(&mut self, body: &[u8]) -> Answer {
        let address = &self.address;
        let stream = self.stream.get_or_insert_with(|| {
            let stream = TcpStream::connect(address).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(60)))
                .unwrap();
            BufReader::new(stream)
        });
        let length = body.len();
        let head =
            format!("POST /add-checkpoint HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
        stream
            .get_mut()
            .write_all(&[head.as_bytes(), body].concat())
            .unwrap();
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_until(b'\n', &mut bytes).unwrap(), 0, "{body:?}");
        }
        let head = Answer::parse_head(&bytes);
        let length = head
            .header("content-length")
            .map(|length| length.parse().unwrap());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).unwrap();
        if head.header("connection") == Some("close") {
            self.stream = None;
        }
        Answer { body, ..head }
    }
}

/// One to three alterations of a request, with parts of another.
fn mutate(request: &[u8], other: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = request.to_vec();
    for _ in 0..random.random_range(1..4) {
        if bytes.is_empty() {
            break;
        }
        let at = random.random_range(0..bytes.len());
        let to = (at + random.random_range(1..40)).min(bytes.len());
        match random.random_range(0..8) {
            0 | 1 => bytes[at] ^= 1 << random.random_range(0..8),
            2 => bytes[at] = random.random(),
            3 => drop(bytes.drain(at..to)),
            4 => bytes.insert(at, *b"\n 0=+\xe2".choose(random).unwrap()),
            5 => {
                let copy = bytes[at..to].to_vec();
                bytes.splice(at..at, copy);
            }
            6 => {
                let from = random.random_range(0..other.len());
                let part = &other[from..(from + to - at).min(other.len())];
                bytes.splice(at..to, part.iter().copied());
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// What must be answered, and whether the witness goes on.
fn expected(body: &[u8], policy: &Policy, last: &mut Option<Checkpoint>) -> u16 {
    let Ok(request) = AddCheckpoint::from_bytes(body) else {
        return 400;
    };
    let verdict = match request.admit(policy) {
        Ok(_) => request.rule(last.as_ref()).verdict,
        Err(verdict) => verdict,
    };
    match verdict {
        Verdict::Cosign => {
            *last = Some(request.checkpoint().clone());
            200
        }
        Verdict::BadRequest => 400,
        Verdict::Forbidden => 403,
        Verdict::NotFound => 404,
        Verdict::Conflict { .. } => 409,
        Verdict::Unprocessable => 422,
    }
}

#[test]
fn no_request_makes_a_witness_fail_or_cosign_what_is_not_so() {
    let (place, log, fork) = (place(UNLIMITED), history(1_000, "a"), history(50, "b"));
    let mut witness = place.start();
    let policy = Policy::of_log(log_key(ORIGIN).verifier_key());
    let mut random = StdRng::seed_from_u64(seed());
    let mut wire = Wire {
        address: witness.program.address.clone(),
        stream: None,
    };
    let mut last: Option<Checkpoint> = None;
    let mut statuses = std::collections::BTreeMap::<u16, u32>::new();
    for number in 0..size(10_000, 100_000) {
        let at = last.as_ref().map_or(0, |last| last.size().get());
        let shown = [&log, &log, &fork].choose(&mut random).copied().unwrap();
        let old = *[at, at, at, random.random_range(0..1_000)]
            .choose(&mut random)
            .unwrap();
        let new = match random.random_range(0..10) {
            0 => random.random_range(0..1_000),
            // It grows slowly, so that there is somewhere to go until the end.
            1 if random.random_bool(0.2) => (old + 1).min(1_000),
            _ => old,
        };
        let request = shown.request(old, new).to_string();
        let other = fork.request(at, at).to_string();
        let body = match random.random_range(0..8) {
            0 => request.into_bytes(),
            _ => mutate(request.as_bytes(), other.as_bytes(), &mut random),
        };
        let status = expected(&body, &policy, &mut last);
        let answer = wire.post(&body);
        let text = String::from_utf8_lossy(&body);
        assert_eq!(answer.status, status, "request {number}: {text}: {answer}");
        if status == 200 {
            let last = last.as_ref().unwrap();
            cosigned_at(&answer, &last.to_string(), &witness.key);
        }
        *statuses.entry(status).or_default() += 1;
    }
    println!("{statuses:?}");
    for status in [200, 400, 403, 404, 409, 422] {
        assert!(statuses.contains_key(&status), "no {status}: {statuses:?}");
    }
    let kept = witness.last(ORIGIN).unwrap();
    assert_eq!(kept.text(), last.unwrap().to_string());
    let panics = witness
        .program
        .lines()
        .iter()
        .any(|line| line.to_string().contains("panic"));
    assert!(!panics);
    signal("TERM", &[&witness.program.pid()]);
    assert!(witness.program.ends().success());
}

#[test]
fn a_key_made_by_keygen_cosigns() {
    let place = place("");
    let key = place.path().join("made");
    let (code, text) = says(
        program()
            .args(["keygen", "--cosigner", "--name", "w.example/made", "--out"])
            .arg(&key)
            .stdin(Stdio::null()),
    );
    assert_eq!(code, 0, "{text}");
    std::fs::rename(&key, place.path().join("key")).unwrap();
    let witness = place.start();
    let log = history(1_000, "a");
    let answer = witness.add(&log.request(0, 10));
    let key = text.trim().parse().unwrap();
    cosigned_at(&answer, &log.checkpoint(10).to_string(), &key);
    assert_eq!(witness.program.json("/health")["key"], text.trim());
}
