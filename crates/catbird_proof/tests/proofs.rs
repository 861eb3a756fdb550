//! Proofs over logs made here, and what is done to them on the way.

use catbird_proof::{Consistency, Error, KeyPackage, LogView, Message, Proof, TreeHead};
use leaf_format::{Context, Encoder, Kind, Value};
use merkle_tree::{Frontier, Hash, HashReader, LeafIndex, TileId, TreeSize, leaf_hash};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use uuid::Uuid;

/// A log of fewer than 256 entries: one tile.
#[derive(Clone)]
struct Log(Vec<Vec<u8>>);

struct Tile(Vec<Hash>);

impl HashReader for Tile {
    type Error = Infallible;
    fn read(&mut self, tile: TileId, first: u8, count: u16) -> Result<Vec<Hash>, Infallible> {
        assert_eq!(tile, TileId { level: 0, index: 0 });
        Ok(self.0[first as usize..][..count as usize].to_vec())
    }
}

impl Log {
    fn tile(&self) -> Tile {
        Tile(self.0.iter().map(|data| leaf_hash(data)).collect())
    }

    fn head(&self, size: usize) -> TreeHead {
        let mut frontier = Frontier::default();
        for data in &self.0[..size] {
            frontier.push(leaf_hash(data)).unwrap();
        }
        TreeHead {
            log: "log".into(),
            tree_size: size as u64,
            root: *frontier.root().as_bytes(),
        }
    }

    fn proof(&self, index: usize) -> Proof {
        let (leaf, size) = (
            LeafIndex::new(index as u64),
            TreeSize::new(self.0.len() as u64),
        );
        let path = merkle_tree::inclusion_proof(&mut self.tile(), leaf.unwrap(), size.unwrap());
        Proof {
            leaf_data: self.0[index].clone(),
            leaf_index: index as u64,
            path: bytes(&path.unwrap()),
            head: self.head(self.0.len()),
        }
    }

    fn consistency(&self, old: usize, new: usize) -> Consistency {
        let size = |n: usize| TreeSize::new(n as u64).unwrap();
        let path = merkle_tree::consistency_proof(&mut self.tile(), size(old), size(new));
        Consistency {
            old: self.head(old),
            new: self.head(new),
            path: bytes(&path.unwrap()),
        }
    }
}

fn bytes(path: &[Hash]) -> Vec<[u8; 32]> {
    path.iter().map(|hash| *hash.as_bytes()).collect()
}

const CONVO: Uuid = Uuid::from_u128(1);

fn message(n: u64) -> Message<'static> {
    Message {
        convo_id: CONVO,
        id: Uuid::from_u128(u128::from(n)),
        sender: "did:plc:alice",
        message_type: "app",
        epoch: 3,
        ciphertext: b"sealed",
        sent_at: 1_700_000_000_000_000 + n as i64,
    }
}

fn message_leaf(message: &Message, table: &str, kind: Kind) -> Vec<u8> {
    let columns = [
        "convo_id",
        "id",
        "sender",
        "message_type",
        "epoch",
        "digest",
        "sent_at",
    ];
    let digest = Sha256::digest(message.ciphertext).to_vec();
    let values = [
        Value::Uuid(message.convo_id.into_bytes()),
        Value::Uuid(message.id.into_bytes()),
        Value::Text(message.sender.into()),
        Value::Text(message.message_type.into()),
        Value::Int(message.epoch.into()),
        Value::Bytes(digest.into()),
        Value::Int(message.sent_at.into()),
    ];
    encode(table, kind, &columns, &values)
}

fn package_leaf(package: &KeyPackage, kind: Kind, consumed_at: Value) -> Vec<u8> {
    let columns = [
        "did",
        "id",
        "cipher_suite",
        "digest",
        "last_resort",
        "expires_at",
        "consumed_at",
    ];
    let values = [
        Value::Text(package.did.into()),
        Value::Int(1),
        Value::Int(package.cipher_suite.into()),
        Value::Bytes(Sha256::digest(package.key_data).to_vec().into()),
        Value::Bool(false),
        Value::Int(99),
        consumed_at,
    ];
    encode("public.key_packages", kind, &columns, &values)
}

fn encode(table: &str, kind: Kind, columns: &[&str], values: &[Value]) -> Vec<u8> {
    let mut leaf = Vec::new();
    let encoder = Encoder::new(table, kind, columns).unwrap();
    encoder
        .encode(values, &Context::default(), &mut leaf)
        .unwrap();
    leaf
}

fn log_of(n: u64) -> Log {
    let leaf = |i| message_leaf(&message(i), "public.messages", Kind::Insert);
    Log((0..n).map(leaf).collect())
}

#[test]
fn every_message_of_a_log_is_proven_and_no_other() {
    let log = log_of(20);
    for n in 0..20 {
        let proof = log.proof(n as usize);
        assert_eq!(proof.verify_message(&message(n)), Ok(()));
        let json = serde_json::to_string(&proof).unwrap();
        assert_eq!(serde_json::from_str::<Proof>(&json).unwrap(), proof);
        let m = message(n);
        for (column, other) in [
            (
                "convo_id",
                Message {
                    convo_id: Uuid::nil(),
                    ..m
                },
            ),
            ("id", message(n + 1)),
            (
                "sender",
                Message {
                    sender: "did:plc:mallory",
                    ..m
                },
            ),
            (
                "message_type",
                Message {
                    message_type: "commit",
                    ..m
                },
            ),
            ("epoch", Message { epoch: 4, ..m }),
            ("sent_at", Message { sent_at: 0, ..m }),
            (
                "digest",
                Message {
                    ciphertext: b"forged",
                    ..m
                },
            ),
        ] {
            assert_eq!(proof.verify_message(&other), Err(Error::Differs { column }));
        }
    }
}

#[test]
fn an_entry_of_another_table_or_kind_is_no_message() {
    let m = message(0);
    for leaf in [
        message_leaf(&m, "public.drafts", Kind::Insert),
        message_leaf(&m, "public.messages", Kind::Delete),
    ] {
        let proof = Log(vec![leaf]).proof(0);
        assert!(matches!(
            proof.verify_message(&m),
            Err(Error::Subject { .. })
        ));
    }
}

#[test]
fn a_key_package_says_whether_it_was_given_out_and_a_deleted_or_forged_one_is_refused() {
    let package = KeyPackage {
        did: "did:plc:bob",
        cipher_suite: 1,
        key_data: b"package",
    };
    let forged = KeyPackage {
        key_data: b"mallory's",
        ..package
    };
    let log = Log(vec![
        package_leaf(&package, Kind::Insert, Value::Null),
        package_leaf(&package, Kind::Update, Value::Int(7)),
        package_leaf(&package, Kind::Delete, Value::Int(7)),
    ]);
    let entry = |n: usize| log.proof(n).verify_key_package(&package);
    assert_eq!(entry(0).unwrap().consumed_at, None);
    assert_eq!(entry(1).unwrap().consumed_at, Some(7));
    assert!(matches!(entry(2), Err(Error::Subject { .. })));
    let refused = log.proof(0).verify_key_package(&forged);
    assert_eq!(refused, Err(Error::Differs { column: "digest" }));
}

#[test]
fn a_view_moves_along_one_log_only() {
    let log = log_of(20);
    let mut view = LogView::new(log.head(5));
    view.advance(&log.consistency(5, 12)).unwrap();
    view.advance(&log.consistency(12, 12)).unwrap();
    assert_eq!(
        view.accept(&log.head(5)),
        Err(Error::WentBack {
            known: 12,
            found: 5
        })
    );
    assert_eq!(
        view.accept(&log.head(20)),
        Err(Error::Unconnected {
            known: 12,
            found: 20
        })
    );

    // Another log of the same size: what a server that shows two faces would have.
    let mut other = log.clone();
    other.0[3] = b"rewritten".to_vec();
    assert_eq!(
        view.accept(&other.head(12)),
        Err(Error::SplitView { size: 12 })
    );
    assert_eq!(
        view.advance(&other.consistency(12, 20)),
        Err(Error::SplitView { size: 12 })
    );
    let glued = Consistency {
        new: other.head(20),
        ..log.consistency(12, 20)
    };
    assert!(matches!(view.advance(&glued), Err(Error::Proof(_))));
    let elsewhere = TreeHead {
        log: "another".into(),
        ..log.head(12)
    };
    assert!(matches!(view.accept(&elsewhere), Err(Error::Log { .. })));
    assert_eq!(view.head(), &log.head(12));
}

/// The proof of the only entry of a log holds, whatever bytes the server chose to hash.
#[test]
fn an_entry_in_other_bytes_than_the_canonical_ones_is_refused() {
    let canonical = log_of(1).0.remove(0);
    assert_eq!(canonical[..2], [0x84, 0x01], "four elements, format 1");
    let mut without_length = vec![0x9f];
    without_length.extend(&canonical[1..]);
    without_length.push(0xff);
    let mut longer_number = vec![0x84, 0x18, 0x01];
    longer_number.extend(&canonical[2..]);
    let mut empty_context = canonical.clone();
    empty_context[0] = 0x85;
    empty_context.push(0xa0);
    for bytes in [without_length, longer_number, empty_context] {
        let proof = Log(vec![bytes]).proof(0);
        assert!(
            matches!(proof.verify_message(&message(0)), Err(Error::Leaf(_))),
            "{:02x?}",
            proof.leaf_data
        );
    }
}

proptest! {
    #[test]
    fn a_proof_with_any_bit_flipped_is_refused(n in 1u64..40, at in any::<prop::sample::Index>(), bit in 0..8) {
        let log = log_of(n);
        let index = at.index(n as usize);
        let good = log.proof(index);
        let mut flips: Vec<Proof> = Vec::new();
        let mut flip = |change: &dyn Fn(&mut Proof)| { let mut bad = good.clone(); change(&mut bad); flips.push(bad); };
        let mask = 1u8 << bit;
        flip(&|p| { let at = at.index(p.leaf_data.len()); p.leaf_data[at] ^= mask });
        flip(&|p| p.head.root[at.index(32)] ^= mask);
        flip(&|p| p.leaf_index ^= u64::from(mask));
        flip(&|p| p.path.push([0; 32]));
        if !good.path.is_empty() {
            flip(&|p| { let at = at.index(p.path.len()); p.path[at][0] ^= mask });
            flip(&|p| { p.path.pop(); });
        }
        for bad in flips {
            prop_assert!(bad.verify_message(&message(index as u64)).is_err());
        }
    }

    #[test]
    fn bytes_from_anywhere_are_refused_and_panic_nowhere(
        leaf_data in prop::collection::vec(any::<u8>(), 0..200), leaf_index in any::<u64>(), tree_size in any::<u64>(),
        path in prop::collection::vec(any::<[u8; 32]>(), 0..70), root in any::<[u8; 32]>(),
    ) {
        let head = TreeHead { log: "log".into(), tree_size, root };
        let proof = Proof { leaf_data: leaf_data.clone(), leaf_index, path: path.clone(), head: head.clone() };
        prop_assert!(proof.verify_message(&message(0)).is_err());
        // The same bytes where the path holds, so that the decoder gets to see them.
        let alone = Log(vec![leaf_data]).proof(0);
        prop_assert!(alone.verify_message(&message(0)).is_err());
        let old = TreeHead { tree_size: leaf_index, ..head.clone() };
        let _ = Consistency { old, new: head, path }.verify();
    }
}
