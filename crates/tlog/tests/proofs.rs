//! The vectors of `docs/proof-format-vectors.json`, which other languages check too.

mod support;

use serde_json::Value as Json;
use tlog::*;

fn file() -> String {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/proof-format-vectors.json"
    );
    std::fs::read_to_string(path).unwrap()
}

fn vectors(of: &str) -> Vec<Json> {
    let all: Json = serde_json::from_str(&file()).unwrap();
    let vectors = all[of].as_array().unwrap().clone();
    assert!(!vectors.is_empty());
    vectors
}

fn text<'v>(vector: &'v Json, field: &str) -> &'v str {
    vector[field].as_str().unwrap()
}

fn unhex(hex: &str) -> Vec<u8> {
    let digit = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

fn policy(vector: &Json) -> Policy {
    Policy::from_bytes(text(vector, "policy").as_bytes()).unwrap()
}

/// The forms that a vector has.
fn forms(vector: &Json) -> Vec<Vec<u8>> {
    let json = vector["json"].as_str().map(|json| json.as_bytes().to_vec());
    let cbor = vector["cbor"].as_str().map(unhex);
    json.into_iter().chain(cbor).collect()
}

fn variant(error: &Error) -> String {
    let debug = format!("{error:?}");
    debug
        .split(|c: char| !c.is_alphanumeric())
        .next()
        .unwrap()
        .to_owned()
}

fn check_proven(proven: &Proven, expected: &Json, name: &str) {
    let checkpoint = &proven.checkpoint.checkpoint;
    assert_eq!(checkpoint.origin(), text(expected, "origin"), "{name}");
    assert_eq!(
        checkpoint.size().to_string(),
        text(expected, "size"),
        "{name}"
    );
    assert_eq!(
        checkpoint.root().to_string(),
        text(expected, "root"),
        "{name}"
    );
    let entries = expected["entries"].as_array().unwrap();
    assert_eq!(proven.entries.len(), entries.len(), "{name}");
    for (entry, expected) in proven.entries.iter().zip(entries) {
        assert_eq!(entry.index.to_string(), text(expected, "index"), "{name}");
        assert_eq!(
            entry.leaf_hash.to_string(),
            text(expected, "leaf_hash"),
            "{name}"
        );
        let withheld = entry.content == Content::Withheld;
        assert_eq!(withheld, expected["leaf_data"].is_null(), "{name}");
    }
    assert_eq!(proven.hub.is_some(), !expected["hub"].is_null(), "{name}");
    if let Some(hub) = &proven.hub {
        check_proven(hub, &expected["hub"], name);
    }
}

#[test]
fn the_vectors_are_those_that_the_example_prints() {
    assert!(
        support::vectors::file() == file(),
        "cargo run -p tlog --example proof_vectors > docs/proof-format-vectors.json"
    );
}

#[test]
fn bundles_prove_what_the_vectors_say() {
    for vector in vectors("bundles") {
        let name = text(&vector, "name");
        for form in forms(&vector) {
            let bundle = ProofBundle::from_bytes(&form).unwrap();
            assert_eq!(bundle.to_json(), text(&vector, "json"), "{name}");
            assert_eq!(bundle.to_cbor(), unhex(text(&vector, "cbor")), "{name}");
            check_proven(
                &bundle.verify(&policy(&vector)).unwrap(),
                &vector["proven"],
                name,
            );
        }
    }
}

#[test]
fn bad_bundles_are_refused_for_their_reason() {
    for vector in vectors("bad_bundles") {
        for form in forms(&vector) {
            let refused = ProofBundle::from_bytes(&form).and_then(|b| b.verify(&policy(&vector)));
            let error = refused.expect_err(text(&vector, "name"));
            assert_eq!(
                variant(&error),
                text(&vector, "error"),
                "{}: {error}",
                vector["name"]
            );
        }
    }
}

#[test]
fn tlog_proofs_prove_the_same() {
    for vector in vectors("bundles") {
        if vector["proven"].get("hub").is_some() {
            continue;
        }
        let proofs = vector["tlog_proofs"].as_array().unwrap();
        for (proof, expected) in proofs
            .iter()
            .zip(vector["proven"]["entries"].as_array().unwrap())
        {
            let parsed: TlogProof = proof.as_str().unwrap().parse().unwrap();
            assert_eq!(parsed.to_string(), proof.as_str().unwrap());
            let hash: [u8; 32] = unhex(text(expected, "leaf_hash")).try_into().unwrap();
            parsed.verify(&hash.into(), &policy(&vector)).unwrap();
            if let Some(data) = &parsed.extra {
                assert_eq!(merkle_tree::leaf_hash(data), hash.into());
            }
            assert!(
                parsed
                    .verify(&merkle_tree::EMPTY_ROOT, &policy(&vector))
                    .is_err()
            );
        }
    }
}

#[test]
fn consistency_proofs_prove_what_the_vectors_say() {
    for vector in vectors("consistency") {
        let json = ConsistencyBundle::from_json(text(&vector, "json").as_bytes()).unwrap();
        let cbor = ConsistencyBundle::from_cbor(&unhex(text(&vector, "cbor"))).unwrap();
        assert_eq!(json, cbor);
        assert_eq!(json.to_json(), text(&vector, "json"));
        assert_eq!(cbor.to_cbor(), unhex(text(&vector, "cbor")));
        let proven = json.verify(&policy(&vector)).unwrap();
        assert_eq!(
            proven.old.checkpoint.size().to_string(),
            text(&vector, "old_size")
        );
        assert_eq!(
            proven.new.checkpoint.size().to_string(),
            text(&vector, "new_size")
        );
    }
    for vector in vectors("bad_consistency") {
        let json = ConsistencyBundle::from_json(text(&vector, "json").as_bytes());
        if let Some(cbor) = vector["cbor"].as_str() {
            assert_eq!(json, ConsistencyBundle::from_cbor(&unhex(cbor)));
        }
        let error = json
            .and_then(|proof| proof.verify(&policy(&vector)))
            .expect_err(text(&vector, "name"));
        assert_eq!(
            variant(&error),
            text(&vector, "error"),
            "{}",
            vector["name"]
        );
    }
}

#[test]
fn a_bundle_of_many_rows_has_each_node_once() {
    let log = support::log::Log::of_orders("example.com/log", 2_000);
    let bundle = log.bundle(
        &(500..700).collect::<Vec<_>>(),
        &[&support::key("example.com/log", 1)],
    );
    let nodes: usize = bundle.entries.iter().map(|entry| entry.path.len()).sum();
    let distinct: std::collections::BTreeSet<_> = bundle
        .entries
        .iter()
        .flat_map(|entry| &entry.path)
        .collect();
    assert!(distinct.len() * 4 < nodes);
    let json: Json = serde_json::from_str(&bundle.to_json()).unwrap();
    assert_eq!(json["nodes"].as_array().unwrap().len(), distinct.len());
}

#[test]
fn one_proof_of_many_entries_has_no_node_that_follows_from_them() {
    let log = support::log::Log::of_orders("example.com/log", 2_000);
    let signer = support::key("example.com/log", 1);
    let (in_a_row, scattered): (Vec<u64>, Vec<u64>) =
        ((500..700).collect(), (0..2_000).step_by(10).collect());
    for (indexes, most) in [(in_a_row, 12), (scattered, 720)] {
        let paths = log.bundle(&indexes, &[&signer]);
        let at_once = log.bundle_at_once(&indexes, &[&signer]);
        let (policy, size) = (
            Policy::of_log(signer.verifier_key()),
            |bundle: &ProofBundle| {
                let json: Json = serde_json::from_str(&bundle.to_json()).unwrap();
                json["nodes"].as_array().unwrap().len()
            },
        );
        assert!(size(&at_once) <= most && size(&at_once) < size(&paths));
        let proven = [&paths, &at_once].map(|bundle| bundle.verify(&policy).unwrap());
        let leaves = proven.map(|p| p.entries.iter().map(|e| e.leaf_hash).collect::<Vec<_>>());
        assert_eq!(leaves[0], leaves[1]);
        assert!(at_once.tlog_proof(&at_once.entries[0]).is_none());
    }
}

#[test]
fn a_bundle_that_is_too_large_is_refused_before_all_of_it_is_read() {
    let key = support::key("example.com/log", 1);
    let log = support::log::Log::of_orders("example.com/log", 2);
    let small = log.bundle(&[0], &[&key]);
    let many = |count: usize| {
        // Whether the proofs hold is not the question.
        let entry = |index| BundleEntry {
            index: merkle_tree::LeafIndex::new(index).unwrap(),
            ..small.entries[0].clone()
        };
        ProofBundle {
            entries: (0..count as u64).map(entry).collect(),
            ..small.clone()
        }
    };
    for (bundle, fits) in [(many(MAX_ENTRIES), true), (many(MAX_ENTRIES + 1), false)] {
        assert_eq!(ProofBundle::from_cbor(&bundle.to_cbor()).is_ok(), fits);
        assert_eq!(
            ProofBundle::from_json(bundle.to_json().as_bytes()).is_ok(),
            fits
        );
    }
}

#[test]
fn a_field_twice_or_a_deep_nesting_is_refused() {
    let json = text(&vectors("bundles")[1], "json").to_owned();
    let twice = json.replacen('{', r#"{"format":"merkle_log/proof-bundle@v1","#, 1);
    assert!(ProofBundle::from_json(twice.as_bytes()).is_err());
    for levels in [9, 200, 100_000] {
        let deep = r#"{"hub":"#.repeat(levels);
        assert!(ProofBundle::from_json(deep.as_bytes()).is_err());
        assert!(ProofBundle::from_cbor(&b"\xa5\x63hub".repeat(levels)).is_err());
    }
    let mut bundle = ProofBundle::from_json(json.as_bytes()).unwrap();
    for level in 2..=MAX_LEVELS + 1 {
        bundle = ProofBundle {
            hub: Some(Box::new(bundle.clone())),
            ..bundle
        };
        let read = ProofBundle::from_cbor(&bundle.to_cbor());
        assert_eq!(read.is_ok(), level <= MAX_LEVELS, "{level}");
    }
}

#[test]
fn a_bundle_is_nested_in_the_hub_that_holds_its_checkpoint_and_in_no_other() {
    let [log, hub, top] = ["log", "hub", "top"]
        .map(|name| support::key(&format!("example.com/{name}"), name.len() as u8));
    let holding = |origin: &str, key: &SigningKey, checkpoint: &SignedNote| {
        let mut hub = support::log::Log::of_orders(origin, 5);
        hub.entries[2] = checkpoint.to_string().into_bytes();
        hub.bundle(&[2], &[key])
    };
    let rows = support::log::Log::of_orders("example.com/log", 20).bundle(&[4, 9], &[&log]);
    let other = support::log::Log::of_orders("example.com/log", 21).bundle(&[4], &[&log]);
    let outer = holding("example.com/hub", &hub, &rows.checkpoint);
    let two = rows.clone().nest(outer.clone()).unwrap();
    // The next one is put around the outermost.
    let three = two
        .clone()
        .nest(holding("example.com/top", &top, &outer.checkpoint))
        .unwrap();
    let policy = Policy::of_logs([log, hub, top].map(|key| key.verifier_key()));
    let proven = three.verify(&policy).unwrap();
    let hubs = std::iter::successors(proven.hub.as_deref(), |hub| hub.hub.as_deref());
    let origins: Vec<_> = hubs.map(|hub| hub.checkpoint.checkpoint.origin()).collect();
    assert_eq!(origins, ["example.com/hub", "example.com/top"]);
    assert_eq!(
        ProofBundle::from_json(three.to_json().as_bytes()).unwrap(),
        three
    );
    for (bundle, hub) in [
        (&other, outer.clone()),
        (&two, outer.clone()),
        (&rows, other.clone()),
        (&outer, rows.clone()),
    ] {
        assert!(bundle.clone().nest(hub).is_err());
    }
    // Eight levels at most.
    let mut inner = rows.checkpoint.clone();
    let mut deep = rows;
    for levels in 2..=9 {
        let around = holding(
            "example.com/top",
            &support::key("example.com/top", 3),
            &inner,
        );
        inner = around.checkpoint.clone();
        deep = match deep.nest(around) {
            Ok(nested) => nested,
            Err(_) => return assert_eq!(levels, 9),
        };
    }
    panic!("nine levels were nested");
}
