//! Submission to a witness that answers as it should, and to others that do not.

mod stage;

use merkle_log_client::*;
use merkle_tree::{Hash, TreeSize, consistency_proof};
use stage::support::log::Log;
use stage::support::{key, note, witness};
use stage::*;
use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tlog::{AddCheckpoint, Checkpoint, SignatureType, SignedNote, Signer, SigningKey, Verdict};

/// What is answered instead of what the rules say.
enum Fault {
    Status(u16),
    Body(u16, String),
    HangUp,
    /// Nothing, for long.
    Silence,
}

/// A witness in memory.
struct State {
    key: SigningKey,
    last: Option<Checkpoint>,
    faults: Vec<Fault>,
    /// The old sizes of the requests.
    asked: Vec<u64>,
}

struct Peer {
    url: String,
    state: Arc<Mutex<State>>,
}

fn cosigner() -> SigningKey {
    witness("w.example", 5)
}

impl Peer {
    fn start() -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/prefix/", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            key: cosigner(),
            last: None,
            faults: Vec::new(),
            asked: Vec::new(),
        }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || answer(stream, &shared));
            }
        });
        Peer { url, state }
    }

    fn client(&self) -> WitnessClient {
        WitnessClient::new(&self.url, cosigner().verifier_key())
            .with_retry(IMPATIENT)
            .with_timeout(Duration::from_millis(500))
    }

    fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        let mut faults: Vec<_> = faults.into_iter().collect();
        faults.reverse();
        self.state.lock().unwrap().faults = faults;
    }

    fn asked(&self) -> Vec<u64> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).ok()?;
    assert_eq!(line, "POST /prefix/add-checkpoint HTTP/1.1\r\n");
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).ok()?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let request = AddCheckpoint::from_bytes(&body).unwrap();
    let (status, body) = {
        let mut state = state.lock().unwrap();
        state.asked.push(request.old_size().get());
        match state.faults.pop() {
            None => state.rule(&request),
            Some(Fault::Status(status)) => (status, String::new()),
            Some(Fault::Body(status, body)) => (status, body),
            Some(Fault::HangUp) => return None,
            Some(Fault::Silence) => {
                drop(state);
                std::thread::sleep(Duration::from_secs(2));
                return None;
            }
        }
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .ok()
}

impl State {
    fn rule(&mut self, request: &AddCheckpoint) -> (u16, String) {
        match request.rule(self.last.as_ref()).verdict {
            Verdict::Cosign => {
                self.last = Some(request.checkpoint().clone());
                (200, cosignature(request.note(), &self.key))
            }
            Verdict::Conflict { size } => (409, format!("{size}\n")),
            _ => (422, String::new()),
        }
    }
}

/// The line of an answer.
fn cosignature(note: &SignedNote, key: &SigningKey) -> String {
    let mut cosigned = SignedNote::new(note.text()).unwrap();
    cosigned.sign(key, 1_700_000_000).unwrap();
    format!("{}\n", cosigned.signatures()[0])
}

fn prove(log: &Log) -> impl FnMut(TreeSize) -> Result<Vec<Hash>, Infallible> {
    |old| Ok(consistency_proof(&mut log.tiles(), old, log.size()).unwrap())
}

/// No proof is to be asked for.
fn unasked(_: TreeSize) -> Result<Vec<Hash>, Infallible> {
    unreachable!("a proof was asked for")
}

#[test]
fn a_witness_is_asked_from_the_size_that_it_has() {
    let (peer, log) = (Peer::start(), orders(300));
    let client = peer.client();
    let first = client.submit(&signed(&orders(100)), unasked).unwrap();
    assert_eq!(peer.asked(), [0]);
    client.submit(&signed(&log), prove(&log)).unwrap();
    assert_eq!(peer.asked(), [100], "it remembers what the witness has");
    // Again, as after a restart of whoever submits: the witness says its size.
    let again = peer.client();
    let signature = again.submit(&signed(&log), unasked).unwrap();
    assert_eq!(peer.asked(), [0, 300]);
    let mut cosigned = signed(&log);
    cosigned.add(signature).unwrap();
    assert!(cosigned.verify([&cosigner().verifier_key()]).is_ok());
    assert_eq!(first.name, *cosigner().name());
}

#[test]
fn a_history_that_is_not_the_witness_s_is_not_cosigned() {
    let peer = Peer::start();
    peer.client()
        .submit(&signed(&orders(100)), unasked)
        .unwrap();
    let log = rewritten(300);
    let error = peer.client().submit(&signed(&log), prove(&log));
    assert!(matches!(
        error,
        Err(SubmitError::NotConsistent { size: 100 })
    ));
    // Another root at the same size, as version 1.0.0 of the specification answers it.
    peer.next([
        Fault::Body(409, "100\n".to_owned()),
        Fault::Body(409, "100\n".to_owned()),
    ]);
    let fork = rewritten(100);
    assert!(matches!(
        peer.client().submit(&signed(&fork), prove(&fork)),
        Err(SubmitError::NotConsistent { size: 100 })
    ));
    let shorter = peer.client().submit(&signed(&orders(99)), unasked);
    assert!(matches!(
        shorter,
        Err(SubmitError::Ahead {
            witness: 100,
            submitted: 99
        })
    ));
}

#[test]
fn a_witness_that_has_lost_its_state_is_found_out() {
    let (peer, log) = (Peer::start(), orders(300));
    let client = peer.client();
    client.submit(&signed(&orders(100)), unasked).unwrap();
    peer.state.lock().unwrap().last = None;
    let error = client.submit(&signed(&log), prove(&log)).unwrap_err();
    assert!(
        matches!(
            error,
            SubmitError::RolledBack {
                witness: 0,
                cosigned: 100
            }
        ),
        "{error}"
    );
    assert!(!error.may_pass());
}

#[test]
fn one_client_serves_many_logs() {
    let peer = Peer::start();
    let client = peer.client();
    client.submit(&signed(&orders(100)), unasked).unwrap();
    // The peer knows one log; what it says of another is not held against the first.
    let other = Log::of_orders("example.com/other", 7);
    let note = other.signed(&[&key("example.com/other", 2)]);
    peer.next([Fault::Body(200, cosignature(&note, &cosigner()))]);
    client.submit(&note, unasked).unwrap();
    assert_eq!(peer.asked(), [0, 0]);
}

#[test]
fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
    let (peer, log) = (Peer::start(), orders(100));
    peer.next([Fault::HangUp, Fault::Status(503), Fault::Status(429)]);
    peer.client().submit(&signed(&log), unasked).unwrap();
    assert_eq!(peer.asked().len(), 4);
    peer.next((0..9).map(|_| Fault::Status(500)));
    let error = peer.client().submit(&signed(&log), unasked).unwrap_err();
    assert!(
        matches!(error, SubmitError::Unreachable { attempts: 4, .. }) && error.may_pass(),
        "{error}"
    );
    for status in [301, 400, 403, 404, 418] {
        peer.asked();
        peer.next([Fault::Status(status)]);
        let error = peer.client().submit(&signed(&log), unasked).unwrap_err();
        assert!(
            matches!(error, SubmitError::Refused { status: said } if said == status),
            "{error}"
        );
        assert!(!error.may_pass());
        assert_eq!(peer.asked().len(), 1);
    }
}

#[test]
fn a_witness_that_says_nothing_is_given_up_in_time() {
    let (peer, log) = (Peer::start(), orders(100));
    peer.next((0..9).map(|_| Fault::Silence));
    let started = Instant::now();
    let error = peer.client().submit(&signed(&log), unasked).unwrap_err();
    assert!(matches!(error, SubmitError::Unreachable { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn only_the_witness_s_own_signature_over_this_checkpoint_is_a_cosignature() {
    let (peer, log) = (Peer::start(), orders(100));
    let submitted = signed(&log);
    let other_text = cosignature(&signed(&orders(99)), &cosigner());
    let stranger = cosignature(&submitted, &witness("other.example", 6));
    let same_name = cosignature(&submitted, &witness("w.example", 7));
    let not_timed = key("w.example", 5);
    assert_eq!(
        not_timed.verifier_key().signature_type(),
        SignatureType::Ed25519
    );
    let plain = format!(
        "{}\n",
        note(&log.checkpoint_at(log.size()), &[&not_timed], 0).signatures()[0]
    );
    let whole_note = submitted.to_string();
    for body in [
        String::new(),
        "\n".to_owned(),
        "OK\n".to_owned(),
        other_text,
        stranger.clone(),
        same_name,
        plain,
        whole_note,
        cosignature(&submitted, &cosigner()).trim_end().to_owned(),
        "x".repeat(100_000),
    ] {
        peer.next((0..9).map(|_| Fault::Body(200, body.clone())));
        assert!(
            peer.client().submit(&submitted, unasked).is_err(),
            "{body:.60}"
        );
    }
    // Signatures by others may stand beside it.
    let own = cosignature(&submitted, &cosigner());
    peer.next([Fault::Body(200, format!("{stranger}{own}"))]);
    let signature = peer.client().submit(&submitted, unasked).unwrap();
    assert_eq!(format!("{signature}\n"), own);
}

#[test]
fn a_witness_that_never_agrees_is_left() {
    let (peer, log) = (Peer::start(), orders(100));
    let client = peer.client();
    peer.next((0..20).map(|number| Fault::Body(409, format!("{}\n", 10 + number))));
    let error = client.submit(&signed(&log), prove(&log)).unwrap_err();
    assert!(matches!(error, SubmitError::Busy), "{error}");
    assert_eq!(peer.asked().len(), 5);
    for body in [
        "",
        "7",
        "07\n",
        "-1\n",
        " 7\n",
        "99999999999999999999\n",
        "0\n",
    ] {
        peer.next([Fault::Body(409, body.to_owned())]);
        let error = peer.client().submit(&signed(&log), unasked).unwrap_err();
        assert!(matches!(error, SubmitError::Answer(_)), "{body:?}: {error}");
    }
}

#[test]
fn a_proof_that_cannot_be_made_is_told() {
    let (peer, log) = (Peer::start(), orders(100));
    peer.client().submit(&signed(&orders(50)), unasked).unwrap();
    let error = peer
        .client()
        .submit(&signed(&log), |_| Err(std::io::Error::other("no database")));
    let error = error.unwrap_err();
    assert!(
        matches!(error, SubmitError::Proof { old: 50, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("no database"));
}

#[tokio::test]
async fn submissions_can_be_awaited() {
    let (peer, log) = (Peer::start(), orders(300));
    peer.client()
        .submit(&signed(&orders(100)), unasked)
        .unwrap();
    let client = AsyncWitnessClient::from(peer.client());
    let (note, log) = (signed(&log), &log);
    let prove = |old| async move { prove(log)(old) };
    let signature = client.submit(&note, prove).await.unwrap();
    assert_eq!(peer.asked(), [0, 0, 100]);
    let mut cosigned = note;
    cosigned.add(signature).unwrap();
    assert!(cosigned.verify([client.key()]).is_ok());
}
