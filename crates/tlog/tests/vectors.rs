//! The vectors of `vectors.json`: the examples of the specifications, those of other implementations, and
//! what each decoder must refuse.

use serde_json::Value as Json;
use std::collections::BTreeMap;
use tlog::*;

fn vectors(of: &str) -> Vec<Json> {
    let all: Json = serde_json::from_str(include_str!("vectors.json")).unwrap();
    let vectors = all[of].as_array().unwrap().clone();
    assert!(!vectors.is_empty());
    vectors
}

fn text<'v>(vector: &'v Json, field: &str) -> &'v str {
    vector[field].as_str().unwrap()
}

#[test]
fn verifier_keys_have_one_form() {
    for vector in vectors("verifier_keys") {
        let key: VerifierKey = text(&vector, "key").parse().unwrap();
        assert_eq!(key.to_string(), text(&vector, "key"));
    }
    for vector in vectors("bad_verifier_keys") {
        let key = text(&vector, "key").parse::<VerifierKey>();
        assert!(key.is_err(), "{}: {key:?}", vector["name"]);
    }
}

#[test]
fn signing_keys_are_those_of_go() {
    for vector in vectors("signing_keys") {
        let key = SigningKey::from_text(text(&vector, "key")).unwrap();
        assert_eq!(key.to_text().as_str(), text(&vector, "key"));
        assert_eq!(
            key.verifier_key().to_string(),
            text(&vector, "verifier_key")
        );
        let secret = text(&vector, "key").rsplit('+').next().unwrap();
        assert!(!format!("{key:?}").contains(secret));
        for end in 0..text(&vector, "key").len() {
            assert!(SigningKey::from_text(&text(&vector, "key")[..end]).is_err());
        }
    }
}

#[test]
fn notes_of_others_verify_and_signing_gives_their_bytes() {
    for vector in vectors("notes") {
        let key: VerifierKey = text(&vector, "key").parse().unwrap();
        let note: SignedNote = text(&vector, "note").parse().unwrap();
        assert_eq!(note.to_string(), text(&vector, "note"));
        let [(signature, by)] = note.verify([&key]).unwrap()[..] else {
            panic!("{}", vector["name"]);
        };
        assert_eq!((&signature.name, signature.id), (by.name(), by.id()));
    }
    let notes = vectors("notes");
    let key = vectors("signing_keys")[0]["key"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut note: SignedNote = text(&notes[2], "note").parse().unwrap();
    let signed = note.clone();
    note.sign(&SigningKey::from_text(&key).unwrap(), 0).unwrap();
    let lines = |note: &SignedNote| {
        let mut signatures: Vec<_> = note.signatures().iter().map(Signature::to_string).collect();
        signatures.sort();
        signatures
    };
    assert_eq!(lines(&note), lines(&signed));
}

#[test]
fn malformed_notes_are_refused() {
    for vector in vectors("malformed_notes") {
        let note = text(&vector, "note").parse::<SignedNote>();
        assert!(note.is_err(), "{}: {note:?}", vector["name"]);
    }
    let notes = vectors("notes");
    let (body, signature) = text(&notes[0], "note").rsplit_once("\n\n").unwrap();
    let many = |count: usize| format!("{body}\n\n{}", signature.repeat(count));
    assert!(many(MAX_SIGNATURES).parse::<SignedNote>().is_ok());
    assert!(many(MAX_SIGNATURES + 1).parse::<SignedNote>().is_err());
    assert!(SignedNote::from_bytes(b"\xff\n\n\xe2\x80\x94 a AAAAAAA=\n").is_err());
}

#[test]
fn a_false_signature_by_a_known_key_condemns_the_note() {
    let notes = vectors("notes");
    let (first, second) = (text(&notes[1], "key"), text(&notes[2], "key"));
    let altered = text(&notes[1], "note").replace("problem is", "problem was");
    let altered: SignedNote = altered.parse().unwrap();
    let stranger: VerifierKey = text(&notes[0], "key").parse().unwrap();
    let known: Vec<VerifierKey> = vec![first.parse().unwrap(), second.parse().unwrap()];
    assert!(matches!(
        altered.verify(&known),
        Err(Error::BadSignature { .. })
    ));
    assert_eq!(altered.verify([&stranger]).unwrap_err(), Error::NotSigned);
    // One true signature does not make up for a false one.
    let genuine: SignedNote = text(&notes[1], "note").parse().unwrap();
    let mut mixed = genuine.clone();
    let mut broken = genuine.signatures()[1].clone();
    *broken.payload.last_mut().unwrap() ^= 1;
    mixed.add(broken).unwrap();
    assert!(matches!(
        mixed.verify(&known),
        Err(Error::BadSignature { .. })
    ));
    assert_eq!(mixed.verify(&known[..1]).unwrap().len(), 1);
}

#[test]
fn checkpoints_have_one_form() {
    for vector in vectors("checkpoints") {
        let checkpoint: Checkpoint = text(&vector, "text").parse().unwrap();
        assert_eq!(checkpoint.to_string(), text(&vector, "text"));
        assert_eq!(checkpoint.origin(), text(&vector, "origin"));
        assert_eq!(checkpoint.size().get(), vector["size"].as_u64().unwrap());
    }
    for vector in vectors("bad_checkpoints") {
        let checkpoint = text(&vector, "text").parse::<Checkpoint>();
        assert!(checkpoint.is_err(), "{}: {checkpoint:?}", vector["name"]);
    }
}

#[test]
fn tile_paths_have_one_form() {
    for vector in vectors("tile_paths") {
        let path: TilePath = text(&vector, "path").parse().unwrap();
        assert_eq!(path.to_string(), text(&vector, "path"));
        let level = match vector["level"].as_u64() {
            Some(level) => TileLevel::Hashes(level as u8),
            None => TileLevel::Entries,
        };
        let expected = (level, vector["index"].as_u64().unwrap());
        assert_eq!((path.level(), path.index()), expected);
        assert_eq!(u64::from(path.width()), vector["width"].as_u64().unwrap());
    }
    for path in vectors("bad_tile_paths") {
        let parsed = path.as_str().unwrap().parse::<TilePath>();
        assert!(parsed.is_err(), "{path}: {parsed:?}");
    }
}

#[test]
fn a_tree_has_the_tiles_of_the_specification() {
    for vector in vectors("tile_counts") {
        let size = merkle_tree::TreeSize::new(vector["size"].as_u64().unwrap()).unwrap();
        let mut counts: BTreeMap<String, [u64; 2]> = BTreeMap::new();
        for path in tiles_of(size) {
            let level = match path.level() {
                TileLevel::Entries => continue,
                TileLevel::Hashes(level) => level,
            };
            let count = counts.entry(level.to_string()).or_default();
            match path.is_partial() {
                true => count[1] = path.width().into(),
                false => count[0] += 1,
            }
        }
        assert_eq!(serde_json::to_value(&counts).unwrap(), vector["tiles"]);
        let hashes = tiles_of(size).filter(|path| path.level() == TileLevel::Hashes(0));
        let entries = tiles_of(size).filter(|path| path.level() == TileLevel::Entries);
        let places = |path: TilePath| (path.index(), path.width());
        assert!(hashes.map(places).eq(entries.map(places)));
    }
}

#[test]
fn policies_that_break_a_rule_are_refused() {
    for vector in vectors("policies") {
        let policy = Policy::from_bytes(text(&vector, "policy").as_bytes());
        assert!(policy.is_ok(), "{}: {policy:?}", vector["name"]);
    }
    for vector in vectors("bad_policies") {
        let policy = Policy::from_bytes(text(&vector, "policy").as_bytes());
        assert!(policy.is_err(), "{}: {policy:?}", vector["name"]);
    }
}
