//! The vectors of `docs/leaf-format-vectors.json`, which other languages check too.

use leaf_format::{Context, Decimal, DecodedOrigin, Dimension, Encoder, Kind, Leaf, Origin, Value};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

fn vectors() -> Json {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/leaf-format-vectors.json"
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn unhex(hex: &str) -> Vec<u8> {
    let digit = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// "-12.50" or "1e-30" as base-10000 digits around the decimal point.
fn decimal(text: &str) -> Decimal {
    let (text, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, text) = text
        .strip_prefix('-')
        .map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut digits = format!("{whole}{fraction}");
    let mut point = whole.len() as i32 + exponent.parse::<i32>().unwrap();
    while point.rem_euclid(4) != 0 {
        digits.insert(0, '0');
        point += 1;
    }
    while digits.len() % 4 != 0 {
        digits.push('0');
    }
    let words: Vec<u16> = (0..digits.len())
        .step_by(4)
        .map(|i| digits[i..i + 4].parse().unwrap())
        .collect();
    Decimal::from_base_10000(sign, point / 4 - 1, &words).unwrap()
}

fn value(json: &Json) -> Value<'static> {
    let Some((kind, content)) = json.as_object().and_then(|o| o.iter().next()) else {
        return Value::Null;
    };
    let text = || content.as_str().unwrap().to_owned();
    let list = |json: &Json| {
        json.as_array()
            .unwrap()
            .iter()
            .map(value)
            .collect::<Vec<_>>()
    };
    match kind.as_str() {
        "bool" => Value::Bool(content.as_bool().unwrap()),
        "int" => Value::Int(text().parse().unwrap()),
        "float" => Value::Float(text().parse().unwrap()),
        "text" => Value::Text(text().into()),
        "repeat" => {
            let times = content[1].as_u64().unwrap() as usize;
            Value::Text(content[0].as_str().unwrap().repeat(times).into())
        }
        "bytes" => Value::Bytes(unhex(&text()).into()),
        "uuid" => Value::Uuid(unhex(&text()).try_into().unwrap()),
        "decimal" => Value::Decimal(decimal(&text())),
        "list" => Value::List(list(content)),
        "array" => {
            let number = |json: &Json| json.as_i64().unwrap();
            let sizes = content["sizes"].as_array().unwrap().iter().map(number);
            let bounds = content["lower_bounds"]
                .as_array()
                .unwrap()
                .iter()
                .map(number);
            let dimensions = sizes
                .zip(bounds)
                .map(|(size, bound)| Dimension {
                    size: size as usize,
                    lower_bound: bound as i32,
                })
                .collect();
            Value::array(dimensions, list(&content["elements"])).unwrap()
        }
        "composite" => Value::Composite(pairs(content)),
        other => panic!("the vectors have values of kind {other}"),
    }
}

fn pairs(json: &Json) -> Vec<(std::borrow::Cow<'static, str>, Value<'static>)> {
    let pair = |p: &Json| (p[0].as_str().unwrap().to_owned().into(), value(&p[1]));
    json.as_array().unwrap().iter().map(pair).collect()
}

#[test]
fn values_encode_as_specified() {
    let vectors = vectors();
    let values = vectors["values"].as_array().unwrap();
    assert!(values.len() > 90);
    for vector in values {
        let encoded = serde_cbor::to_vec(&value(&vector["value"])).unwrap();
        assert_eq!(
            hex(&encoded),
            vector["cbor"].as_str().unwrap(),
            "{}",
            vector["name"]
        );
    }
}

#[test]
fn leaves_encode_as_specified() {
    let vectors = vectors();
    let leaves = vectors["leaves"].as_array().unwrap();
    assert!(leaves.len() > 10);
    for vector in leaves {
        let (names, values): (Vec<_>, Vec<_>) = pairs(&vector["columns"]).into_iter().unzip();
        let kind = Kind::try_from(vector["kind"].as_str().unwrap()).unwrap();
        let encoder = Encoder::new(vector["source"].as_str().unwrap(), kind, &names).unwrap();
        let mut leaf_data = Vec::new();
        let json = &vector["context"];
        let salt = json["salt"].as_str().map(unhex);
        let context = Context {
            origin: json["xid"].as_str().map(|xid| Origin {
                transaction: xid.parse().unwrap(),
                user: json["user"].as_str().unwrap(),
                role: json["role"].as_str(),
                application: json["app"].as_str().unwrap(),
                at: json["at"].as_str().unwrap().parse().unwrap(),
                said: json["context"].as_str(),
                statement: json["statement"].as_str(),
                statement_bytes: json["statement_bytes"].as_str().map(|n| n.parse().unwrap()),
            }),
            salt: salt.as_deref(),
        };
        encoder.encode(&values, &context, &mut leaf_data).unwrap();
        let decoded = Leaf::decode(&leaf_data).unwrap();
        assert_eq!(
            DecodedOrigin::of(&leaf_data),
            decoded.origin,
            "{}",
            vector["name"]
        );
        let origin = decoded.origin.unwrap_or_default();
        for (name, field) in [
            ("role", origin.role),
            ("context", origin.said),
            ("statement", origin.statement),
        ] {
            assert_eq!(field.as_deref(), json[name].as_str(), "{}", vector["name"]);
        }
        assert_eq!(
            (decoded.kind, decoded.salt),
            (kind, salt),
            "{}",
            vector["name"]
        );
        let hash = Sha256::new_with_prefix([0])
            .chain_update(&leaf_data)
            .finalize();
        assert_eq!(
            hex(&leaf_data),
            vector["leaf_data"].as_str().unwrap(),
            "{}",
            vector["name"]
        );
        assert_eq!(
            hex(&hash),
            vector["leaf_hash"].as_str().unwrap(),
            "{}",
            vector["name"]
        );
    }
}
