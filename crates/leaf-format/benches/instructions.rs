//! The work whose instructions `scripts/instructions.sh` counts; one piece a run, by its name.

use leaf_format::{Context, Encoder, Kind, Leaf, Value};
use std::hint::black_box;

fn main() {
    let names = ["id", "at", "note", "doc"];
    let encoder = Encoder::new("public.src", Kind::Insert, &names).expect("four names");
    let row = [
        Value::Int(123_456_789),
        Value::Int(1_700_000_000_000_000),
        Value::Text("order number 123456789".into()),
        Value::Text(r#"{"paid": true, "amount": 789, "currency": "EUR"}"#.into()),
    ];
    let mut leaf_data = Vec::new();
    let mut encode = || encoder.encode(black_box(&row), &Context::default(), &mut leaf_data);
    encode().expect("a row of plain values");
    match std::env::args().nth(1).as_deref() {
        Some("encode") => (0..1000).for_each(|_| drop(black_box(encode()))),
        Some("decode") => (0..1000).for_each(|_| drop(black_box(Leaf::decode(&leaf_data)))),
        _ => {}
    }
}
