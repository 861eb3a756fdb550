//! What encoding and decoding a row costs: `cargo bench -p leaf-format --bench micro`.

use criterion::{Criterion, criterion_group, criterion_main};
use leaf_format::{Context, Encoder, Kind, Leaf, Value};
use std::hint::black_box;

fn row() -> [Value<'static>; 4] {
    [
        Value::Int(123_456_789),
        Value::Int(1_700_000_000_000_000),
        Value::Text("order number 123456789".into()),
        Value::Text(r#"{"paid": true, "amount": 789, "currency": "EUR"}"#.into()),
    ]
}

fn rows(c: &mut Criterion) {
    let names = ["id", "at", "note", "doc"];
    let encoder = Encoder::new("public.src", Kind::Insert, &names).expect("four names");
    let mut leaf_data = Vec::new();
    c.bench_function("encode a row of four columns", |b| {
        b.iter(|| encoder.encode(black_box(&row()), &Context::default(), &mut leaf_data))
    });
    c.bench_function("decode it", |b| {
        b.iter(|| Leaf::decode(black_box(&leaf_data)))
    });
}

criterion_group!(benches, rows);
criterion_main!(benches);
