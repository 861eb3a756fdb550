//! Absence proofs, good and bad.

use super::super::log::Log;
use super::super::sealed::{self, SealedPart, prove};
use super::{Cast, hex};
use merkle_tree::{EMPTY_ROOT, Hash, KeyHash, LeafIndex, Shown};
use serde_json::{Value as Json, json};
use tlog::*;

/// A log of 300 entries of 100 orders, three of each but every eleventh order, which has one more; in three sealed ranges.
struct World {
    log: Log,
    parts: Vec<SealedPart>,
}

impl World {
    fn new(cast: &Cast) -> World {
        let mut log = cast.orders(0);
        let order = |number: u64| super::super::log::order((number * 7 % 100).into());
        let mut parts = Vec::new();
        for (from, to) in [(0, 1), (1, 200), (200, 301)] {
            let missing = log.entries.len() as u64..to;
            log.entries.extend(missing.map(order));
            parts.push(sealed::seal(&mut log, from..to, |_| true));
        }
        World { log, parts }
    }

    fn proof(&self, cast: &Cast, key: &str) -> AbsenceProof {
        let parts: Vec<&SealedPart> = self.parts.iter().collect();
        prove(&self.log, &parts, "public.orders", &[key], &[&cast.log])
    }
}

fn proven(proof: &AbsenceProof, from: u64, to: u64) -> Json {
    let indexes = proof.entries.iter().map(|entry| entry.index.to_string());
    let checkpoint: Checkpoint = proof.checkpoint.text().parse().unwrap();
    json!({
        "origin": checkpoint.origin(), "size": checkpoint.size().to_string(), "root": checkpoint.root().to_string(),
        "source": proof.source, "key": proof.key, "from": from.to_string(), "to": to.to_string(),
        "indexes": indexes.collect::<Vec<_>>(),
    })
}

pub fn good(cast: &Cast) -> Vec<Json> {
    let world = World::new(cast);
    let mut vectors = Vec::new();
    let mut push = |name: &str, proof: AbsenceProof, from: u64, to: u64| {
        vectors.push(json!({
            "name": name, "policy": cast.policy(), "json": proof.to_json(), "cbor": hex(&proof.to_cbor()),
            "proven": proven(&proof, from, to),
        }));
    };
    push(
        "a key with entries in three ranges",
        world.proof(cast, "0"),
        0,
        301,
    );
    push(
        "a key with entries in two of them",
        world.proof(cast, "42"),
        0,
        301,
    );
    push("a key that is absent", world.proof(cast, "1000"), 0, 301);
    let of = |parts: &[&SealedPart], key: &str| {
        prove(&world.log, parts, "public.orders", &[key], &[&cast.log])
    };
    let [first, second, third] = world.parts.as_slice() else {
        unreachable!()
    };
    push("the only key of an index", of(&[first], "0"), 0, 1);
    // By their hashes alone, since thousands of keys stand elsewhere.
    let hash = |part: &SealedPart, key: &str| KeyHash::new(&part.said.root, "public.orders", [key]);
    let stands_outside = |key: &String| {
        hash(second, key) < second.keys[0].hash
            && third.keys.iter().all(|k| k.hash < hash(third, key))
    };
    let mut keys = (1000..).map(|number: u64| number.to_string());
    let key = keys.find(stands_outside).unwrap();
    push(
        "a key before the first and behind the last of an index",
        of(&[second, third], &key),
        1,
        301,
    );
    push(
        "a key of two columns, of another table",
        prove(
            &world.log,
            &[second],
            "public.lines",
            &["7", "é"],
            &[&cast.log],
        ),
        1,
        200,
    );
    let mut withheld = of(&[second], "42");
    for entry in &mut withheld.entries {
        entry.leaf = BundleLeaf::Hash(entry.leaf.hash());
    }
    push("entries that are withheld", withheld, 1, 200);
    vectors
}

/// Proofs in the right form that prove nothing, and the error.
pub fn disproven(cast: &Cast) -> Vec<(&'static str, &'static str, AbsenceProof)> {
    let world = World::new(cast);
    let there = world.proof(cast, "42");
    let absent = world.proof(cast, "1000");
    let alter = |proof: &AbsenceProof, change: &dyn Fn(&mut AbsenceProof)| {
        let mut proof = proof.clone();
        change(&mut proof);
        proof
    };
    let index = |index| LeafIndex::new(index).unwrap();
    // As a liar would: the indexes that are shown leave entries out, and the log was sealed otherwise.
    let left_out = |entries: &dyn Fn(&u64) -> bool| {
        let mut proof = there.clone();
        proof.entries.retain(|entry| entries(&entry.index.get()));
        let parts: Vec<&SealedPart> = world.parts.iter().collect();
        let seals = parts.iter().map(|part| part.seal);
        let mut all: Vec<u64> = seals
            .chain(proof.entries.iter().map(|e| e.index.get()))
            .collect();
        all.sort_unstable();
        let all: Vec<LeafIndex> = all.into_iter().map(index).collect();
        let nodes = merkle_tree::multiproof(&mut world.log.tiles(), &all, world.log.size());
        proof.nodes = nodes.unwrap().nodes;
        proof
    };
    let first = there.entries[0].index.get();
    let mut forged = world.log.clone();
    let dishonest = {
        forged.entries.truncate(301);
        // The forged index does not have order 42, which a second log would need to have signed.
        let part = sealed::seal(&mut forged, 1..200, |at| {
            world.log.entries[at as usize] != super::super::log::order(42)
        });
        let mut proof = prove(&forged, &[&part], "public.orders", &["42"], &[&cast.log]);
        proof.checkpoint = world.log.signed(&[&cast.log]);
        proof
    };
    let overlapping = {
        let mut log = cast.orders(30);
        let parts = [
            sealed::seal(&mut log, 0..20, |_| true),
            sealed::seal(&mut log, 15..30, |_| true),
        ];
        prove(
            &log,
            &[&parts[0], &parts[1]],
            "public.orders",
            &["99"],
            &[&cast.log],
        )
    };
    let of_the_future = {
        let mut log = cast.orders(30);
        let part = sealed::seal(&mut log, 0..20, |_| true);
        let mut said = part.said.clone();
        said.entries = 0..40;
        let leaf_data = sealed::seal_leaf(&said);
        log.entries[30] = leaf_data.clone();
        let part = SealedPart {
            leaf_data,
            said,
            ..part
        };
        prove(&log, &[&part], "public.orders", &["99"], &[&cast.log])
    };
    let too_many_keys = {
        let mut log = cast.orders(30);
        let part = sealed::seal(&mut log, 0..20, |_| true);
        let mut said = part.said.clone();
        said.entries = 0..19;
        let leaf_data = sealed::seal_leaf(&said);
        log.entries[30] = leaf_data.clone();
        let part = SealedPart {
            leaf_data,
            said,
            ..part
        };
        prove(&log, &[&part], "public.orders", &["99"], &[&cast.log])
    };
    let unsealed = {
        let mut proof = absent.clone();
        proof.ranges.truncate(1);
        proof.ranges[0].leaf_data = super::super::log::order(3);
        proof
    };
    let flip = |hash: &mut Hash| {
        let mut bytes = *hash.as_bytes();
        bytes[31] ^= 1;
        *hash = bytes.into();
    };
    vec![
        (
            "signed by another key",
            "NotSignedByLog",
            alter(&there, &|p| {
                p.checkpoint = world.log.signed(&[&cast.stranger])
            }),
        ),
        (
            "an entry of the key left out",
            "Key",
            left_out(&|at| *at != first),
        ),
        (
            "all entries of the key left out",
            "Key",
            left_out(&|_| false),
        ),
        (
            "an entry left out, and its place in the proof not",
            "Inclusions",
            alter(&there, &|p| {
                p.entries.remove(0);
            }),
        ),
        (
            "other leaf data of an entry",
            "Inclusions",
            alter(&there, &|p| {
                p.entries[0].leaf = BundleLeaf::Data(super::super::log::order(43))
            }),
        ),
        (
            "a node too many",
            "Inclusions",
            alter(&there, &|p| p.nodes.push(EMPTY_ROOT)),
        ),
        (
            "a node too few",
            "Inclusions",
            alter(&there, &|p| {
                p.nodes.pop();
            }),
        ),
        (
            "the proof of another key",
            "Key",
            alter(&absent, &|p| p.key[0] = "1001".to_owned()),
        ),
        (
            "the proof of a key of another table",
            "Key",
            alter(&absent, &|p| p.source = "public.lines".to_owned()),
        ),
        (
            "a key with a column more",
            "Key",
            alter(&absent, &|p| p.key.push(String::new())),
        ),
        (
            "a key that is there proven absent",
            "Key",
            alter(&absent, &|p| p.key[0] = "42".to_owned()),
        ),
        (
            "the range in the middle left out",
            "Inclusions",
            alter(&absent, &|p| {
                p.ranges.remove(1);
            }),
        ),
        (
            "a range left out, and its place in the proof too",
            "Contradiction",
            {
                let [first, _, third] = world.parts.as_slice() else {
                    unreachable!()
                };
                prove(
                    &world.log,
                    &[first, third],
                    "public.orders",
                    &["1000"],
                    &[&cast.log],
                )
            },
        ),
        ("ranges that overlap", "Contradiction", overlapping),
        (
            "a range that ends behind its seal",
            "Contradiction",
            of_the_future,
        ),
        ("more keys than entries", "ProofBundle", too_many_keys),
        ("an entry that seals nothing", "Inclusions", unsealed),
        (
            "an index that another tree has sealed",
            "Inclusions",
            dishonest,
        ),
        ("an entry outside of the ranges", "Contradiction", {
            let mut proof = prove(
                &world.log,
                &[&world.parts[1]],
                "public.orders",
                &["42"],
                &[&cast.log],
            );
            let beyond = there
                .entries
                .iter()
                .rfind(|entry| entry.index.get() >= 200)
                .unwrap()
                .clone();
            proof.entries.push(beyond);
            let all = proof
                .entries
                .iter()
                .map(|e| e.index)
                .chain([proof.ranges[0].seal]);
            let mut all: Vec<LeafIndex> = all.collect();
            all.sort_unstable();
            proof.nodes = merkle_tree::multiproof(&mut world.log.tiles(), &all, world.log.size())
                .unwrap()
                .nodes;
            proof
        }),
        (
            "another position",
            "Key",
            alter(&absent, &|p| p.ranges[1].proof.position += 1),
        ),
        (
            "a position beyond the index",
            "Key",
            alter(&absent, &|p| p.ranges[1].proof.position = 1 << 40),
        ),
        (
            "a node of an index altered",
            "Key",
            alter(&absent, &|p| flip(&mut p.ranges[1].proof.nodes[0])),
        ),
        (
            "a node of an index left out",
            "Key",
            alter(&absent, &|p| {
                p.ranges[1].proof.nodes.pop();
            }),
        ),
        (
            "what blinds the key altered",
            "Key",
            alter(&there, &|p| {
                for range in &mut p.ranges {
                    if let Shown::Key { blind } = &mut range.proof.shown {
                        flip(blind)
                    }
                }
            }),
        ),
        (
            "neighbours swapped",
            "Key",
            alter(&absent, &|p| {
                if let Shown::Neighbours { before, after } = &mut p.ranges[1].proof.shown {
                    std::mem::swap(before, after)
                }
            }),
        ),
        (
            "a neighbour left out",
            "Key",
            alter(&absent, &|p| {
                if let Shown::Neighbours { before, .. } = &mut p.ranges[1].proof.shown {
                    *before = None
                }
            }),
        ),
        (
            "a neighbour with more bits",
            "Key",
            alter(&absent, &|p| {
                if let Shown::Neighbours {
                    before: Some(before),
                    ..
                } = &mut p.ranges[1].proof.shown
                {
                    before.shared += 1
                }
            }),
        ),
        (
            "a neighbour with 64 bits in common",
            "Key",
            alter(&absent, &|p| {
                if let Shown::Neighbours {
                    after: Some(after), ..
                } = &mut p.ranges[1].proof.shown
                {
                    after.shared = 64
                }
            }),
        ),
        ("leaf data of another table", "Contradiction", {
            let mut log = cast.orders(3);
            let mut part = sealed::seal(&mut log, 0..2, |_| true);
            part.keys = sealed::keys(&log, 0..2, &part.said.root, |_| true);
            let hash = merkle_tree::KeyHash::new(&part.said.root, "public.lines", ["1"]);
            part.keys[0].hash = hash;
            part.keys.sort_unstable_by_key(|key| key.hash);
            let said = sealed::sealed_again(&part);
            let leaf_data = sealed::seal_leaf(&said);
            log.entries[3] = leaf_data.clone();
            let part = SealedPart {
                leaf_data,
                said,
                ..part
            };
            prove(&log, &[&part], "public.lines", &["1"], &[&cast.log])
        }),
    ]
}

/// JSON that is no such proof: edits of one that is.
pub fn malformed(cast: &Cast) -> Vec<(&'static str, String)> {
    let world = World::new(cast);
    let json = |proof: AbsenceProof| serde_json::from_str::<Json>(&proof.to_json()).unwrap();
    let (there, absent) = (
        json(world.proof(cast, "42")),
        json(world.proof(cast, "1000")),
    );
    let edit = |json: &Json, change: &dyn Fn(&mut Json)| {
        let mut json = json.clone();
        change(&mut json);
        json.to_string()
    };
    let remove = |json: &mut Json, field: &str| {
        json.as_object_mut().unwrap().remove(field);
    };
    let full = there["ranges"]
        .as_array()
        .unwrap()
        .iter()
        .position(|r| r["blind"].is_string())
        .unwrap();
    vec![
        (
            "the format of a later version",
            edit(&there, &|p| {
                p["format"] = "merkle_log/absence-proof@v2".into()
            }),
        ),
        (
            "an unknown field",
            edit(&there, &|p| p["note"] = "text".into()),
        ),
        (
            "an unknown field of a range",
            edit(&there, &|p| p["ranges"][0]["note"] = "text".into()),
        ),
        ("no source", edit(&there, &|p| remove(p, "source"))),
        (
            "an empty source",
            edit(&there, &|p| p["source"] = "".into()),
        ),
        ("an empty key", edit(&there, &|p| p["key"] = json!([]))),
        (
            "a key that is no text",
            edit(&there, &|p| p["key"][0] = 42.into()),
        ),
        ("no ranges", edit(&there, &|p| p["ranges"] = json!([]))),
        (
            "ranges out of order",
            edit(&there, &|p| p["ranges"].as_array_mut().unwrap().reverse()),
        ),
        (
            "entries out of order",
            edit(&there, &|p| p["entries"].as_array_mut().unwrap().reverse()),
        ),
        (
            "an entry twice",
            edit(&there, &|p| {
                let again = p["entries"][0].clone();
                p["entries"].as_array_mut().unwrap().insert(0, again);
            }),
        ),
        (
            "neither leaf data nor leaf hash",
            edit(&there, &|p| remove(&mut p["entries"][0], "leaf_data")),
        ),
        (
            "a path of an entry",
            edit(&there, &|p| p["entries"][0]["path"] = json!([])),
        ),
        (
            "a key and a neighbour",
            edit(&there, &|p| {
                p["ranges"][full]["before"] = absent["ranges"][1]["before"].clone()
            }),
        ),
        (
            "neither a key nor a neighbour",
            edit(&there, &|p| remove(&mut p["ranges"][full], "blind")),
        ),
        (
            "a neighbour that is null",
            edit(&there, &|p| p["ranges"][full]["before"] = Json::Null),
        ),
        (
            "bits as a text",
            edit(&absent, &|p| {
                p["ranges"][1]["before"]["shared"] = "3".into()
            }),
        ),
        (
            "bits beyond a byte",
            edit(&absent, &|p| {
                p["ranges"][1]["before"]["shared"] = 256.into()
            }),
        ),
        (
            "negative bits",
            edit(&absent, &|p| {
                p["ranges"][1]["before"]["shared"] = (-1).into()
            }),
        ),
        (
            "a position as a number",
            edit(&there, &|p| p["ranges"][0]["position"] = 0.into()),
        ),
        (
            "a position with a leading zero",
            edit(&there, &|p| p["ranges"][0]["position"] = "00".into()),
        ),
        (
            "a short hash",
            edit(&there, &|p| p["ranges"][full]["blind"] = "AAAA".into()),
        ),
        ("something after the end", format!("{there}]")),
    ]
}
