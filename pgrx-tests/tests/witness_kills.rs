//! A witness that is killed at random moments under load: no fork is cosigned, and what was cosigned is remembered.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use server_tests::gateway::Answer;
use server_tests::witness::*;
use server_tests::*;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use tlog::{AddCheckpoint, VerifierKey};

const LOGS: usize = 24;
const SIZE: u64 = 2_000;

/// Three histories of one log, which the log's key has signed all. They part early, so that most sizes tell them apart.
fn histories() -> Vec<[History; 3]> {
    let history = |number: usize, name: &str| {
        let origin = format!("example.com/{number}");
        let key = log_key(&origin);
        History::new(&origin, key, 3 * number as u64, name, SIZE)
    };
    (0..LOGS)
        .map(|number| ["a", "b", "c"].map(|name| history(number, name)))
        .collect()
}

/// A cosignature that somebody has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cosigned {
    size: u64,
    time: u64,
    /// Of the history that was shown.
    history: usize,
}

type Received = Mutex<Vec<Vec<Cosigned>>>;

/// An answer, if the witness lives until it is there.
fn post(address: &str, request: &AddCheckpoint) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let body = request.to_string();
    let length = body.len();
    write!(
        stream,
        "POST /add-checkpoint HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length: usize = head
        .split("content-length: ")
        .nth(1)?
        .split("\r\n")
        .next()?
        .parse()
        .ok()?;
    (body.len() == length).then(|| Answer::parse(&bytes))
}

struct Clients<'t> {
    address: &'t str,
    key: &'t VerifierKey,
    histories: &'t [[History; 3]],
    received: &'t Received,
    answered: &'t AtomicU64,
    ending: &'t AtomicBool,
}

impl Clients<'_> {
    /// Shows histories of any log, from where the witness says that it is, until told to end.
    fn run(&self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut sizes = BTreeMap::<usize, u64>::new();
        while !self.ending.load(SeqCst) {
            let (log, which) = (random.random_range(0..LOGS), random.random_range(0..3));
            let history = &self.histories[log][which];
            let old = *sizes.entry(log).or_default();
            let step = *[0, 1, 1, 2, 7].choose(&mut random).unwrap();
            let size = (old + step).min(SIZE);
            let Some(answer) = post(self.address, &history.request(old, size)) else {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            self.answered.fetch_add(1, SeqCst);
            let known = match answer.status {
                200 => {
                    let text = history.checkpoint(size).to_string();
                    let time = cosigned_at(&answer, &text, self.key);
                    let cosigned = Cosigned {
                        size,
                        time,
                        history: which,
                    };
                    self.received.lock().unwrap()[log].push(cosigned);
                    size
                }
                409 => std::str::from_utf8(&answer.body)
                    .unwrap()
                    .trim_end()
                    .parse()
                    .unwrap(),
                422 => old,
                _ => panic!("{answer}"),
            };
            sizes.insert(log, known);
        }
    }
}

/// That all cosignatures of a log are of one history, and later ones of no smaller tree.
fn one_history(histories: &[History; 3], received: &[Cosigned]) {
    let roots: BTreeMap<_, _> = received
        .iter()
        .map(|cosigned| {
            (
                cosigned.size,
                histories[cosigned.history].root(cosigned.size),
            )
        })
        .collect();
    for cosigned in received {
        let root = histories[cosigned.history].root(cosigned.size);
        assert_eq!(
            root, roots[&cosigned.size],
            "two roots of one size: {cosigned:?}"
        );
    }
    let agrees = |history: &History| {
        roots
            .iter()
            .all(|(size, root)| history.root(*size) == *root)
    };
    assert!(
        histories.iter().any(agrees),
        "{}: {received:?}",
        histories[0].origin
    );
    let mut by_size = received.to_vec();
    by_size.sort();
    for pair in by_size.windows(2) {
        assert!(
            pair[0].size == pair[1].size || pair[0].time <= pair[1].time,
            "{pair:?}"
        );
    }
}

#[test]
fn a_witness_that_is_killed_at_any_moment_cosigns_one_history() {
    let histories = histories();
    let keys: Vec<_> = histories
        .iter()
        .map(|three| log_key(&three[0].origin).verifier_key())
        .collect();
    let mut place = Place::new(1, &keys, UNLIMITED);
    let mut random = StdRng::seed_from_u64(seed());
    let mut witness = place.start();
    let address = witness.program.address.clone();
    place.stays_at(&address);
    let received: Received = Mutex::new(vec![Vec::new(); LOGS]);
    let (answered, ending) = (AtomicU64::new(0), AtomicBool::new(false));
    let clients = Clients {
        address: &address,
        key: &witness.key.clone(),
        histories: &histories,
        received: &received,
        answered: &answered,
        ending: &ending,
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (clients, seed) = (&clients, random.random());
            scope.spawn(move || clients.run(seed));
        }
        // A failed assertion ends the clients too.
        let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..size(15, 100) {
                let enough = answered.load(SeqCst) + random.random_range(1..60);
                let deadline = std::time::Instant::now() + Duration::from_secs(60);
                while answered.load(SeqCst) < enough {
                    assert!(std::time::Instant::now() < deadline, "nothing is answered");
                    std::thread::sleep(Duration::from_millis(1));
                }
                signal("KILL", &[&witness.program.pid()]);
                witness.program.ends();
                let before: Vec<u64> = received
                    .lock()
                    .unwrap()
                    .iter()
                    .map(|of_log| {
                        of_log
                            .iter()
                            .map(|cosigned| cosigned.size)
                            .max()
                            .unwrap_or(0)
                    })
                    .collect();
                witness = place.start();
                for (three, size) in histories.iter().zip(before) {
                    let kept = witness.last(&three[0].origin);
                    let kept = kept.map_or(0, |note| {
                        let checkpoint: tlog::Checkpoint = note.text().parse().unwrap();
                        checkpoint.size().get()
                    });
                    assert!(kept >= size, "{}: {kept} of {size}", three[0].origin);
                }
            }
        }));
        ending.store(true, SeqCst);
        killed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let received = received.into_inner().unwrap();
    let count: usize = received.iter().map(Vec::len).sum();
    println!("{} answers, {count} cosignatures", answered.load(SeqCst));
    assert!(count > 100, "{count}");
    for (three, received) in histories.iter().zip(&received) {
        one_history(three, received);
    }
    // The forks that were shown were noticed.
    assert_eq!(witness.program.json("/health")["ok"], false);
}
