//! The known vectors: the eight leaves that every implementation of RFC 6962 is tried on.

mod support;

use merkle_tree::*;
use serde_json::Value;
use support::*;

fn hash(json: &Value) -> Hash {
    let hex = json.as_str().unwrap();
    let bytes: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
        .collect();
    Hash::try_from(bytes.as_slice()).unwrap()
}

fn path(json: &Value) -> Vec<Hash> {
    json["path"].as_array().unwrap().iter().map(hash).collect()
}

#[test]
fn known_roots_and_paths() {
    let vectors: Value = serde_json::from_str(include_str!("rfc6962.json")).unwrap();
    let mut store = Store::default();
    let roots = vectors["roots"].as_array().unwrap();
    assert_eq!(hash(&roots[0]), EMPTY_ROOT);
    for (i, leaf) in vectors["leaves"].as_array().unwrap().iter().enumerate() {
        let hex = leaf.as_str().unwrap();
        let bytes: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
            .collect();
        store.push(leaf_hash(&bytes));
        assert_eq!(store.frontier.root(), hash(&roots[i + 1]));
    }
    for vector in vectors["inclusion"].as_array().unwrap() {
        let (i, n) = (
            index(vector["index"].as_u64().unwrap()),
            size(vector["size"].as_u64().unwrap()),
        );
        assert_eq!(inclusion_proof(&mut store, i, n), Ok(path(vector)));
    }
    for vector in vectors["consistency"].as_array().unwrap() {
        let (m, n) = (
            size(vector["old"].as_u64().unwrap()),
            size(vector["new"].as_u64().unwrap()),
        );
        assert_eq!(consistency_proof(&mut store, m, n), Ok(path(vector)));
    }
}
