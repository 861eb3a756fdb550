//! The rules of a witness, against a model that knows the logs' entries: all small cases, and random large ones.

mod support;

use merkle_tree::{EMPTY_ROOT, Hash, TreeSize, leaf_hash, node_hash};
use support::{key, note, witness};
use tlog::*;

const ORIGIN: &str = "example.com/log";

/// A log's entries, as their leaf hashes.
#[derive(Clone, PartialEq)]
struct History(Vec<Hash>);

impl History {
    /// Entries that all histories share, and then those of one.
    fn new(shared: u64, name: &str, size: u64) -> History {
        let entry = |number: u64| match number < shared {
            true => leaf_hash(&number.to_be_bytes()),
            false => leaf_hash(format!("{name} {number}").as_bytes()),
        };
        History((0..size).map(entry).collect())
    }

    fn checkpoint(&self, size: u64) -> Checkpoint {
        let root = root(&self.0[..size as usize]);
        Checkpoint::new(ORIGIN, tree_size(size), root).unwrap()
    }

    /// PROOF(m, D[n]) of RFC 6962 §2.1.2, word for word.
    fn proof(&self, old: u64, new: u64) -> Vec<Hash> {
        match old == 0 || old >= new {
            true => Vec::new(),
            false => subproof(old as usize, &self.0[..new as usize], true),
        }
    }
}

fn tree_size(size: u64) -> TreeSize {
    TreeSize::new(size).unwrap()
}

fn split(leaves: &[Hash]) -> usize {
    leaves.len().next_power_of_two() / 2
}

fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => EMPTY_ROOT,
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves));
            node_hash(&root(left), &root(right))
        }
    }
}

fn subproof(old: usize, leaves: &[Hash], complete: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if complete {
            Vec::new()
        } else {
            vec![root(leaves)]
        };
    }
    let (left, right) = leaves.split_at(split(leaves));
    let (mut path, other) = match old <= left.len() {
        true => (subproof(old, left, complete), right),
        false => (subproof(old - left.len(), right, false), left),
    };
    path.push(root(other));
    path
}

/// What a request says, with the history that its checkpoint is of.
struct Case<'h> {
    shown: &'h History,
    size: u64,
    old: u64,
    path: Vec<Hash>,
}

impl Case<'_> {
    fn request(&self) -> AddCheckpoint {
        let note = note(
            &self.shown.checkpoint(self.size),
            &[&key(ORIGIN, 1) as &dyn Signer],
            0,
        );
        AddCheckpoint::new(tree_size(self.old), self.path.clone(), note).unwrap()
    }

    /// The ruling of a witness that remembers all entries of the last checkpoint.
    fn ruling(&self, last: Option<&[Hash]>) -> Ruling {
        let seen = last.unwrap_or_default();
        let shown = &self.shown.0[..self.size as usize];
        let fork = last.is_some() && seen.len() == shown.len() && seen != shown;
        let verdict = |verdict, doubt| Ruling { verdict, doubt };
        let same_size = fork.then_some(Doubt::Fork);
        if self.old > self.size {
            return verdict(Verdict::BadRequest, same_size);
        }
        if self.old != seen.len() as u64 {
            let size = tree_size(seen.len() as u64);
            return verdict(Verdict::Conflict { size }, same_size);
        }
        let (prefix, sound) = (
            &shown[..self.old as usize],
            self.path == self.shown.proof(self.old, self.size),
        );
        if prefix == seen && sound {
            return verdict(Verdict::Cosign, None);
        }
        let doubt = match self.old {
            0 => None,
            _ if fork => Some(Doubt::Fork),
            old if old == self.size => None,
            old if sound && !old.is_power_of_two() => Some(Doubt::Fork),
            _ => Some(Doubt::Unproven),
        };
        verdict(Verdict::Unprocessable, doubt)
    }

    fn check(&self, last: Option<(&History, u64)>) -> Ruling {
        let entries = last.map(|(history, size)| &history.0[..size as usize]);
        let checkpoint = last.map(|(history, size)| history.checkpoint(size));
        let ruling = self.request().rule(checkpoint.as_ref());
        assert_eq!(
            ruling,
            self.ruling(entries),
            "old {} of {}, last {:?}",
            self.old,
            self.size,
            last.map(|(_, size)| size)
        );
        if ruling.doubt.is_some() {
            self.convicts(&checkpoint.unwrap(), ruling.doubt == Some(Doubt::Fork));
        }
        ruling
    }

    /// What is kept as evidence is refused by whoever checks it, and named a fork exactly if it is one.
    fn convicts(&self, last: &Checkpoint, fork: bool) {
        let request = self.request();
        let bundle = ConsistencyBundle {
            old: note(last, &[&key(ORIGIN, 1) as &dyn Signer], 0),
            new: request.note().clone(),
            path: request.path().to_vec(),
        };
        let policy = Policy::of_log(key(ORIGIN, 1).verifier_key());
        let error = bundle.verify(&policy).unwrap_err();
        assert!(error.is_proof_of_falsehood(), "{error}");
        assert_eq!(bundle.fork(&policy).is_some(), fork, "{error}");
    }
}

#[test]
fn every_small_request_is_answered_as_the_model_says() {
    const MOST: u64 = 9;
    let mut verdicts = std::collections::BTreeMap::<String, u32>::new();
    for shared in 0..MOST {
        let honest = History::new(shared, "a", MOST);
        let other = History::new(shared, "b", MOST);
        let lasts = (0..MOST).map(|size| Some((&honest, size)));
        for last in [None].into_iter().chain(lasts) {
            for (shown, size, old) in [&honest, &other].into_iter().flat_map(|shown| {
                (0..=MOST).flat_map(move |size| (0..=MOST + 1).map(move |old| (shown, size, old)))
            }) {
                let sound = shown.proof(old, size);
                let mut bent = sound.clone();
                if let Some(hash) = bent.last_mut() {
                    *hash = leaf_hash(hash.as_bytes());
                }
                let long = [&sound[..], &[EMPTY_ROOT]].concat();
                let short = sound[sound.len().min(1)..].to_vec();
                for path in [sound, bent, long, short] {
                    let case = Case {
                        shown,
                        size,
                        old,
                        path,
                    };
                    let ruling = case.check(last);
                    let name = format!("{:?}", ruling.verdict)
                        .chars()
                        .take_while(char::is_ascii_alphabetic)
                        .collect::<String>();
                    *verdicts
                        .entry(format!("{name} {:?}", ruling.doubt))
                        .or_default() += 1;
                }
            }
        }
    }
    // Every answer, with every doubt that it can have, was among them.
    let seen: Vec<_> = verdicts.keys().map(String::as_str).collect();
    assert_eq!(
        seen,
        [
            "BadRequest None",
            "BadRequest Some(Fork)",
            "Conflict None",
            "Conflict Some(Fork)",
            "Cosign None",
            "Unprocessable None",
            "Unprocessable Some(Fork)",
            "Unprocessable Some(Unproven)",
        ],
        "{verdicts:?}"
    );
}

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn a_witness_that_follows_the_rules_cosigns_one_history() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..30 {
        let histories = ["a", "b", "c"].map(|name| History::new(random.below(100), name, 200));
        let mut cosigned: Vec<&[Hash]> = Vec::new();
        let mut last: Option<(&History, u64)> = None;
        for _ in 0..100 {
            let shown = &histories[random.below(3) as usize];
            let at = last.map_or(0, |(_, size)| size);
            let size = match random.below(4) {
                0 => random.below(200),
                _ => (at + random.below(8)).min(200),
            };
            let old = match random.below(6) {
                0 => random.below(200),
                _ => at,
            };
            let mut path = shown.proof(old.min(size), size);
            if random.below(8) == 0 && !path.is_empty() {
                let place = random.below(path.len() as u64) as usize;
                path[place] = leaf_hash(b"x");
            }
            let case = Case {
                shown,
                size,
                old,
                path,
            };
            if case.check(last).verdict == Verdict::Cosign {
                last = Some((shown, size));
                cosigned.push(&shown.0[..size as usize]);
            }
        }
        assert!(cosigned.len() > 3);
        for pair in cosigned.windows(2) {
            assert!(pair[1].starts_with(pair[0]));
        }
    }
}

fn policy(keys: &[&SigningKey]) -> Policy {
    Policy::of_logs(keys.iter().map(|key| key.verifier_key()))
}

fn signed(signers: &[&dyn Signer]) -> AddCheckpoint {
    let checkpoint = History::new(9, "a", 3).checkpoint(3);
    AddCheckpoint::new(TreeSize::ZERO, Vec::new(), note(&checkpoint, signers, 7)).unwrap()
}

#[test]
fn only_checkpoints_that_a_known_key_of_their_log_has_signed_are_admitted() {
    let (log, second, stranger) = (key(ORIGIN, 1), key(ORIGIN, 2), key(ORIGIN, 3));
    let (elsewhere, other) = (witness("w.example", 4), key("example.com/other", 1));
    let both = policy(&[&log, &second]);
    assert_eq!(
        signed(&[&log]).admit(&policy(&[&other])),
        Err(Verdict::NotFound)
    );
    for request in [signed(&[&stranger]), signed(&[&other, &elsewhere])] {
        assert_eq!(request.admit(&both), Err(Verdict::Forbidden));
    }
    // What others have signed is ignored, and left out of what is kept.
    let mixed = signed(&[&stranger, &elsewhere, &second, &log, &other]);
    let admitted = mixed.admit(&both).unwrap();
    assert_eq!(admitted, note(mixed.checkpoint(), &[&second, &log], 0));
}

#[test]
fn a_false_signature_by_a_known_key_is_forbidden_beside_a_true_one() {
    let (log, second) = (key(ORIGIN, 1), key(ORIGIN, 2));
    let mut false_note = signed(&[&log]).note().clone();
    let other_text = note(
        &History::new(9, "a", 4).checkpoint(4),
        &[&second as &dyn Signer],
        0,
    );
    false_note.add(other_text.signatures()[0].clone()).unwrap();
    let request = AddCheckpoint::new(TreeSize::ZERO, Vec::new(), false_note).unwrap();
    assert_eq!(
        request.admit(&policy(&[&log, &second])),
        Err(Verdict::Forbidden)
    );
    assert!(request.admit(&policy(&[&log])).is_ok());
}

#[test]
fn a_request_has_one_form() {
    let log = key(ORIGIN, 1);
    let history = History::new(9, "a", 9);
    let case = Case {
        shown: &history,
        size: 9,
        old: 3,
        path: history.proof(3, 9),
    };
    let text = case.request().to_string();
    assert_eq!(text.parse::<AddCheckpoint>().unwrap(), case.request());
    let signed = signed(&[&log]).note().to_string();
    let hash = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n";
    let most = format!("old 3\n{}\n{signed}", hash.repeat(MAX_PROOF_HASHES));
    assert_eq!(
        most.parse::<AddCheckpoint>().unwrap().path().len(),
        MAX_PROOF_HASHES
    );
    for wrong in [
        String::new(),
        signed.clone(),
        format!("\n{signed}"),
        format!("old 0\n{signed}"),
        format!("old\n\n{signed}"),
        format!("old \n\n{signed}"),
        format!("old 03\n\n{signed}"),
        format!("old +3\n\n{signed}"),
        format!("old -1\n\n{signed}"),
        format!("old 3 \n\n{signed}"),
        format!("old  3\n\n{signed}"),
        format!("Old 3\n\n{signed}"),
        format!("old 3\r\n\n{signed}"),
        format!("old 4611686018427387905\n\n{signed}"),
        format!("old 18446744073709551616\n\n{signed}"),
        format!("old 3\n\n\n{signed}"),
        format!("old 3\nx\n\n{signed}"),
        format!("old 3\n{}\n{signed}", hash.replace('=', "")),
        format!("old 3\n{}\n{signed}", &hash[4..]),
        format!("old 3\n {hash}\n{signed}"),
        format!("old 3\n{}\n{signed}", hash.repeat(MAX_PROOF_HASHES + 1)),
        format!("old 3\n\n{}", signed.trim_end()),
        format!("old 3\n\n{ORIGIN}\n3\n{hash}"),
        format!("old 3\n\n{signed}\n"),
    ] {
        assert!(wrong.parse::<AddCheckpoint>().is_err(), "{wrong}");
    }
    assert!(AddCheckpoint::from_bytes(b"old 0\n\n\xff").is_err());
}
