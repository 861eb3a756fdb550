//! What a reader believes that is less strict than the format, and what is just within it.

use super::super::log::{Log, label, order};
use super::super::{key, witness};
use super::{Cast, checkpoint_row};
use leaf_format::Kind;
use merkle_tree::{Hash, LeafIndex, leaf_hash, node_hash};
use tlog::*;

/// A bundle of two rows, one with a label, whose leaf data are withheld: nothing else contradicts a label.
fn labelled(cast: &Cast) -> String {
    let mut bundle = cast.orders(20).bundle(&[3, 4], &[&cast.log]);
    bundle.entries[0].label = label("public.orders", &[("id", "3")]);
    for entry in &mut bundle.entries {
        entry.leaf = BundleLeaf::Hash(entry.leaf.hash());
    }
    bundle.to_json()
}

/// Names, and what takes the place of what in the JSON of [`labelled`].
const EDITS: &[(&str, &str, &str)] = &[
    (
        "the format twice",
        "{",
        r#"{"format":"merkle_log/proof-bundle@v1","#,
    ),
    (
        "the format twice, the first another",
        "{",
        r#"{"format":"merkle_log/proof-bundle@v2","#,
    ),
    (
        "the entries twice, the first none",
        "{",
        r#"{"entries":[],"#,
    ),
    (
        "an index twice",
        r#""index":"3""#,
        r#""index":"9","index":"3""#,
    ),
    (
        "an index twice, once with an escape",
        r#""index":"3""#,
        r#""index":"9","inde\u0078":"3""#,
    ),
    ("a field's name in capitals", r#""format""#, r#""FORMAT""#),
    (
        "a field of an entry with a capital",
        r#""index":"3""#,
        r#""Index":"3""#,
    ),
    ("an index that is null", r#""index":"3""#, r#""index":null"#),
    ("an index as a list", r#""index":"3""#, r#""index":["3"]"#),
    ("an index with a sign", r#""index":"3""#, r#""index":"+3""#),
    (
        "an index with a newline",
        r#""index":"3""#,
        r#""index":"3\n""#,
    ),
    (
        "an index in digits of another script",
        r#""index":"3""#,
        "\"index\":\"\u{663}\"",
    ),
    (
        "a place that is true",
        r#""path":[0,1,"#,
        r#""path":[0,true,"#,
    ),
    (
        "a place that is false",
        r#""path":[0,1,"#,
        r#""path":[false,1,"#,
    ),
    (
        "a place that is null",
        r#""path":[0,1,"#,
        r#""path":[null,1,"#,
    ),
    (
        "a place with a fraction",
        r#""path":[0,1,"#,
        r#""path":[0,1.0,"#,
    ),
    (
        "a place with an exponent",
        r#""path":[0,1,"#,
        r#""path":[0,1e0,"#,
    ),
    (
        "a place that is minus zero",
        r#""path":[0,1,"#,
        r#""path":[-0,1,"#,
    ),
    (
        "a place that is a text",
        r#""path":[0,1,"#,
        r#""path":[0,"1","#,
    ),
    (
        "a place that is a list",
        r#""path":[0,1,"#,
        r#""path":[0,[1],"#,
    ),
    (
        "a place from the end",
        r#""path":[0,1,"#,
        r#""path":[0,-1,"#,
    ),
    (
        "a place beyond 32 bits",
        r#""path":[0,1,"#,
        r#""path":[0,4294967297,"#,
    ),
    (
        "a place beyond 64 bits",
        r#""path":[0,1,"#,
        r#""path":[0,18446744073709551617,"#,
    ),
    (
        "a place with a leading zero",
        r#""path":[0,1,"#,
        r#""path":[0,01,"#,
    ),
    (
        "a leaf hash that is null",
        r#""leaf_hash":"#,
        r#""leaf_data":null,"leaf_hash":"#,
    ),
    (
        "a source that is null",
        r#""source":"public.orders""#,
        r#""source":null"#,
    ),
    (
        "a source that is a number",
        r#""source":"public.orders""#,
        r#""source":7"#,
    ),
    (
        "a source that is half a character",
        r#""source":"public.orders""#,
        r#""source":"\ud800""#,
    ),
    ("a key that is null", r#"[["id","3"]]"#, "null"),
    (
        "a key that is an object",
        r#"[["id","3"]]"#,
        r#"{"id":"3"}"#,
    ),
    ("a key that is a text", r#"[["id","3"]]"#, r#""id""#),
    ("a key of texts", r#"[["id","3"]]"#, r#"["id"]"#),
    (
        "a key column without a value",
        r#"[["id","3"]]"#,
        r#"[["id"]]"#,
    ),
    (
        "a key column with two values",
        r#"[["id","3"]]"#,
        r#"[["id","3","4"]]"#,
    ),
    (
        "a key column whose value is a number",
        r#"[["id","3"]]"#,
        r#"[["id",3]]"#,
    ),
    (
        "a key column whose value is null",
        r#"[["id","3"]]"#,
        r#"[["id",null]]"#,
    ),
    (
        "a key column whose value is true",
        r#"[["id","3"]]"#,
        r#"[["id",true]]"#,
    ),
    ("a key column that is null", r#"[["id","3"]]"#, "[null]"),
    (
        "a key column whose name is a number",
        r#"[["id","3"]]"#,
        r#"[[1,"3"]]"#,
    ),
    (
        "a key column of halves of characters",
        r#"[["id","3"]]"#,
        r#"[["\udfff","3"]]"#,
    ),
    ("a mark of the byte order before it", "{", "\u{feff}{"),
    ("a comment", "{", "/* */ {"),
    (
        "a comma too many",
        "}],\"checkpoint\"",
        "},],\"checkpoint\"",
    ),
];

/// Bundles that must be refused, as JSON, with the error.
pub fn bad(cast: &Cast) -> Vec<(String, &'static str, String)> {
    let json = labelled(cast);
    let edited = |(name, from, to): &(&str, &str, &str)| {
        assert!(json.contains(from), "{name}: {from}");
        let edited = json.replacen(from, to, 1);
        (name.to_string(), "ProofBundle", edited)
    };
    let mut bad: Vec<_> = EDITS.iter().map(edited).collect();
    let mut push = |name: &str, error, json| bad.push((name.to_owned(), error, json));
    push("a bundle twice", "ProofBundle", json.repeat(2));
    push("a list of a bundle", "ProofBundle", format!("[{json}]"));
    push("nodes as an object", "ProofBundle", nodes_as_object(cast));
    push("101 signatures", "ProofBundle", signatures(cast, 101));
    push(
        "a signature whose name has a space of another kind",
        "ProofBundle",
        stranger(cast, "a\u{a0}b"),
    );
    push("nine levels", "ProofBundle", nested(cast, MAX_LEVELS + 1));
    let two = &[2, 3];
    push("two entries of a hub", "ProofBundle", {
        let mut bundle = cast.in_hub(checkpoint_row(Kind::Insert));
        let hub = Log::of_orders("example.com/hub", 5);
        bundle.hub = Some(Box::new(hub.bundle(two, &[&cast.hub])));
        bundle.to_json()
    });
    push(
        "a tree beyond the largest",
        "Checkpoint",
        large(cast, 1 << 62, 0),
    );
    push(
        "an index beyond the largest tree, in a larger one",
        "ProofBundle",
        {
            let beyond = large(cast, 1 << 62, (1 << 62) - 2);
            beyond.replace("4611686018427387902", "4611686018427387903")
        },
    );
    for (name, after) in HELD {
        let carrier = |note: &str| [text_of(note).as_bytes(), after.as_bytes()].concat();
        push(name, "Contradiction", cast.in_hub(carrier).to_json());
        let carrier = |note: &str| checkpoint_row(Kind::Insert)(&(text_of(note) + after));
        let name = format!("{name}, in a row");
        push(&name, "Contradiction", cast.in_hub(carrier).to_json());
    }
    push(
        "a label with an integer of fifty digits",
        "Contradiction",
        {
            let mut bundle = cast.orders(20).bundle(&[3], &[&cast.log]);
            bundle.entries[0].label = label("public.orders", &[("id", &"3".repeat(50))]);
            bundle.to_json()
        },
    );
    push(
        "the hub's entry has a context that is none",
        "Contradiction",
        cast.in_hub(with_context_of_bytes).to_json(),
    );
    bad
}

/// Leaf data of format 1, but that the context is bytes.
fn with_context_of_bytes(note: &str) -> Vec<u8> {
    let mut leaf = checkpoint_row(Kind::Insert)(note);
    assert_eq!(leaf[0], 0x84);
    leaf[0] = 0x85;
    leaf.extend(b"\x44salt");
    leaf
}

/// Consistency proofs that must be refused, as JSON, with the error.
pub fn bad_consistency(cast: &Cast) -> Vec<(&'static str, &'static str, String)> {
    let json = cast.orders(7).consistency(3, &[&cast.log]).to_json();
    let edit = |from: &str, to: &str| {
        assert!(json.contains(from), "{from}");
        json.replacen(from, to, 1)
    };
    let format = |edited| ("ProofBundle", edited);
    let large = |size: u64| {
        let large = ProofBundle::from_json(large(cast, (1 << 62) - 1, 0).as_bytes()).unwrap();
        let text = large
            .checkpoint
            .text()
            .replace(&((1u64 << 62) - 1).to_string(), &size.to_string());
        let mut note = SignedNote::new(&text).unwrap();
        note.sign(&cast.log, 0).unwrap();
        ConsistencyBundle {
            old: note.clone(),
            new: note,
            path: Vec::new(),
        }
        .to_json()
    };
    let (before, path) = json.split_once(r#""path":[""#).unwrap();
    let (first, after) = path.split_once(r#"","#).unwrap();
    let (_, after) = after.split_once(']').unwrap();
    let object = format!(r#"{before}"path":{{"{first}":0}}{after}"#);
    [
        (
            "the format twice",
            format(edit("{", r#"{"format":"merkle_log/consistency@v1","#)),
        ),
        (
            "the older checkpoint twice",
            format(edit("{", r#"{"old":"","#)),
        ),
        (
            "a field's name with a capital",
            format(edit(r#""path""#, r#""Path""#)),
        ),
        ("an unknown field", format(edit("{", r#"{"note":"","#))),
        (
            "a path that is null",
            format(edit(r#""path":["#, r#""path":null,"way":["#)),
        ),
        (
            "a node that is null",
            format(edit(r#""path":["#, r#""path":[null,"#)),
        ),
        ("a path that is an object", format(object)),
        ("a comma too many", format(edit("],", ",],"))),
        (
            "the format of a bundle",
            format(edit("consistency@v1", "proof-bundle@v1")),
        ),
        ("a tree beyond the largest", ("Checkpoint", large(1 << 62))),
    ]
    .map(|(name, (error, json))| (name, error, json))
    .into()
}

/// What follows a checkpoint's text in a hub's entry, and is neither nothing nor signatures.
const HELD: &[(&str, &str)] = &[
    ("the hub's entry goes on after the checkpoint", "\nmore"),
    (
        "the hub's entry has a line that is no signature",
        "\nmore\n",
    ),
    ("the hub's entry has a blank line and no signature", "\n"),
    ("the hub's entry has another line", "more\n"),
];

/// Bundles at the limits of the format.
pub fn good(cast: &Cast) -> Vec<(&'static str, ProofBundle)> {
    let parsed = |json: String| ProofBundle::from_json(json.as_bytes()).unwrap();
    let mut foreign = cast.orders(9);
    foreign.entries[1] = b"\xa1\x00\x01".to_vec();
    foreign.entries[2] = b"\x44\x01abc".to_vec();
    foreign.entries[3] = [b"\x9b".as_slice(), &[0xff; 8]].concat();
    foreign.entries[4] = vec![0x81; 1000];
    let mut foreign = foreign.bundle(&[1, 2, 3, 4], &[&cast.log]);
    for entry in &mut foreign.entries {
        entry.label = label("public.orders", &[("id", "3")]);
    }
    vec![
        (
            "leaf data that are CBOR of another form, with labels",
            foreign,
        ),
        ("a hundred signatures", parsed(signatures(cast, 100))),
        ("eight levels", parsed(nested(cast, MAX_LEVELS))),
        (
            "the last entry of the largest tree",
            parsed(large(cast, (1 << 62) - 1, (1 << 62) - 2)),
        ),
    ]
}

fn text_of(note: &str) -> String {
    note.parse::<SignedNote>().unwrap().text().to_owned()
}

fn nodes_as_object(cast: &Cast) -> String {
    let json = cast.orders(2).bundle(&[1], &[&cast.log]).to_json();
    let (before, nodes) = json.split_once(r#""nodes":["#).unwrap();
    let (node, after) = nodes.split_once(']').unwrap();
    format!(r#"{before}"nodes":{{{node}:0}}{after}"#)
}

/// A checkpoint with the log's signature and those of strangers.
fn signatures(cast: &Cast, count: usize) -> String {
    let mut bundle = cast.orders(7).bundle(&[5], &[&cast.log]);
    let text = bundle.checkpoint.text().to_owned();
    for n in 1..count.min(MAX_SIGNATURES) {
        let stranger = witness(&format!("witness.example.com/stranger-{n}"), n as u8);
        bundle.checkpoint.sign(&stranger, 0).unwrap();
    }
    match count > MAX_SIGNATURES {
        false => bundle.to_json(),
        true => with_line(&bundle, &key("one.example.com/more", 7), &text),
    }
}

/// The JSON of a bundle whose checkpoint has one more signature line.
fn with_line(bundle: &ProofBundle, signer: &SigningKey, text: &str) -> String {
    let mut one = SignedNote::new(text).unwrap();
    one.sign(signer, 0).unwrap();
    let line = one.signatures()[0].to_string();
    let json = bundle.to_json();
    let end = json
        .rfind(r#"\n"}"#)
        .expect("the checkpoint is the last field");
    format!(r"{}\n{line}{}", &json[..end], &json[end..])
}

fn stranger(cast: &Cast, name: &str) -> String {
    let bundle = cast.orders(7).bundle(&[5], &[&cast.log]);
    let json = with_line(&bundle, &key("NAME", 7), bundle.checkpoint.text());
    json.replace("NAME", name)
}

/// Bundles in each other: the hub's log is the log itself, one entry larger at each level.
fn nested(cast: &Cast, levels: usize) -> String {
    let mut bundle = cast.orders(2).bundle(&[1], &[&cast.log]);
    let mut chain = vec![bundle.clone()];
    for level in 1..levels {
        let mut hub = cast.orders(2 + level as u64);
        let text = bundle.checkpoint.text().as_bytes().to_vec();
        hub.entries[1] = text;
        bundle = hub.bundle(&[1], &[&cast.log]);
        chain.push(bundle.clone());
    }
    let into_hub = |hub: Option<Box<ProofBundle>>, below: ProofBundle| {
        Some(Box::new(ProofBundle { hub, ..below }))
    };
    let whole = chain.into_iter().rev().fold(None, into_hub);
    whole.unwrap().to_json()
}

/// A tree that nobody has, of which only the way from one leaf to the root is known.
fn large(cast: &Cast, size: u64, index: u64) -> String {
    let leaf = order(1);
    let (mut at, mut last) = (index, size - 1);
    let mut path: Vec<Hash> = Vec::new();
    let mut root = leaf_hash(&leaf);
    while last > 0 {
        let sibling = leaf_hash(&(path.len() as u64).to_be_bytes());
        let is_right = at & 1 == 1;
        if is_right || at != last {
            root = match is_right {
                true => node_hash(&sibling, &root),
                false => node_hash(&root, &sibling),
            };
            path.push(sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    let text = format!(
        "example.com/log\n{size}\n{root64}\n",
        root64 = base64(&root)
    );
    let mut checkpoint = SignedNote::new(&text).unwrap();
    checkpoint.sign(&cast.log, 0).unwrap();
    let entry = BundleEntry {
        index: LeafIndex::new(index).unwrap(),
        leaf: BundleLeaf::Data(leaf),
        path,
        label: None,
    };
    ProofBundle {
        checkpoint,
        entries: vec![entry],
        multiproof: None,
        hub: None,
    }
    .to_json()
}

fn base64(hash: &Hash) -> String {
    let note = Checkpoint::new("x", merkle_tree::TreeSize::new(1).unwrap(), *hash).unwrap();
    note.to_string().lines().nth(2).unwrap().to_owned()
}
