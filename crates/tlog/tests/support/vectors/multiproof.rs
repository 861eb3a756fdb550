//! Bundles with one proof of all their entries, version 2 of the format, and what is none.

use super::super::log::{Log, label, order};
use super::{Cast, checkpoint_row};
use leaf_format::Kind;
use merkle_tree::{EMPTY_ROOT, Hash, LeafIndex, TreeSize, leaf_hash, node_hash};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use tlog::*;

pub fn good(cast: &Cast) -> Vec<(&'static str, ProofBundle)> {
    let of = |size, indexes: &[u64]| cast.orders(size).bundle_at_once(indexes, &[&cast.log]);
    let mut labelled = of(20, &[3, 4, 9]);
    labelled.entries[0].label = label("public.orders", &[("id", "3")]);
    labelled.entries[1].leaf = BundleLeaf::Hash(labelled.entries[1].leaf.hash());
    let mut equal = cast.orders(8);
    for entry in &mut equal.entries {
        *entry = b"the same".to_vec();
    }
    let mut in_hub = of(20, &[4, 5, 17]);
    let mut hub = Log::of_orders("example.com/hub", 5);
    hub.entries[2] = checkpoint_row(Kind::Insert)(&in_hub.checkpoint.to_string());
    in_hub.hub = Some(Box::new(hub.bundle(&[2], &[&cast.hub])));
    let mut bundles = vec![
        ("one proof: two siblings", of(20, &[4, 5])),
        ("one proof: two neighbours in two pairs", of(20, &[3, 4])),
        ("one proof: the first and the last", of(20, &[0, 19])),
        (
            "one proof: the last two of a tree with a ragged edge",
            of(7, &[5, 6]),
        ),
        (
            "one proof: the last of a tree with a ragged edge",
            of(7, &[0, 6]),
        ),
        (
            "one proof: all entries, no node",
            of(7, &[0, 1, 2, 3, 4, 5, 6]),
        ),
        (
            "one proof: two tile levels",
            of(600, &[0, 1, 255, 256, 599]),
        ),
        (
            "one proof: a hundred in a row",
            of(600, &(250..350).collect::<Vec<_>>()),
        ),
        (
            "one proof: every seventh",
            of(600, &(0..600).step_by(7).collect::<Vec<_>>()),
        ),
        ("one proof: a label, and leaf data withheld", labelled),
        (
            "one proof: nodes that are equal stand as often as they are needed",
            equal.bundle_at_once(&[0, 7], &[&cast.log]),
        ),
        ("one proof: rows, log, hub", in_hub),
    ];
    let last = (1 << 62) - 2;
    bundles.push((
        "one proof: three of the largest tree",
        large(cast, &[0, last / 3, last]),
    ));
    bundles
}

/// Bundles in the right form that prove nothing, and the error.
pub fn disproven(cast: &Cast) -> Vec<(&'static str, &'static str, ProofBundle)> {
    let bundle = cast.orders(20).bundle_at_once(&[3, 4, 9], &[&cast.log]);
    let alter = |change: &dyn Fn(&mut ProofBundle, &mut Vec<Hash>)| {
        let mut bundle = bundle.clone();
        let mut nodes = bundle.multiproof.clone().unwrap();
        change(&mut bundle, &mut nodes);
        bundle.multiproof = Some(nodes);
        bundle
    };
    let index = |index| LeafIndex::new(index).unwrap();
    let known = |b: &ProofBundle, place: usize| b.entries[place].leaf.hash();
    vec![
        (
            "one proof: a node is missing",
            "Inclusions",
            alter(&|_, nodes| {
                nodes.pop();
            }),
        ),
        (
            "one proof: a node too many",
            "Inclusions",
            alter(&|_, nodes| nodes.push(EMPTY_ROOT)),
        ),
        (
            "one proof: a node that follows from the entries",
            "Inclusions",
            alter(&|b, nodes| nodes.insert(2, node_hash(&nodes[0], &known(b, 0)))),
        ),
        (
            "one proof: the root as one more node",
            "Inclusions",
            alter(&|b, nodes| {
                let checkpoint: Checkpoint = b.checkpoint.text().parse().unwrap();
                nodes.push(*checkpoint.root());
            }),
        ),
        (
            "one proof: two nodes of a level swapped",
            "Inclusions",
            alter(&|_, nodes| nodes.swap(0, 1)),
        ),
        (
            "one proof: two nodes of two levels swapped",
            "Inclusions",
            alter(&|_, nodes| nodes.swap(2, 3)),
        ),
        (
            "one proof: the nodes from the root down",
            "Inclusions",
            alter(&|_, nodes| nodes.reverse()),
        ),
        (
            "one proof: another node",
            "Inclusions",
            alter(&|_, nodes| nodes[1] = EMPTY_ROOT),
        ),
        (
            "one proof: other leaf data",
            "Inclusions",
            alter(&|b, _| b.entries[2].leaf = BundleLeaf::Data(order(10))),
        ),
        (
            "one proof: the leaf data of two entries swapped",
            "Inclusions",
            alter(&|b, _| {
                b.entries[0].leaf = BundleLeaf::Data(order(4));
                b.entries[1].leaf = BundleLeaf::Data(order(3));
            }),
        ),
        (
            "one proof: an entry is left out",
            "Inclusions",
            alter(&|b, _| {
                b.entries.remove(1);
            }),
        ),
        (
            "one proof: an entry more",
            "Inclusions",
            alter(&|b, _| b.entries.push(without_path(cast.orders(20).entry(10)))),
        ),
        (
            "one proof: an entry more, and its path",
            "Inclusions",
            alter(&|b, nodes| {
                let entry = cast.orders(20).entry(10);
                nodes.extend(&entry.path);
                b.entries.push(without_path(entry));
            }),
        ),
        (
            "one proof: another index",
            "Inclusions",
            alter(&|b, _| b.entries[2].index = index(10)),
        ),
        (
            "one proof: an index beyond the tree",
            "Inclusions",
            alter(&|b, _| b.entries[2].index = index(20)),
        ),
        (
            "one proof: the greatest index",
            "Inclusions",
            alter(&|b, _| b.entries[2].index = index((1 << 62) - 2)),
        ),
        (
            "one proof: a node in the place of two leaves",
            "Inclusions",
            {
                let mut bundle = cast.orders(20).bundle_at_once(&[4, 5, 9], &[&cast.log]);
                let node = node_hash(&known(&bundle, 0), &known(&bundle, 1));
                bundle.entries[0].leaf = BundleLeaf::Hash(node);
                bundle.entries.remove(1);
                bundle
            },
        ),
        (
            "one proof: the nodes of a smaller tree",
            "Inclusions",
            alter(&|_, nodes| {
                let before = cast.orders(19).bundle_at_once(&[3, 4, 9], &[&cast.log]);
                *nodes = before.multiproof.unwrap();
            }),
        ),
        (
            "one proof: a label with another key",
            "Contradiction",
            alter(&|b, _| b.entries[2].label = label("public.orders", &[("id", "4")])),
        ),
        (
            "one proof: signed by another key of the same name",
            "NotSignedByLog",
            cast.orders(20).bundle_at_once(&[3, 4], &[&cast.stranger]),
        ),
    ]
}

fn without_path(entry: BundleEntry) -> BundleEntry {
    BundleEntry {
        path: Vec::new(),
        ..entry
    }
}

/// JSON that is not a bundle: edits of one that is.
pub fn malformed_json(cast: &Cast) -> Vec<(&'static str, String)> {
    let log = cast.orders(20);
    let bundle = log.bundle_at_once(&[3, 4], &[&cast.log]);
    let edited = |of: &ProofBundle, change: &dyn Fn(&mut Json)| {
        let mut json: Json = serde_json::from_str(&of.to_json()).unwrap();
        change(&mut json);
        json.to_string()
    };
    let edit = |change: &dyn Fn(&mut Json)| edited(&bundle, change);
    let format = |version: &str| Json::from(format!("merkle_log/proof-bundle@{version}"));
    let with_paths = log.bundle(&[3, 4], &[&cast.log]);
    vec![
        (
            "one proof: paths in version 2",
            edited(&with_paths, &|b| b["format"] = format("v2")),
        ),
        (
            "one proof: an empty path in version 2",
            edit(&|b| b["entries"][0]["path"] = json!([])),
        ),
        (
            "one proof: a path that is null in version 2",
            edit(&|b| b["entries"][0]["path"] = Json::Null),
        ),
        (
            "one proof: no paths in version 1",
            edit(&|b| b["format"] = format("v1")),
        ),
        (
            "one proof: the format as an object",
            edit(&|b| b["format"] = json!({"merkle_log/proof-bundle@v2": null})),
        ),
        ("one proof: of one entry", {
            let one = log.bundle(&[3], &[&cast.log]);
            edited(&one, &|b| {
                b["format"] = format("v2");
                b["entries"][0].as_object_mut().unwrap().remove("path");
            })
        }),
        ("one proof: no entries", edit(&|b| b["entries"] = json!([]))),
        (
            "one proof: entries out of order",
            edit(&|b| b["entries"].as_array_mut().unwrap().reverse()),
        ),
        (
            "one proof: an entry twice",
            edit(&|b| {
                let again = b["entries"][1].clone();
                b["entries"].as_array_mut().unwrap().push(again);
            }),
        ),
        (
            "one proof: an unknown field of an entry",
            edit(&|b| b["entries"][0]["note"] = "text".into()),
        ),
        (
            "one proof: a short node",
            edit(&|b| b["nodes"][0] = "AAAA".into()),
        ),
        (
            "one proof: a node that is null",
            edit(&|b| b["nodes"][0] = Json::Null),
        ),
        (
            "one proof: no nodes at all",
            edit(&|b| {
                b.as_object_mut().unwrap().remove("nodes");
            }),
        ),
        ("one proof: a hub of two entries", {
            let mut hub = Log::of_orders("example.com/hub", 5);
            hub.entries[2] = bundle.checkpoint.to_string().into_bytes();
            let hub = hub.bundle_at_once(&[2, 3], &[&cast.hub]).to_json();
            edit(&|b| b["hub"] = serde_json::from_str(&hub).unwrap())
        }),
    ]
}

/// CBOR that is not the one form of a bundle.
pub fn malformed_cbor(cast: &Cast) -> Vec<(&'static str, Vec<u8>)> {
    let cbor = cast
        .orders(2)
        .bundle_at_once(&[0, 1], &[&cast.log])
        .to_cbor();
    // a4 65 "nodes" 80 66 "format" ...
    assert_eq!((cbor[0], cbor[7]), (0xa4, 0x80));
    vec![
        (
            "one proof: nodes of indefinite length",
            [&cbor[..7], &[0x9f, 0xff], &cbor[8..]].concat(),
        ),
        (
            "one proof: a byte too many",
            [cbor.as_slice(), &[0]].concat(),
        ),
        (
            "one proof: nodes that are a text",
            [&cbor[..7], &[0x60], &cbor[8..]].concat(),
        ),
    ]
}

/// Entries of a tree that nobody has: of the rest only the nodes are made that the proof has.
fn large(cast: &Cast, indexes: &[u64]) -> ProofBundle {
    let mut width: u64 = (1 << 62) - 1;
    let size = TreeSize::new(width).unwrap();
    let leaf = |index: &u64| (*index, leaf_hash(&order(i128::from(*index))));
    let mut known: BTreeMap<u64, Hash> = indexes.iter().map(leaf).collect();
    let mut nodes = Vec::new();
    while width > 1 {
        let mut parents = BTreeMap::new();
        for (node, hash) in &known {
            let sibling = node ^ 1;
            let other = known.get(&sibling).copied();
            let other = match (other, sibling < width) {
                (None, true) => {
                    nodes.push(leaf_hash(&(nodes.len() as u64).to_be_bytes()));
                    nodes.last().copied()
                }
                (other, _) => other,
            };
            let parent = match other {
                None => *hash,
                Some(other) if sibling < *node => node_hash(&other, hash),
                Some(other) => node_hash(hash, &other),
            };
            parents.insert(node / 2, parent);
        }
        known = parents;
        width = width.div_ceil(2);
    }
    let root = known[&0];
    let checkpoint = Checkpoint::new("example.com/log", size, root).unwrap();
    let entry = |index: &u64| BundleEntry {
        index: LeafIndex::new(*index).unwrap(),
        leaf: BundleLeaf::Data(order(i128::from(*index))),
        path: Vec::new(),
        label: None,
    };
    ProofBundle {
        checkpoint: super::super::note(&checkpoint, &[&cast.log], 0),
        entries: indexes.iter().map(entry).collect(),
        multiproof: Some(nodes),
        hub: None,
    }
}
