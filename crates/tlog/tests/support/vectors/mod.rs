//! The content of `docs/proof-format-vectors.json`. Keys and trees are fixed, so that it is always the same.

mod absence;
mod bad;
mod multiproof;
mod strict;

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
    let others = strict::good(cast).into_iter().chain(multiproof::good(cast));
    bundles.extend(others.map(|(name, bundle)| (name.to_owned(), plain.clone(), bundle)));
    bundles
        .into_iter()
        .map(|(name, policy, bundle)| {
            let proofs = bundle
                .entries
                .iter()
                .filter_map(|entry| Some(bundle.tlog_proof(entry)?.to_string()));
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
    let malformed = strict::bad_consistency(cast).into_iter().map(
        |(name, error, text)| json!({"name": name, "policy": policy, "error": error, "json": text}),
    );
    (good, bad.chain(malformed).collect())
}

fn bad_absence(cast: &Cast) -> Vec<Json> {
    let policy = cast.policy();
    let disproven = absence::disproven(cast).into_iter().map(|(name, error, proof)| {
        json!({"name": name, "policy": policy, "error": error, "json": proof.to_json(), "cbor": hex(&proof.to_cbor())})
    });
    let malformed = absence::malformed(cast).into_iter().map(
        |(name, text)| json!({"name": name, "policy": policy, "error": "ProofBundle", "json": text}),
    );
    disproven.chain(malformed).collect()
}

/// The whole file.
pub fn vectors() -> Json {
    let cast = Cast::new();
    let (good_consistency, bad_consistency) = consistency(&cast);
    json!({
        "bundles": good(&cast),
        "bad_bundles": bad::bad(&cast),
        "consistency": good_consistency,
        "bad_consistency": bad_consistency,
        "absence": absence::good(&cast),
        "bad_absence": bad_absence(&cast),
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
