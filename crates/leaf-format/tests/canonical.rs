//! An entry has one encoding: what says the same in other bytes is refused.

use leaf_format::{Cbor, Context, Decimal, Dimension, Encoder, Error, Kind, Leaf, Origin, Value};
use proptest::prelude::*;

fn values() -> impl Strategy<Value = Value<'static>> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|n| Value::Int(n.into())),
        (-30i128..300).prop_map(Value::Int),
        any::<f64>().prop_map(Value::Float),
        any::<i16>().prop_map(|n| Value::Float(f64::from(n) / 4.0)),
        "[a-zé]{0,40}".prop_map(|s: String| Value::Text(s.into())),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|b| Value::Bytes(b.into())),
        any::<[u8; 16]>().prop_map(Value::Uuid),
        (
            any::<bool>(),
            -20..20i32,
            prop::collection::vec(0..10_000u16, 0..9)
        )
            .prop_map(|(negative, weight, digits)| Value::Decimal(
                Decimal::from_base_10000(negative, weight, &digits).unwrap()
            )),
    ];
    leaf.prop_recursive(3, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(prop_oneof![Just(Value::Null), inner.clone()], 0..6)
                .prop_map(Value::List),
            (prop::collection::vec(inner.clone(), 0..6), -1..3i32).prop_map(
                |(elements, lower_bound)| {
                    let size = elements.len();
                    Value::array(vec![Dimension { size, lower_bound }], elements).unwrap()
                }
            ),
            prop::collection::vec(inner, 1..4).prop_map(|fields| {
                let named = fields.into_iter().enumerate();
                Value::Composite(named.map(|(n, v)| (format!("f{n}").into(), v)).collect())
            }),
        ]
    })
}

fn encoded(columns: &[Value], origin: bool, salt: bool) -> Vec<u8> {
    let names: Vec<String> = (0..columns.len()).map(|i| format!("c{}", i * 7)).collect();
    let context = Context {
        origin: origin.then_some(Origin {
            transaction: 7,
            user: "u",
            role: Some("clerk"),
            application: "psql",
            at: -1,
            said: Some("{}"),
            statement: Some("UPDATE"),
            statement_bytes: Some(7),
        }),
        salt: salt.then_some(&[9; 16]),
    };
    let mut data = Vec::new();
    let encoder = Encoder::new("public.t", Kind::Insert, &names).unwrap();
    encoder.encode(columns, &context, &mut data).unwrap();
    data
}

/// Writes a value as RFC 8949 allows it and §4.2.1 does not, as often as `choices` says so.
struct Loose<'c> {
    choices: std::iter::Cycle<std::slice::Iter<'c, u8>>,
    out: Vec<u8>,
}

impl Loose<'_> {
    fn choose(&mut self, outcomes: u8) -> u8 {
        self.choices.next().map_or(0, |c| c % outcomes)
    }

    /// A head, in its shortest form or a longer one.
    fn head(&mut self, major: u8, n: u64) {
        let shortest = match n {
            0..=23 => 0,
            24..=0xff => 1,
            0x100..=0xffff => 2,
            0x1_0000..=0xffff_ffff => 3,
            _ => 4,
        };
        let longer = match self.choose(8) {
            0 => 1,
            _ => 0,
        };
        let major = major << 5;
        match (shortest + longer).min(4) {
            0 => self.out.push(major | n as u8),
            1 => self.out.extend([major | 24, n as u8]),
            2 => {
                self.out.push(major | 25);
                self.out.extend((n as u16).to_be_bytes());
            }
            3 => {
                self.out.push(major | 26);
                self.out.extend((n as u32).to_be_bytes());
            }
            _ => {
                self.out.push(major | 27);
                self.out.extend(n.to_be_bytes());
            }
        }
    }

    /// The head of a list or map, or that of one without a length; true for the latter.
    fn open(&mut self, major: u8, n: usize) -> bool {
        let indefinite = self.choose(8) == 0;
        match indefinite {
            true => self.out.push(major << 5 | 31),
            false => self.head(major, n as u64),
        }
        indefinite
    }

    fn write(&mut self, value: &Cbor) {
        match value {
            Cbor::Null => {
                let undefined = self.choose(8) == 0;
                self.out.push(0xf6 | u8::from(undefined));
            }
            Cbor::Bool(b) => self.out.push(0xf4 | u8::from(*b)),
            Cbor::Integer(n) if *n < 0 => self.head(1, (-1 - n) as u64),
            Cbor::Integer(n) => self.head(0, *n as u64),
            Cbor::Float(f) if self.choose(4) == 0 => {
                self.out.push(0xfb);
                self.out.extend(f.to_be_bytes());
            }
            Cbor::Float(_) => self.out.extend(serde_cbor::to_vec(value).unwrap()),
            Cbor::Bytes(bytes) => {
                self.head(2, bytes.len() as u64);
                self.out.extend(bytes);
            }
            Cbor::Text(text) => {
                self.head(3, text.len() as u64);
                self.out.extend(text.as_bytes());
            }
            Cbor::Array(elements) => {
                let indefinite = self.open(4, elements.len());
                elements.iter().for_each(|e| self.write(e));
                if indefinite {
                    self.out.push(0xff);
                }
            }
            Cbor::Map(map) => {
                let mut pairs: Vec<_> = map.iter().collect();
                match self.choose(8) {
                    0 => pairs.reverse(),
                    1 if !pairs.is_empty() => pairs.push(pairs[0]),
                    _ => {}
                }
                let indefinite = self.open(5, pairs.len());
                for (name, value) in pairs {
                    self.write(name);
                    self.write(value);
                }
                if indefinite {
                    self.out.push(0xff);
                }
            }
            Cbor::Tag(tag, content) => {
                self.head(6, *tag);
                self.write(content);
            }
            other => panic!("{other:?} is in no leaf"),
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_canonical(
        columns in prop::collection::vec(values(), 0..10), origin: bool, salt: bool,
    ) {
        let data = encoded(&columns, origin, salt);
        prop_assert!(Leaf::decode(&data).is_ok(), "{:?}", Leaf::decode(&data));
    }

    #[test]
    fn other_bytes_for_the_same_entry_are_refused(
        columns in prop::collection::vec(values(), 0..6), origin: bool, salt: bool,
        choices in prop::collection::vec(any::<u8>(), 1..200),
    ) {
        let data = encoded(&columns, origin, salt);
        let mut loose = Loose { choices: choices.iter().cycle(), out: Vec::new() };
        loose.write(&serde_cbor::from_slice(&data).unwrap());
        if loose.out != data {
            prop_assert!(Leaf::decode(&loose.out).is_err(), "{:02x?} for {data:02x?}", loose.out);
        }
    }

    #[test]
    fn no_two_byte_strings_decode_to_the_same_entry(
        columns in prop::collection::vec(values(), 0..6), origin: bool, salt: bool,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..4),
    ) {
        let data = encoded(&columns, origin, salt);
        let mut edited = data.clone();
        for (place, byte, edit) in edits {
            let place = place.index(edited.len());
            match edit {
                0 => edited[place] ^= byte,
                1 => edited.insert(place, byte),
                _ if edited.len() > 1 => drop(edited.remove(place)),
                _ => {}
            }
        }
        if let (true, Ok(leaf)) = (edited != data, Leaf::decode(&edited)) {
            prop_assert_ne!(leaf, Leaf::decode(&data).unwrap());
        }
    }
}

#[test]
fn each_rule_of_the_format_is_kept() {
    let leaf = |columns: &[u8], context: &[u8]| {
        let mut data = vec![0x84 | u8::from(!context.is_empty()), 1];
        data.extend(b"\x63s.t\x66insert");
        data.extend(columns);
        data.extend(context);
        Leaf::decode(&data)
    };
    let column = |value: &[u8]| leaf(&[b"\xa1\x61a", value].concat(), &[]);
    for good in [
        "05",
        "c4820000",
        "c4822003",
        "c48200c249010000000000000001",
        "d825500102030405060708090a0b0c0d0e0f10",
        "d82882820102820506",
        "83f6f6f5",
    ] {
        let good = hex(good);
        let decoded = column(&good);
        assert!(decoded.is_ok(), "{good:02x?}: {decoded:?}");
    }
    // The empty int2vector: one dimension of size 0, from 0.
    assert!(column(&hex("d8288381 00 80 8100")).is_ok());
    for (rule, bad) in [
        ("NULL columns are left out", "f6"),
        ("integers take their shortest form", "1805"),
        ("floats take their shortest form", "fb3ff0000000000000"),
        ("one NaN", "f97e01"),
        ("decimals: ten does not divide the mantissa", "c482000a"),
        ("decimals: zero is [0, 0]", "c4820100"),
        ("decimals: no bignum where an integer does", "c48200c24105"),
        (
            "decimals: no leading zero byte",
            "c48200c24a00010000000000000001",
        ),
        ("a UUID has 16 bytes", "d8254101"),
        ("an array from 1 has no tag", "d82882810181 05"),
        ("sizes multiply to the elements", "d82882820202820506"),
        (
            "lower bounds are there if one is not 1",
            "d8288382010282050682 0101",
        ),
        ("no other tags", "c001"),
        ("names are texts", "a10102"),
        ("a composite's NULLs are left out", "a16162f6"),
        ("no indefinite lengths", "9fff"),
    ] {
        let decoded = column(&hex(bad));
        assert!(
            matches!(decoded, Err(Error::NotCanonical(_))),
            "{rule}: {decoded:?}"
        );
    }
    assert!(leaf(b"\xa0", b"\xa0").is_err(), "no empty context");
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}
