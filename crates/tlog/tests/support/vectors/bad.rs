//! Bundles that must be refused.

use super::super::log::{Log, label, order};
use super::super::note;
use super::{Cast, checkpoint_row, hex, multiproof, strict};
use leaf_format::Kind;
use serde_json::{Value as Json, json};
use tlog::*;

/// Bundles in the right form that prove nothing, and the error.
fn false_bundles(cast: &Cast) -> Vec<(&'static str, &'static str, ProofBundle)> {
    let log = &cast.log;
    let bundle = cast.orders(20).bundle(&[3, 4], &[log]);
    let alter = |change: &dyn Fn(&mut ProofBundle)| {
        let mut bundle = bundle.clone();
        change(&mut bundle);
        bundle
    };
    let index = |index| merkle_tree::LeafIndex::new(index).unwrap();
    let other_hub = |note: &str| checkpoint_row(Kind::Insert)(&note.replace("\n20\n", "\n21\n"));
    let mut withheld = cast.in_hub(checkpoint_row(Kind::Insert));
    let hub = withheld.hub.as_mut().unwrap();
    hub.entries[0].leaf = BundleLeaf::Hash(hub.entries[0].leaf.hash());
    vec![
        (
            "signed by another key of the same name",
            "NotSignedByLog",
            cast.orders(20).bundle(&[3], &[&cast.stranger]),
        ),
        (
            "signed by the hub instead of the log",
            "NotSignedByLog",
            cast.orders(20).bundle(&[3], &[&cast.hub]),
        ),
        (
            "a log that nobody knows",
            "UnknownLog",
            Log::of_orders("example.com/unknown", 20).bundle(&[3], &[log]),
        ),
        (
            "no tree head in the note",
            "Checkpoint",
            alter(&|b| {
                let mut note = SignedNote::new("no tree head\n").unwrap();
                note.sign(log, 0).unwrap();
                b.checkpoint = note;
            }),
        ),
        (
            "another root under the signature",
            "BadSignature",
            alter(&|b| {
                let other = cast.orders(21).signed(&[log]).to_string();
                let (_, signature) = b
                    .checkpoint
                    .to_string()
                    .rsplit_once("\n\n")
                    .map(|(a, b)| (a.to_owned(), b.to_owned()))
                    .unwrap();
                let (text, _) = other.rsplit_once("\n\n").unwrap();
                b.checkpoint = format!("{text}\n\n{signature}").parse().unwrap();
            }),
        ),
        (
            "other leaf data",
            "Inclusion",
            alter(&|b| b.entries[0].leaf = BundleLeaf::Data(order(5))),
        ),
        (
            "another leaf hash",
            "Inclusion",
            alter(&|b| b.entries[0].leaf = BundleLeaf::Hash(merkle_tree::EMPTY_ROOT)),
        ),
        (
            "a node in the place of a leaf",
            "Inclusion",
            alter(&|b| {
                let node = merkle_tree::node_hash(&b.entries[0].path[0], &b.entries[0].leaf.hash());
                b.entries[0].leaf = BundleLeaf::Hash(node);
                b.entries[0].path.remove(0);
            }),
        ),
        (
            "another index",
            "Inclusion",
            alter(&|b| b.entries[0].index = index(2)),
        ),
        (
            "an index beyond the tree",
            "Inclusion",
            alter(&|b| b.entries[1].index = index(20)),
        ),
        (
            "the greatest index",
            "Inclusion",
            alter(&|b| b.entries[1].index = index((1 << 62) - 2)),
        ),
        (
            "a path that is too short",
            "Inclusion",
            alter(&|b| {
                b.entries[1].path.pop();
            }),
        ),
        (
            "a path that is too long",
            "Inclusion",
            alter(&|b| b.entries[1].path.push(merkle_tree::EMPTY_ROOT)),
        ),
        (
            "two nodes swapped",
            "Inclusion",
            alter(&|b| b.entries[1].path.swap(0, 1)),
        ),
        (
            "the second entry alone is false",
            "Inclusion",
            alter(&|b| b.entries[1].leaf = BundleLeaf::Data(Vec::new())),
        ),
        (
            "a label with another source",
            "Contradiction",
            alter(&|b| b.entries[0].label = label("public.lines", &[("id", "3")])),
        ),
        (
            "a label with another key",
            "Contradiction",
            alter(&|b| b.entries[0].label = label("public.orders", &[("id", "4")])),
        ),
        (
            "a label with the key in another spelling",
            "Contradiction",
            alter(&|b| b.entries[0].label = label("public.orders", &[("id", "03")])),
        ),
        (
            "a label with a column that is not there",
            "Contradiction",
            alter(&|b| b.entries[0].label = label("public.orders", &[("number", "3")])),
        ),
        (
            "the hub has another checkpoint",
            "Contradiction",
            cast.in_hub(other_hub),
        ),
        (
            "the hub's entry is a deletion",
            "Contradiction",
            cast.in_hub(checkpoint_row(Kind::Delete)),
        ),
        (
            "the hub's entry has no checkpoint",
            "Contradiction",
            cast.in_hub(|_| order(1)),
        ),
        ("the hub's entry is withheld", "Contradiction", withheld),
        ("the hub is not known", "NotSignedByLog", {
            let mut bundle = cast.in_hub(checkpoint_row(Kind::Insert));
            let hub = bundle.hub.as_mut().unwrap();
            hub.checkpoint = note(&hub.checkpoint.text().parse().unwrap(), &[log], 0);
            bundle
        }),
        ("the hub's proof is false", "Inclusion", {
            let mut bundle = cast.in_hub(checkpoint_row(Kind::Insert));
            bundle.hub.as_mut().unwrap().entries[0].path.reverse();
            bundle
        }),
        ("the log below a hub has not signed", "NotSignedByLog", {
            let mut bundle = cast.in_hub(checkpoint_row(Kind::Insert));
            bundle.checkpoint = note(
                &bundle.checkpoint.text().parse().unwrap(),
                &[&cast.stranger],
                0,
            );
            bundle
        }),
    ]
}

/// JSON that is not a bundle: edits of one that is.
fn malformed_json(cast: &Cast) -> Vec<(&'static str, String)> {
    let bundle = cast.orders(20).bundle(&[3, 4], &[&cast.log]);
    let json: Json = serde_json::from_str(&bundle.to_json()).unwrap();
    let edit = |change: &dyn Fn(&mut Json)| {
        let mut json = json.clone();
        change(&mut json);
        json.to_string()
    };
    let remove = |field: &str| {
        edit(&|b| {
            b.as_object_mut().unwrap().remove(field);
        })
    };
    vec![
        ("an object without fields", "{}".to_owned()),
        (
            "the format of a later version",
            edit(&|b| b["format"] = "merkle_log/proof-bundle@v3".into()),
        ),
        ("no format", remove("format")),
        ("no checkpoint", remove("checkpoint")),
        ("no nodes", remove("nodes")),
        ("an unknown field", edit(&|b| b["note"] = "text".into())),
        (
            "an unknown field of an entry",
            edit(&|b| b["entries"][0]["note"] = "text".into()),
        ),
        ("a hub that is null", edit(&|b| b["hub"] = Json::Null)),
        ("no entries", edit(&|b| b["entries"] = json!([]))),
        (
            "entries out of order",
            edit(&|b| b["entries"].as_array_mut().unwrap().reverse()),
        ),
        (
            "an entry twice",
            edit(&|b| {
                let again = b["entries"][1].clone();
                b["entries"].as_array_mut().unwrap().push(again);
            }),
        ),
        (
            "an index as a number",
            edit(&|b| b["entries"][0]["index"] = 3.into()),
        ),
        (
            "an index with a leading zero",
            edit(&|b| b["entries"][0]["index"] = "03".into()),
        ),
        (
            "an index beyond the largest tree",
            edit(&|b| b["entries"][1]["index"] = "4611686018427387903".into()),
        ),
        (
            "a leaf hash beside leaf data",
            edit(&|b| {
                b["entries"][0]["leaf_hash"] = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".into()
            }),
        ),
        (
            "neither leaf data nor leaf hash",
            edit(&|b| {
                b["entries"][0].as_object_mut().unwrap().remove("leaf_data");
            }),
        ),
        (
            "a source without a key",
            edit(&|b| b["entries"][0]["source"] = "public.orders".into()),
        ),
        (
            "a key column twice",
            edit(&|b| {
                b["entries"][0]["source"] = "public.orders".into();
                b["entries"][0]["key"] = json!([["id", "3"], ["id", "3"]]);
            }),
        ),
        (
            "a node that no path has",
            edit(&|b| {
                b["nodes"]
                    .as_array_mut()
                    .unwrap()
                    .push("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".into())
            }),
        ),
        (
            "a node that is not there",
            edit(&|b| b["entries"][0]["path"][0] = 99.into()),
        ),
        (
            "a place that is no integer",
            edit(&|b| b["entries"][0]["path"][0] = 0.0.into()),
        ),
        (
            "a node twice",
            edit(&|b| {
                let again = b["nodes"][1].clone();
                let nodes = b["nodes"].as_array_mut().unwrap();
                nodes.push(again);
                let place = nodes.len() - 1;
                b["entries"][1]["path"][1] = place.into();
            }),
        ),
        (
            "nodes in another order",
            edit(&|b| {
                b["nodes"].as_array_mut().unwrap().swap(0, 1);
                for entry in b["entries"].as_array_mut().unwrap() {
                    for place in entry["path"].as_array_mut().unwrap() {
                        *place = match place.as_u64().unwrap() {
                            0 => 1,
                            1 => 0,
                            other => other,
                        }
                        .into();
                    }
                }
            }),
        ),
        ("a short node", edit(&|b| b["nodes"][0] = "AAAA".into())),
        (
            "base64 without its padding",
            edit(&|b| b["nodes"][0] = b["nodes"][0].as_str().unwrap().trim_end_matches('=').into()),
        ),
        (
            "base64 for addresses",
            edit(&|b| b["nodes"][0] = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=".into()),
        ),
        (
            "a checkpoint without signatures",
            edit(&|b| b["checkpoint"] = bundle.checkpoint.text().into()),
        ),
        ("something after the end", format!("{}]", bundle.to_json())),
    ]
}

/// CBOR that is not the one form of a bundle.
fn malformed_cbor(cast: &Cast) -> Vec<(&'static str, Vec<u8>)> {
    let cbor = cast.orders(1).bundle(&[0], &[&cast.log]).to_cbor();
    // a4 65 "nodes" 80 66 "format" ...
    let nodes_at = 1 + 1 + 5;
    assert_eq!((cbor[0], cbor[nodes_at]), (0xa4, 0x80));
    let replaced = |at: usize, by: &[u8]| [&cbor[..at], by, &cbor[at + 1..]].concat();
    let nodes = cbor[1..=nodes_at].to_vec();
    // Of the last entry of a whole tree all siblings are on the left, as if the index were -1.
    let last = cast.orders(8).bundle(&[7], &[&cast.log]).to_cbor();
    let index_at = last.windows(7).position(|w| w == b"\x65index\x07");
    let index_at = index_at.expect("the index of the only entry") + 6;
    vec![
        ("nothing", Vec::new()),
        ("a byte too many", [cbor.as_slice(), &[0]].concat()),
        ("a byte too few", cbor[..cbor.len() - 1].to_vec()),
        (
            "a length of two bytes where one will do",
            replaced(nodes_at, &[0x98, 0]),
        ),
        (
            "an array of indefinite length",
            replaced(nodes_at, &[0x9f, 0xff]),
        ),
        (
            "a map of indefinite length",
            [&[0xbf], &cbor[1..], &[0xff]].concat(),
        ),
        (
            "a tag before it",
            [&[0xd9, 0xd9, 0xf7], cbor.as_slice()].concat(),
        ),
        (
            "names in another order",
            [&cbor[..1], &cbor[nodes_at + 1..], &nodes].concat(),
        ),
        (
            "a name twice",
            [&[0xa5], &cbor[1..], nodes.as_slice()].concat(),
        ),
        (
            "a negative index",
            [&last[..index_at], &[0x20], &last[index_at + 1..]].concat(),
        ),
    ]
}

pub fn bad(cast: &Cast) -> Vec<Json> {
    let policy = cast.policy();
    let mut vectors = Vec::new();
    for (name, error, bundle) in false_bundles(cast)
        .into_iter()
        .chain(multiproof::disproven(cast))
    {
        vectors.push(json!({"name": name, "policy": policy, "error": error, "json": bundle.to_json(), "cbor": hex(&bundle.to_cbor())}));
    }
    let [one, two, _] = &cast.witnesses[..] else {
        unreachable!()
    };
    let quorum = |signers: &[&dyn Signer]| cast.orders(7).bundle(&[5], signers);
    let mut forged = quorum(&[&cast.log, one, two]);
    let mut cosignature = forged.checkpoint.signatures()[2].clone();
    cosignature.payload[0] ^= 1;
    forged.checkpoint.add(cosignature).unwrap();
    for (name, error, bundle) in [
        (
            "one witness where two are asked for",
            "Quorum",
            quorum(&[&cast.log, one]),
        ),
        (
            "a false cosignature beside a true one",
            "BadSignature",
            forged,
        ),
        (
            "two witnesses and no log",
            "NotSignedByLog",
            quorum(&[one, two]),
        ),
    ] {
        vectors.push(json!({"name": name, "policy": cast.witnessed(), "error": error, "json": bundle.to_json(), "cbor": hex(&bundle.to_cbor())}));
    }
    for (name, text) in malformed_json(cast)
        .into_iter()
        .chain(multiproof::malformed_json(cast))
    {
        vectors.push(json!({"name": name, "policy": policy, "error": "ProofBundle", "json": text}));
    }
    for (name, error, text) in strict::bad(cast) {
        vectors.push(json!({"name": name, "policy": policy, "error": error, "json": text}));
    }
    for (name, cbor) in malformed_cbor(cast)
        .into_iter()
        .chain(multiproof::malformed_cbor(cast))
    {
        vectors.push(
            json!({"name": name, "policy": policy, "error": "ProofBundle", "cbor": hex(&cbor)}),
        );
    }
    vectors
}
