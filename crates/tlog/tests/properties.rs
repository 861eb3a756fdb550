//! What holds for every value: encoding and decoding are inverse, and no bytes make a decoder panic.

mod support;

use proptest::prelude::*;
use support::key;
use tlog::*;

/// Text that a note may have.
fn note_text() -> impl Strategy<Value = String> {
    "([^\\x00-\\x1f]{0,12}\n){1,6}"
}

fn key_name() -> impl Strategy<Value = String> {
    "[a-z0-9./é→-]{1,20}"
}

proptest! {
    #[test]
    fn notes_are_read_as_they_were_written(text in note_text(), name in key_name(), seed: [u8; 32]) {
        let name = KeyName::new(name).unwrap();
        let key = SigningKey::from_seed(name, SignatureType::Ed25519, &seed).unwrap();
        let mut note = SignedNote::new(&text).unwrap();
        note.sign(&key, 0).unwrap();
        let read: SignedNote = note.to_string().parse().unwrap();
        prop_assert_eq!(&read, &note);
        prop_assert_eq!(read.text(), text);
        prop_assert!(read.verify([&key.verifier_key()]).is_ok());
        let vkey = key.verifier_key();
        prop_assert_eq!(vkey.to_string().parse::<VerifierKey>().unwrap(), vkey);
        let again = SigningKey::from_text(&key.to_text()).unwrap();
        prop_assert_eq!(again.to_text(), key.to_text());
    }

    #[test]
    fn a_note_that_is_altered_is_refused(text in note_text(), at: prop::sample::Index, byte: u8) {
        let key = key("example.com/log", 1);
        let mut note = SignedNote::new(&text).unwrap();
        note.sign(&key, 0).unwrap();
        let mut bytes = note.to_string().into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        let verified = SignedNote::from_bytes(&bytes).and_then(|note| {
            note.verify([&key.verifier_key()]).map(|_| ())
        });
        prop_assert!(verified.is_err());
    }

    #[test]
    fn what_parses_is_written_the_same(text in "[a-z\n0-9 —+=/.]{0,60}") {
        if let Ok(note) = text.parse::<SignedNote>() {
            prop_assert_eq!(note.to_string(), text.as_str());
        }
        if let Ok(checkpoint) = text.parse::<Checkpoint>() {
            prop_assert_eq!(checkpoint.to_string(), text.as_str());
        }
        if let Ok(path) = text.parse::<TilePath>() {
            prop_assert_eq!(path.to_string(), text);
        }
    }

    #[test]
    fn tile_paths_are_read_as_they_were_written(level in 0u8..65, index in 0u64..1 << 62, width in 1u16..=256) {
        let level = match level {
            64 => TileLevel::Entries,
            level => TileLevel::Hashes(level),
        };
        let path = TilePath::new(level, index, width).unwrap();
        prop_assert_eq!(path.to_string().parse::<TilePath>().unwrap(), path);
    }

    #[test]
    fn entry_bundles_are_read_as_they_were_written(entries: Vec<Vec<u8>>, extra in 1u16..9) {
        let mut bundle = Vec::new();
        for entry in &entries {
            entry_bundle::append(&mut bundle, entry).unwrap();
        }
        let width = entries.len() as u16;
        prop_assert_eq!(entry_bundle::entries(&bundle, width).unwrap(), entries);
        prop_assert!(entry_bundle::entries(&bundle, width + extra).is_err());
        prop_assert!(bundle.is_empty() || entry_bundle::entries(&bundle[..bundle.len() - 1], width).is_err());
        prop_assert!(width == 0 || entry_bundle::entries(&bundle, width - 1).is_err());
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes: Vec<u8>, width: u16) {
        let _ = SignedNote::from_bytes(&bytes);
        let _ = Policy::from_bytes(&bytes);
        let _ = entry_bundle::entries(&bytes, width);
        let _ = tile_from_bytes(&bytes, width);
        let text = String::from_utf8_lossy(&bytes);
        let _ = text.parse::<Checkpoint>();
        let _ = text.parse::<VerifierKey>();
        let _ = text.parse::<TilePath>();
        let _ = SigningKey::from_text(&text);
    }
}

#[test]
fn an_entry_has_at_most_65535_bytes() {
    let mut bundle = Vec::new();
    assert!(entry_bundle::append(&mut bundle, &[0; 65_536]).is_err());
    assert!(bundle.is_empty());
    entry_bundle::append(&mut bundle, &[0; 65_535]).unwrap();
    assert_eq!(entry_bundle::entries(&bundle, 1).unwrap(), [[0; 65_535]]);
}
