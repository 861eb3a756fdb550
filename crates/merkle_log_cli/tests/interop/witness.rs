//! Witnesses: the Python package aics-witness cosigns what our client submits, our witness what its client submits, and
//! both answer alike to what nobody should send.

use super::support::{key, witness};
use super::{other, random_log, source, target};
use merkle_log_client::{SubmitError, WitnessClient};
use merkle_tree::{Hash, TreeSize, consistency_proof};
use serde_json::Value as Json;
use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tlog::{AddCheckpoint, SignedNote, VerifierKey};

use super::Random;
use super::support::log::Log;

/// A witness that ends with the test.
struct Peer {
    child: Child,
    address: String,
    key: VerifierKey,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn python() -> Command {
    let mut command = Command::new(target().join("interop/bin/python"));
    command.arg(source("witness.py"));
    command
}

fn theirs(directory: &Path) -> Peer {
    let log = key("example.com/log", 1).verifier_key().to_string();
    let mut child = python()
        .arg("serve")
        .arg(directory)
        .arg(log)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // What comes before the line is for people.
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said: Json = lines
        .map_while(Result::ok)
        .find_map(|line| serde_json::from_str(&line).ok())
        .unwrap();
    Peer {
        child,
        address: said["address"].as_str().unwrap().to_owned(),
        key: said["key"].as_str().unwrap().parse().unwrap(),
    }
}

fn ours(directory: &Path) -> Peer {
    use std::os::unix::fs::PermissionsExt;
    let cosigner = witness("w.example/ours", 5);
    let (log, at) = (
        key("example.com/log", 1).verifier_key(),
        directory.display(),
    );
    let secret = directory.join("key");
    std::fs::write(&secret, format!("{}\n", cosigner.to_text().as_str())).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(
        directory.join("policy"),
        format!("log {log}\nquorum none\n"),
    )
    .unwrap();
    let configuration = format!(
        "policy = '{at}/policy'\nkey = '{at}/key'\nstate = '{at}/state'\n[limits]\nrate_per_client = 1000000\nburst_per_client = 1000000\n"
    );
    std::fs::write(directory.join("witness.toml"), configuration).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_merkle-log"))
        .args(["--json", "witness", "--listen", "127.0.0.1:0", "--config"])
        .arg(directory.join("witness.toml"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let address = lines.find_map(|line| {
        let said: Json = serde_json::from_str(&line).ok()?;
        Some(said["fields"]["address"].as_str()?.to_owned())
    });
    // A program whose lines nobody reads would wait.
    std::thread::spawn(move || lines.for_each(drop));
    Peer {
        child,
        address: address.unwrap(),
        key: cosigner.verifier_key(),
    }
}

fn prefix(log: &Log, size: u64) -> Log {
    Log {
        origin: log.origin.clone(),
        entries: log.entries[..size as usize].to_vec(),
    }
}

fn note(log: &Log, size: u64) -> SignedNote {
    prefix(log, size).signed(&[&key("example.com/log", 1)])
}

fn proof(log: &Log, old: u64, new: u64) -> Vec<Hash> {
    let [old, new] = [old.min(new), new].map(|size| TreeSize::new(size).unwrap());
    consistency_proof(&mut log.tiles(), old, new).unwrap()
}

/// The log with another entry 7.
fn forked(log: &Log) -> Log {
    let mut fork = prefix(log, log.size().get());
    fork.entries[7] = b"x".to_vec();
    fork
}

#[test]
fn a_python_witness_cosigns_what_we_submit() {
    let directory = tempfile::tempdir().unwrap();
    let (peer, log) = (theirs(directory.path()), random_log(300));
    let client = || WitnessClient::new(&format!("http://{}", peer.address), peer.key.clone());
    let submit = |client: &WitnessClient, log: &Log, size: u64| {
        let prove = |old: TreeSize| Ok::<_, Infallible>(proof(log, old.get(), size));
        client.submit(&note(log, size), prove)
    };
    let known = client();
    for size in [1, 2, 3, 8, 9, 64, 65, 100, 100, 250] {
        let signature = submit(&known, &log, size).unwrap();
        let mut cosigned = note(&log, size);
        cosigned.add(signature).unwrap();
        assert!(cosigned.verify([&peer.key]).is_ok());
    }
    submit(&client(), &log, 260).unwrap();
    let fork = forked(&log);
    for size in [260, 300] {
        let refused = submit(&client(), &fork, size);
        assert!(
            matches!(refused, Err(SubmitError::NotConsistent { size: 260 })),
            "{refused:?}"
        );
    }
    let refused = submit(&client(), &log, 200);
    assert!(
        matches!(
            refused,
            Err(SubmitError::Ahead {
                witness: 260,
                submitted: 200
            })
        ),
        "{refused:?}"
    );
}

#[test]
fn our_witness_cosigns_what_a_python_client_submits() {
    let directory = tempfile::tempdir().unwrap();
    let peer = ours(directory.path());
    let url = format!("http://{}", peer.address);
    other(python().args(["submit", &url, &peer.key.to_string()]));
}

/// The status and the body of an answer.
fn post(address: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /add-checkpoint HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
    )
}

/// What the peer decides otherwise, within the specification: it refuses extension lines and two signatures by one key, and
/// an origin that is no key name is malformed to it, and not known to us.
fn is_matter_of_taste(request: &[u8]) -> bool {
    AddCheckpoint::from_bytes(request).is_ok_and(|request| {
        let mut signers: Vec<_> = request
            .note()
            .signatures()
            .iter()
            .map(|s| (s.name.clone(), s.id))
            .collect();
        let count = signers.len();
        signers.sort();
        signers.dedup();
        signers.len() < count
            || tlog::KeyName::new(request.checkpoint().origin()).is_err()
            || !request.checkpoint().extensions().is_empty()
    })
}

#[test]
fn two_witnesses_answer_alike() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, theirs) = (ours(first.path()), theirs(second.path()));
    let log = random_log(300);
    let (fork, mut random) = (forked(&log), Random(42));
    let (mut at, mut statuses) = (0, std::collections::BTreeMap::<u16, u32>::new());
    for number in 0..600 {
        let shown = if random.below(4) == 0 { &fork } else { &log };
        let old = if random.below(4) == 0 {
            random.below(300)
        } else {
            at
        };
        let size = if random.below(3) == 0 {
            random.below(300)
        } else {
            (old + random.below(3)).min(300)
        };
        let [old_size, _] = [old, size].map(|size| TreeSize::new(size).unwrap());
        let request =
            AddCheckpoint::new(old_size, proof(shown, old, size), note(shown, size)).unwrap();
        let mut body = request.to_string().into_bytes();
        for _ in 0..random.below(3) {
            let place = random.below(body.len() as u64) as usize;
            match random.below(4) {
                0 => body[place] ^= 1 << random.below(7),
                1 => drop(body.remove(place)),
                2 => body.insert(place, b"\n 0=+"[random.below(5) as usize]),
                _ => body.truncate(place.max(1)),
            }
        }
        if is_matter_of_taste(&body) {
            continue;
        }
        let (ours, theirs) = (post(&ours.address, &body), post(&theirs.address, &body));
        let text = String::from_utf8_lossy(&body);
        assert_eq!(
            ours.0, theirs.0,
            "request {number}: {text}\n{}\n{}",
            ours.1, theirs.1
        );
        if ours.0 == 409 {
            assert_eq!(ours.1, theirs.1);
        }
        if ours.0 == 200 {
            at = AddCheckpoint::from_bytes(&body)
                .unwrap()
                .checkpoint()
                .size()
                .get();
        }
        *statuses.entry(ours.0).or_default() += 1;
    }
    println!("{statuses:?}");
    for status in [200, 400, 403, 409, 422] {
        assert!(statuses.contains_key(&status), "no {status}: {statuses:?}");
    }
}
