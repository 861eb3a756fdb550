//! The content of `docs/proof-format-vectors.json`. Keys and trees are fixed, so that it is always the same.

use super::log::{Log, label, row};
use super::{key, witness};
use leaf_format::{Kind, Value};
use serde_json::{Value as Json, json};
use tlog::*;

/// Policies and what they are asked about.
struct Cast {
    log: SigningKey,
    hub: SigningKey,
    stranger: SigningKey,
    witnesses: Vec<SigningKey>,
}

impl Cast {
    fn new() -> Cast {
        Cast {
            log: key("example.com/log", 1),
            hub: key("example.com/hub", 2),
            stranger: key("example.com/log", 3),
            witnesses: (1..=3)
                .map(|n| witness(&format!("witness.example.com/w{n}"), 10 + n))
                .collect(),
        }
    }

    fn policy(&self) -> String {
        format!(
            "log {}\nlog {}\nquorum none\n",
            self.log.verifier_key(),
            self.hub.verifier_key()
        )
    }

    /// Two of three witnesses.
    fn witnessed(&self) -> String {
        let mut policy = format!(
            "log {}\nlog {}\n",
            self.log.verifier_key(),
            self.hub.verifier_key()
        );
        for (number, witness) in (1..).zip(&self.witnesses) {
            policy += &format!("witness w{number} {}\n", witness.verifier_key());
        }
        policy + "group two 2 w1 w2 w3\nquorum two\n"
    }

    fn orders(&self, size: u64) -> Log {
        Log::of_orders("example.com/log", size)
    }

    /// A bundle of the log in a bundle of the hub, whose entry 2 is `carrier`.
    fn in_hub(&self, carrier: impl Fn(&str) -> Vec<u8>) -> ProofBundle {
        let mut bundle = self.orders(20).bundle(&[4], &[&self.log]);
        let mut hub = Log::of_orders("example.com/hub", 5);
        hub.entries[2] = carrier(&bundle.checkpoint.to_string());
        bundle.hub = Some(Box::new(hub.bundle(&[2], &[&self.hub])));
        bundle
    }
}

fn checkpoint_row(kind: Kind) -> impl Fn(&str) -> Vec<u8> {
    move |note| {
        let columns = [
            ("log", Value::Text("log".into())),
            ("checkpoint", Value::Text(note.to_owned().into())),
        ];
        row("public.checkpoints", kind, &columns)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a verifier must find in a bundle.
fn proven(bundle: &ProofBundle) -> Json {
    let checkpoint: Checkpoint = bundle.checkpoint.text().parse().unwrap();
    let entry = |entry: &BundleEntry| {
        let mut found =
            json!({"index": entry.index.to_string(), "leaf_hash": entry.leaf.hash().to_string()});
        if let BundleLeaf::Data(data) = &entry.leaf {
            found["leaf_data"] = hex(data).into();
        }
        found
    };
    let mut found = json!({
        "origin": checkpoint.origin(),
        "size": checkpoint.size().to_string(),
        "root": checkpoint.root().to_string(),
        "entries": bundle.entries.iter().map(entry).collect::<Vec<_>>(),
    });
    if let Some(hub) = &bundle.hub {
        found["hub"] = proven(hub);
    }
    found
}

fn good(cast: &Cast) -> Vec<Json> {
    let mut bundles = Vec::new();
    let mut push = |name: &str, policy: &str, bundle: ProofBundle| {
        bundles.push((name.to_owned(), policy.to_owned(), bundle))
    };
    let (log, plain) = (&cast.log, cast.policy());
    push(
        "one row, the only entry",
        &plain,
        cast.orders(1).bundle(&[0], &[log]),
    );
    push(
        "one row of seven",
        &plain,
        cast.orders(7).bundle(&[5], &[log]),
    );
    push(
        "the last of seven",
        &plain,
        cast.orders(7).bundle(&[6], &[log]),
    );
    push(
        "many rows, nodes shared, two tile levels",
        &plain,
        cast.orders(600).bundle(&[0, 1, 255, 256, 599], &[log]),
    );
    let mut labelled = cast.orders(20).bundle(&[3, 4], &[log]);
    labelled.entries[0].label = label("public.orders", &[("id", "3")]);
    labelled.entries[1].label = label("public.orders", &[("id", "4"), ("note", "any text")]);
    push("rows with labels", &plain, labelled.clone());
    for entry in &mut labelled.entries {
        entry.leaf = BundleLeaf::Hash(entry.leaf.hash());
    }
    push("rows that are withheld", &plain, labelled);
    let mut foreign = cast.orders(9);
    foreign.entries[8] = b"not CBOR of format 1".to_vec();
    foreign.entries[2] = Vec::new();
    push(
        "leaf data of another format, and empty",
        &plain,
        foreign.bundle(&[2, 8], &[log]),
    );
    let [one, two, _] = &cast.witnesses[..] else {
        unreachable!()
    };
    push(
        "cosigned by two witnesses of three",
        &cast.witnessed(),
        cast.orders(7).bundle(&[5], &[log, one, two]),
    );
    push(
        "signatures of strangers are ignored",
        &plain,
        cast.orders(7)
            .bundle(&[5], &[log, &key("other.example.com", 9), one]),
    );
    push(
        "row, log, hub",
        &plain,
        cast.in_hub(checkpoint_row(Kind::Insert)),
    );
    push(
        "a hub whose entries are checkpoints without signatures",
        &plain,
        cast.in_hub(|note| {
            note.parse::<SignedNote>()
                .unwrap()
                .text()
                .as_bytes()
                .to_vec()
        }),
    );
    bundles
        .into_iter()
        .map(|(name, policy, bundle)| {
            let proofs = bundle
                .entries
                .iter()
                .map(|entry| bundle.tlog_proof(entry).to_string());
            json!({
                "name": name,
                "policy": policy,
                "json": bundle.to_json(),
                "cbor": hex(&bundle.to_cbor()),
                "tlog_proofs": proofs.collect::<Vec<_>>(),
                "proven": proven(&bundle),
            })
        })
        .collect()
}

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
            alter(&|b| b.entries[0].leaf = BundleLeaf::Data(super::log::order(5))),
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
            cast.in_hub(|_| super::log::order(1)),
        ),
        ("the hub's entry is withheld", "Contradiction", withheld),
        ("the hub is not known", "NotSignedByLog", {
            let mut bundle = cast.in_hub(checkpoint_row(Kind::Insert));
            let hub = bundle.hub.as_mut().unwrap();
            hub.checkpoint = super::note(&hub.checkpoint.text().parse().unwrap(), &[log], 0);
            bundle
        }),
        ("the hub's proof is false", "Inclusion", {
            let mut bundle = cast.in_hub(checkpoint_row(Kind::Insert));
            bundle.hub.as_mut().unwrap().entries[0].path.reverse();
            bundle
        }),
        ("the log below a hub has not signed", "NotSignedByLog", {
            let mut bundle = cast.in_hub(checkpoint_row(Kind::Insert));
            bundle.checkpoint = super::note(
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
            edit(&|b| b["format"] = "merkle_log/proof-bundle@v2".into()),
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
    ]
}

fn bad(cast: &Cast) -> Vec<Json> {
    let policy = cast.policy();
    let mut vectors = Vec::new();
    for (name, error, bundle) in false_bundles(cast) {
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
    for (name, text) in malformed_json(cast) {
        vectors.push(json!({"name": name, "policy": policy, "error": "ProofBundle", "json": text}));
    }
    for (name, cbor) in malformed_cbor(cast) {
        vectors.push(
            json!({"name": name, "policy": policy, "error": "ProofBundle", "cbor": hex(&cbor)}),
        );
    }
    vectors
}

fn consistency(cast: &Cast) -> (Vec<Json>, Vec<Json>) {
    let (log, policy) = (&cast.log, cast.policy());
    let mut good = Vec::new();
    for (old, new) in [
        (1, 1),
        (1, 2),
        (3, 7),
        (4, 7),
        (6, 7),
        (7, 7),
        (0, 7),
        (256, 600),
        (255, 257),
    ] {
        let bundle = cast.orders(new).consistency(old, &[log]);
        good.push(json!({
            "name": format!("{old} to {new}"), "policy": policy, "json": bundle.to_json(), "cbor": hex(&bundle.to_cbor()),
            "old_size": old.to_string(), "new_size": new.to_string(),
        }));
    }
    let bundle = cast.orders(20).consistency(6, &[log]);
    let alter = |change: &dyn Fn(&mut ConsistencyBundle)| {
        let mut bundle = bundle.clone();
        change(&mut bundle);
        bundle
    };
    let mut forked = cast.orders(20);
    forked.entries[3] = b"another".to_vec();
    let rewritten = forked.consistency(6, &[log]);
    let bad = [
        (
            "history rewritten",
            "Consistency",
            alter(&|b| b.new = rewritten.new.clone()),
        ),
        (
            "history rewritten, with the new proof",
            "Consistency",
            alter(&|b| {
                b.new = rewritten.new.clone();
                b.path = rewritten.path.clone();
            }),
        ),
        (
            "two roots of one size",
            "Fork",
            alter(&|b| {
                b.old = rewritten.new.clone();
                b.path = Vec::new();
            }),
        ),
        (
            "the sizes reversed",
            "Consistency",
            alter(&|b| std::mem::swap(&mut b.old, &mut b.new)),
        ),
        (
            "a node is missing",
            "Consistency",
            alter(&|b| {
                b.path.pop();
            }),
        ),
        (
            "a node too many",
            "Consistency",
            alter(&|b| b.path.push(merkle_tree::EMPTY_ROOT)),
        ),
        (
            "another node",
            "Consistency",
            alter(&|b| b.path[0] = merkle_tree::EMPTY_ROOT),
        ),
        (
            "the older checkpoint is a stranger's",
            "NotSignedByLog",
            alter(&|b| b.old = cast.orders(6).signed(&[&cast.stranger])),
        ),
        (
            "the newer checkpoint is a stranger's",
            "NotSignedByLog",
            alter(&|b| b.new = cast.orders(20).signed(&[&cast.stranger])),
        ),
        (
            "checkpoints of two logs",
            "Contradiction",
            alter(&|b| b.old = Log::of_orders("example.com/hub", 6).signed(&[&cast.hub])),
        ),
    ];
    let bad = bad.iter().map(|(name, error, bundle)| {
        json!({"name": name, "policy": policy, "error": error, "json": bundle.to_json(), "cbor": hex(&bundle.to_cbor())})
    });
    (good, bad.collect())
}

/// The whole file.
pub fn vectors() -> Json {
    let cast = Cast::new();
    let (good_consistency, bad_consistency) = consistency(&cast);
    json!({
        "bundles": good(&cast),
        "bad_bundles": bad(&cast),
        "consistency": good_consistency,
        "bad_consistency": bad_consistency,
    })
}

/// One vector a line.
pub fn file() -> String {
    let vectors = vectors();
    let groups = vectors.as_object().unwrap().iter().map(|(name, group)| {
        let lines: Vec<_> = group
            .as_array()
            .unwrap()
            .iter()
            .map(Json::to_string)
            .collect();
        format!("\"{name}\": [\n{}\n]", lines.join(",\n"))
    });
    format!("{{\n{}\n}}\n", groups.collect::<Vec<_>>().join(",\n"))
}
