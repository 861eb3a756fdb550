//! What holds for every value.

use leaf_format::{
    Columns, Context, Decimal, DecodedOrigin, Dimension, Encoder, Error, Kind, Leaf, MAX_LEAF_DATA,
    Origin, Value, capped, is_digest,
};
use proptest::prelude::*;

fn values() -> impl Strategy<Value = Value<'static>> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|n| Value::Int(n.into())),
        any::<f64>().prop_map(Value::Float),
        ".{0,40}".prop_map(|s: String| Value::Text(s.into())),
        any::<Vec<u8>>().prop_map(|b| Value::Bytes(b.into())),
        any::<[u8; 16]>().prop_map(Value::Uuid),
        any::<i64>().prop_map(|n| Value::Decimal(n.into())),
    ];
    leaf.prop_recursive(3, 32, 8, |inner| {
        prop::collection::vec(inner, 0..8).prop_map(Value::List)
    })
}

/// A number as base-10000 digits, written out differently each time.
fn decimal(n: i128, scale: u32) -> Decimal {
    let mut rest = n.unsigned_abs() * 10_000u128.pow(2);
    let mut digits = vec![0; scale as usize];
    while rest > 0 {
        digits.push((rest % 10_000) as u16);
        rest /= 10_000;
    }
    digits.reverse();
    let weight = digits.len() as i32 - 1 - 2 - scale as i32;
    Decimal::from_base_10000(n < 0, weight, &digits).unwrap()
}

proptest! {
    #[test]
    fn encoding_is_well_formed_cbor_of_four_elements(columns in prop::collection::vec(values(), 0..30)) {
        let names: Vec<String> = (0..columns.len()).map(|i| format!("c{i}")).collect();
        let encoder = Encoder::new("public.t", Kind::Insert, &names).unwrap();
        let mut data = Vec::new();
        encoder.encode(&columns, &Context::default(), &mut data).unwrap();
        prop_assert!(data.len() <= MAX_LEAF_DATA);
        let decoded: Vec<serde_cbor::Value> = serde_cbor::from_slice(&data).unwrap();
        prop_assert_eq!(decoded.len(), 4);
        prop_assert_eq!(&decoded[1], &serde_cbor::Value::Text("public.t".into()));
    }

    #[test]
    fn what_was_encoded_is_decoded(
        columns in prop::collection::vec(values(), 0..10),
        origin in prop::option::of((any::<u64>(), ".{0,20}", ".{0,20}", any::<i64>())),
        said in (prop::option::of(".{0,20}"), prop::option::of(".{0,20}"), prop::option::of((".{0,300}", prop::option::of(1..1000u64)))),
        salt in prop::option::of(any::<[u8; 16]>()),
    ) {
        let names: Vec<String> = (0..columns.len()).map(|i| format!("c{i}")).collect();
        let encoder = Encoder::new("public.t", Kind::Update, &names).unwrap();
        let mut data = Vec::new();
        let context = Context {
            origin: origin.as_ref().map(|(transaction, user, application, at)| Origin {
                transaction: *transaction, user, application, at: *at,
                role: said.0.as_deref(), said: said.1.as_deref(),
                statement: said.2.as_ref().map(|(text, _)| text.as_str()),
                statement_bytes: said.2.as_ref().and_then(|(text, more)| Some(text.len() as u64 + (*more)?)),
            }),
            salt: salt.as_ref().map(|s| s.as_slice()),
        };
        encoder.encode(&columns, &context, &mut data).unwrap();
        let leaf = Leaf::decode(&data).unwrap();
        prop_assert_eq!((leaf.source.as_str(), leaf.kind), ("public.t", Kind::Update));
        prop_assert_eq!(leaf.salt.as_deref(), context.salt);
        prop_assert_eq!(leaf.origin.is_some(), origin.is_some());
        prop_assert_eq!(&DecodedOrigin::of(&data), &leaf.origin);
        if let (Some(decoded), Some(given)) = (&leaf.origin, &context.origin) {
            prop_assert_eq!(
                (decoded.role.as_deref(), decoded.said.as_deref(), decoded.statement.as_deref(), decoded.statement_bytes),
                (given.role, given.said, given.statement, given.statement_bytes)
            );
        }
        if let (Some(decoded), Some(given)) = (leaf.origin, origin) {
            prop_assert_eq!((decoded.transaction, decoded.user, decoded.application, decoded.at), given);
        }
        if let Columns::Map(map) = leaf.columns {
            prop_assert_eq!(map.len(), columns.len());
        }
    }

    #[test]
    fn the_leaf_data_are_what_the_long_form_comes_to(
        columns in prop::collection::vec(values(), 0..10),
        long in prop::option::of(60_000..70_000usize),
        salt in prop::option::of(any::<[u8; 16]>()),
    ) {
        let columns: Vec<Value> =
            columns.into_iter().chain(long.map(|n| Value::Text("x".repeat(n).into()))).collect();
        let names: Vec<String> = (0..columns.len()).map(|i| format!("c{i}")).collect();
        let encoder = Encoder::new("public.t", Kind::Update, &names).unwrap();
        let origin = Origin { transaction: 7, user: "u", role: Some("r"), application: "a", at: -1, ..Origin::default() };
        let context = Context { origin: Some(origin), salt: salt.as_ref().map(|s| s.as_slice()) };
        let (mut data, mut in_full) = (Vec::new(), Vec::new());
        encoder.encode(&columns, &context, &mut data).unwrap();
        encoder.encode_in_full(&columns, &context, usize::MAX, &mut in_full).unwrap();
        prop_assert_eq!(&*capped(&in_full).unwrap(), data.as_slice());
        prop_assert_eq!(in_full.len() > MAX_LEAF_DATA, is_digest(&data));
        let (leaf, whole) = (Leaf::decode(&data).unwrap(), Leaf::decode_in_full(&in_full).unwrap());
        prop_assert!(matches!(whole.columns, Columns::Map(map) if map.len() == columns.len()));
        prop_assert_eq!((leaf.origin, leaf.salt), (whole.origin, whole.salt));
        let short = encoder.encode_in_full(&columns, &context, in_full.len() - 1, &mut Vec::new());
        prop_assert_eq!(short, Err(Error::TooLong { limit: in_full.len() - 1 }));
    }

    #[test]
    fn decoding_anything_does_not_panic(data: Vec<u8>, flips in prop::collection::vec((any::<u8>(), 0..60usize), 0..4)) {
        let _ = Leaf::decode(&data);
        let _ = is_digest(&data);
        let _ = capped(&data.repeat(70_000 / data.len().max(1)));
        let mut real = Vec::new();
        let context = Context { origin: None, salt: Some(&[7; 16]) };
        Encoder::new("public.t", Kind::Insert, &["a", "b"]).unwrap()
            .encode(&[Value::Int(1), Value::Text("x".into())], &context, &mut real).unwrap();
        for (byte, place) in flips {
            let place = place % real.len();
            real[place] ^= byte;
        }
        let _ = Leaf::decode(&real);
    }

    #[test]
    fn column_order_does_not_matter(columns in prop::collection::vec(values(), 1..20), turn in any::<usize>()) {
        let mut named: Vec<(String, Value)> =
            columns.into_iter().enumerate().map(|(i, v)| (format!("column{}", i * 7 % 20), v)).collect();
        named.dedup_by(|a, b| a.0 == b.0);
        let encode = |named: &[(String, Value<'static>)]| {
            let (names, values): (Vec<_>, Vec<_>) = named.iter().cloned().unzip();
            let mut data = Vec::new();
            Encoder::new("s.t", Kind::Insert, &names).unwrap().encode(&values, &Context::default(), &mut data).unwrap();
            data
        };
        let before = encode(&named);
        let places = named.len();
        named.rotate_left(turn % places);
        prop_assert_eq!(before, encode(&named));
    }

    #[test]
    fn decimals_are_ordered_as_numbers(a in any::<i64>(), b in any::<i64>(), x in 0..3u32, y in 0..3u32) {
        let (left, right) = (decimal(a.into(), x), decimal(b.into(), y));
        prop_assert_eq!(left.cmp(&right), a.cmp(&b));
        prop_assert_eq!(&left, &Decimal::from(a));
    }

    #[test]
    fn decimals_of_any_digits_do_not_panic(negative: bool, weight: i32, digits: Vec<u16>) {
        if let Ok(decimal) = Decimal::from_base_10000(negative, weight, &digits) {
            serde_cbor::to_vec(&Value::Decimal(decimal)).unwrap();
        }
    }
}

#[test]
fn malformed_input_is_an_error() {
    let twice = Encoder::new("s.t", Kind::Insert, &["a", "b", "a"]).unwrap_err();
    assert_eq!(twice, Error::DuplicateColumn("a".into()));
    let encoder = Encoder::new("s.t", Kind::Insert, &["a"]).unwrap();
    let count = encoder
        .encode(&[], &Context::default(), &mut Vec::new())
        .unwrap_err();
    assert_eq!(count, Error::ColumnCount { wanted: 1, got: 0 });
    let wide = [Value::Int(i128::from(u64::MAX) + 1)];
    assert!(matches!(
        encoder.encode(&wide, &Context::default(), &mut Vec::new()),
        Err(Error::Value(_))
    ));
    let dimensions = vec![Dimension {
        size: 2,
        lower_bound: 1,
    }];
    assert_eq!(
        Value::array(dimensions, vec![]),
        Err(Error::Dimensions { elements: 0 })
    );
    assert_eq!(Kind::try_from("upsert"), Err(Error::Kind("upsert".into())));
}
