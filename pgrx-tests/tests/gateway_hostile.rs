//! Requests to `merkle-log serve` that nobody in good faith makes, built from its own table of routes: no panic, no
//! failure, no proof that does not hold.

use merkle_tree::{Hash, LeafIndex, TreeSize, verify_consistency, verify_inclusion};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use server_tests::gateway::{Answer, Gateway, hash, token_file};
use server_tests::*;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

const ROWS: u64 = 300;

fn cluster() -> (Cluster, Client) {
    let cluster = Cluster::start();
    cluster.sign_with_a_new_key("example.com/audit");
    let mut client = cluster.client("postgres");
    run(
        &mut client,
        "CREATE TABLE orders (id bigint PRIMARY KEY, note text);
         SELECT create_log('audit', find_by_hash => true, origin => 'example.com/audit'); SELECT create_log('empty');
         SELECT create_log('it''s \"odd\" /?#%00 \u{202e}');
         SELECT add_source('audit', 'orders', order_column => 'id', append_only => true, store_leaf_data => true, capture => 'watermark');
         INSERT INTO orders SELECT i, 'order ' || i FROM generate_series(1, 300) i",
    );
    drain(&mut client, "audit");
    run(&mut client, "SELECT checkpoint('audit')");
    (cluster, client)
}

/// A connection that is used again for as long as it lasts.
struct Wire {
    address: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Wire {
    /// The answer to bytes that may be no request at all, if there is one.
    fn say(&mut self, request: &[u8]) -> Option<Answer> {
        let stream = self.stream.get_or_insert_with(|| {
            let stream = TcpStream::connect(&self.address).unwrap();
            stream
                .set_read_timeout(Some(std::time::Duration::from_secs(60)))
                .unwrap();
            BufReader::new(stream)
        });
        let answer = match stream.get_mut().write_all(request) {
            Ok(()) => read(stream, request.starts_with(b"HEAD")),
            Err(_) => None,
        };
        let ends =
            |answer: &Answer| answer.header("connection") == Some("close") || answer.status == 400;
        if answer.as_ref().is_none_or(ends) {
            self.stream = None;
        }
        answer
    }
}

fn read(stream: &mut BufReader<TcpStream>, head_only: bool) -> Option<Answer> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read_until(b'\n', &mut bytes).ok()? == 0 {
            return None;
        }
    }
    let head = Answer::parse_head(&bytes);
    let length = head
        .header("content-length")
        .and_then(|length| length.parse().ok());
    let empty = head_only || head.status == 304 || head.status == 204;
    let mut body = vec![0; if empty { 0 } else { length.unwrap_or(0) }];
    stream.read_exact(&mut body).unwrap();
    Some(Answer { body, ..head })
}

/// Values that parameters, paths and headers are made of.
const VALUES: &[&str] = &[
    "0",
    "1",
    "5",
    "255",
    "256",
    "299",
    "300",
    "301",
    "-1",
    "-0",
    "+1",
    "00",
    "1e3",
    "0x10",
    "4611686018427387903",
    "4611686018427387904",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "1.5",
    "NaN",
    "",
    " ",
    "%20",
    "%00",
    "%ff",
    "%zz",
    "%",
    "%25",
    "%2F",
    "%2e%2e",
    "../..",
    "..%2f..%2fetc%2fpasswd",
    "audit",
    "empty",
    "merkle_log_administration",
    "orders",
    "public.orders",
    "pg_class",
    "pg_catalog.pg_authid",
    "16384",
    "\"orders\"",
    "orders;DROP TABLE orders",
    "'",
    "\"",
    "{1,2}",
    "{",
    "NULL",
    "true",
    "x",
    "é",
    "%C3%A9",
    "%F0%9F%92%A9",
    "%E2%80%AE",
    "a&b",
    "a=b",
    "index",
    "hash",
    "*",
    "~",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B85",
    "entries",
    "entries/000",
    "0/000",
    "0/000.p/7",
    "0/001.p/44",
    "1/000.p/1",
    "1/000",
    "8/000",
    "63/000",
    "0/x001/000",
    "0/x000/000",
    "0/000.p/0",
    "entries/000.p/255",
    "entries/001.p/44",
    "entries/x999/x999/x999/x999/x999/x999/999",
    "0/x999/x999/x999/x999/x999/x999/x999/999",
];

const HEADERS: &[&str] = &[
    "accept: application/cbor",
    "accept: application/json;q=0",
    "accept: text/plain",
    "accept: ,;q=,*/*;q=2",
    "accept: \u{7f}",
    "authorization: Bearer",
    "authorization: Bearer x",
    "authorization: Basic eDp4",
    "if-none-match: *",
    "if-none-match: W/\"",
    "if-none-match: ,,,",
    "range: bytes=0-1",
    "range: bytes=-5",
    "content-type: application/json",
    "x-forwarded-for: 1.2.3.4, ::1",
    "x-forwarded-for: nonsense",
    "expect: 100-continue",
    "te: trailers",
    "upgrade: websocket",
    "origin: null",
    "host: ",
];

struct Hostile {
    random: StdRng,
    /// Paths with the names of their query parameters, and their methods.
    routes: Vec<(String, Vec<String>, Vec<String>)>,
    values: Vec<String>,
    /// Hashes of five leaves, and of roots.
    real: Vec<String>,
}

impl Hostile {
    fn new(document: &Value, seed: u64, real: Vec<String>) -> Hostile {
        let paths = document["paths"].as_object().unwrap();
        let route = |(path, item): (&String, &Value)| {
            let operations = item.as_object().unwrap();
            let parameters = operations.values().flat_map(|operation| {
                operation["parameters"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default()
            });
            let queries = parameters.filter(|parameter| parameter["in"] == "query");
            let names = queries.map(|parameter| parameter["name"].as_str().unwrap().to_owned());
            let methods = operations.keys().map(|method| method.to_uppercase());
            (path.clone(), names.collect(), methods.collect())
        };
        Hostile {
            random: StdRng::seed_from_u64(seed),
            routes: paths.iter().map(route).collect(),
            values: VALUES
                .iter()
                .map(|value| value.to_string())
                .chain(real.clone())
                .collect(),
            real,
        }
    }

    fn value(&mut self) -> String {
        let value = self.values.choose(&mut self.random).unwrap().clone();
        match self.random.random_range(0..12) {
            0 => value.chars().rev().collect(),
            1 => value.repeat(self.random.random_range(2..20)),
            2 => format!("{value}{}", self.values.choose(&mut self.random).unwrap()),
            3 => (0..self.random.random_range(1..9))
                .map(|_| format!("%{:02x}", self.random.random::<u8>()))
                .collect(),
            _ => value,
        }
    }

    fn target(&mut self) -> (String, Vec<String>) {
        let (path, names, methods) = self.routes.choose(&mut self.random).unwrap().clone();
        let mut target = String::new();
        for part in path.split_inclusive('/') {
            match part.trim_end_matches('/') {
                // Mostly a log that is there, so that more than its name is looked at.
                "{log}" if self.random.random_bool(0.8) => target.push_str("audit"),
                part if part.starts_with('{') => target.push_str(&self.value()),
                part => target.push_str(part),
            }
            target.push_str(if part.ends_with('/') { "/" } else { "" });
        }
        let mut separator = '?';
        let given = match self.random.random_bool(0.5) {
            true => self.sound(&names),
            false => self.any(&names),
        };
        for (name, value) in given {
            target.push_str(&format!("{separator}{name}={value}"));
            separator = '&';
        }
        if self.random.random_bool(0.05) {
            target.push_str(&format!("{separator}{}={}", self.value(), self.value()));
        }
        (target, methods)
    }

    /// Parameters in any number.
    fn any(&mut self, names: &[String]) -> Vec<(String, String)> {
        let mut given = Vec::new();
        for name in names {
            for _ in 0..*[0, 0, 1, 1, 1, 2].choose(&mut self.random).unwrap() {
                given.push((name.clone(), self.value()));
            }
        }
        given
    }

    /// Parameters that may go together, and values that mean something.
    fn sound(&mut self, names: &[String]) -> Vec<(String, String)> {
        let Some(first) = names.choose(&mut self.random).cloned() else {
            return Vec::new();
        };
        let with = match first.as_str() {
            "table" => "key",
            "key" => "table",
            "index" | "hash" => "size",
            "old_size" | "old_root" => "new_size",
            "from" => "to",
            _ => "",
        };
        let both = self.random.random_bool(0.5) || first == "table" || first == "key";
        let with = Some(with.to_owned()).filter(|with| both && names.contains(with));
        let mut given = Vec::new();
        for name in [Some(first), with].into_iter().flatten() {
            let value = match name.as_str() {
                "table" => "orders".to_owned(),
                "hash" => self.real[self.random.random_range(0..5)].clone(),
                "root" | "old_root" => {
                    self.real[self.random.random_range(5..self.real.len())].clone()
                }
                "size" | "to" => self.random.random_range(150..=ROWS + 2).to_string(),
                _ => self.random.random_range(0..=ROWS + 2).to_string(),
            };
            given.push((name, value));
        }
        given
    }

    fn request(&mut self) -> Vec<u8> {
        let (target, methods) = self.target();
        let method = match self.random.random_range(0..20) {
            0 => (*[
                "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT", "get", "X",
            ]
            .choose(&mut self.random)
            .unwrap())
            .to_owned(),
            1 => "HEAD".to_owned(),
            _ => methods.choose(&mut self.random).unwrap().clone(),
        };
        let target = target.replace(' ', "%20");
        let mut request = format!("{method} {target} HTTP/1.1\r\nhost: x\r\n");
        for _ in 0..*[0, 0, 0, 1, 2].choose(&mut self.random).unwrap() {
            request.push_str(HEADERS.choose(&mut self.random).unwrap());
            request.push_str("\r\n");
        }
        let mut request = format!("{request}\r\n").into_bytes();
        // Few are broken as bytes: most of those end at the protocol.
        if self.random.random_bool(0.04) {
            for _ in 0..self.random.random_range(1..4) {
                let place = self.random.random_range(0..request.len());
                request[place] = self.random.random();
            }
            // And no more is to come, so that nobody waits for it.
            request.extend_from_slice(b"\r\n\r\n\r\n\r\n");
        }
        request
    }
}

/// Roots by size.
struct Roots(HashMap<u64, Hash>);

impl Roots {
    fn of(client: &mut Client) -> Roots {
        let rows = client
            .query(
                "SELECT n, merkle_root('audit', n) FROM generate_series(0, 300::bigint) n",
                &[],
            )
            .unwrap();
        let root = |row: &Row| {
            (
                row.get::<_, i64>(0) as u64,
                Hash::try_from(row.get::<_, &[u8]>(1)).unwrap(),
            )
        };
        Roots(rows.iter().map(root).collect())
    }

    /// That an answer that looks like a proof is one; whether it did.
    fn checked(&self, answer: &Answer) -> bool {
        let is_json =
            answer.status == 200 && answer.header("content-type") == Some("application/json");
        let Some(value) = is_json
            .then(|| serde_json::from_slice::<Value>(&answer.body).ok())
            .flatten()
        else {
            return false;
        };
        let Some(path) = value["path"]
            .as_array()
            .filter(|_| value["nodes"].is_null())
        else {
            return false;
        };
        let path: Vec<Hash> = path.iter().map(hash).collect();
        let size = |name: &str| value[name].as_u64().unwrap();
        match value["index"].as_u64() {
            Some(index) => {
                let root = self.0[&size("size")];
                assert_eq!(hash(&value["root"]), root);
                let (index, size) = (
                    LeafIndex::new(index).unwrap(),
                    TreeSize::new(size("size")).unwrap(),
                );
                verify_inclusion(&hash(&value["leaf_hash"]), index, size, &path, &root).unwrap();
            }
            None => {
                let [old, new] = ["old_size", "new_size"].map(size);
                let [old_root, new_root] = [old, new].map(|size| self.0[&size]);
                let [old, new] = [old, new].map(|size| TreeSize::new(size).unwrap());
                verify_consistency(old, new, &old_root, &new_root, &path).unwrap();
            }
        }
        true
    }
}

#[test]
fn no_request_makes_the_gateway_fail_or_prove_what_is_not_so() {
    let (cluster, mut client) = cluster();
    let roots = Roots::of(&mut client);
    let leaves: Vec<String> = column(
        &mut client,
        "SELECT encode(leaf_hash, 'hex') FROM merkle_log_leaves WHERE log_name = 'audit' AND leaf_index % 60 = 0",
    );
    let mut values = leaves;
    values.extend([7, 256, 300].map(|size| roots.0[&size].to_string()));
    let mut gateway = Gateway::start(
        &cluster,
        "public_logs = ['audit', 'empty']\n[limits]\nrate_per_client = 1000000\nburst_per_client = 1000000",
    );
    let seed = seed();
    let mut hostile = Hostile::new(&gateway.json("/openapi.json"), seed, values);
    let mut wire = Wire {
        address: gateway.address.clone(),
        stream: None,
    };
    let mut statuses: HashMap<u16, u32> = HashMap::new();
    let mut proven = 0;
    for number in 0..size(4_000, 100_000) {
        let request = hostile.request();
        let Some(answer) = wire.say(&request) else {
            *statuses.entry(0).or_default() += 1;
            continue;
        };
        let said = || {
            format!(
                "request {number}: {:?}: {answer}",
                String::from_utf8_lossy(&request)
            )
        };
        assert!(answer.status < 500, "{}", said());
        if answer.status >= 400 && !answer.body.is_empty() {
            assert_eq!(answer.problem().0, answer.status, "{}", said());
        }
        let of_audit = request.windows(12).any(|part| part == b"/logs/audit/");
        proven += u32::from(of_audit && roots.checked(&answer));
        *statuses.entry(answer.status).or_default() += 1;
    }
    println!("{statuses:?}, {proven} proofs");
    // It must have been asked things that it answers, and things of every kind that it refuses.
    for status in [200, 304, 400, 401, 404, 405, 406, 409] {
        assert!(statuses.contains_key(&status), "no {status}: {statuses:?}");
    }
    assert!(proven > 20, "{proven} proofs");
    assert_eq!(gateway.json("/logs/audit/size")["size"], ROWS);
    let panics: Vec<_> = gateway
        .lines()
        .into_iter()
        .filter(|line| line.to_string().contains("panic"))
        .collect();
    assert_eq!(panics, [Value::Null; 0]);
    signal("TERM", &[&gateway.pid()]);
    assert!(gateway.ends().success());
}

#[test]
fn bytes_that_are_no_request_end_their_own_connection_only() {
    let (cluster, _) = cluster();
    let gateway = Gateway::start(
        &cluster,
        "[limits]\nheader_seconds = 1\nrate_per_client = 1000000\nburst_per_client = 1000000",
    );
    let mut random = StdRng::seed_from_u64(seed());
    for _ in 0..size(300, 5_000) {
        let mut bytes = vec![0; random.random_range(1..600)];
        random.fill(&mut bytes[..]);
        let prefix: &[&[u8]] = &[
            b"",
            b"GET ",
            b"GET / HTTP/1.1\r\n",
            b"POST /logs HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01",
        ];
        let mut stream = gateway.connect();
        let _ = stream.write_all(prefix.choose(&mut random).unwrap());
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        assert!(
            text.is_empty() || !text.starts_with("HTTP/1.1 5"),
            "{bytes:?}: {text}"
        );
    }
    assert_eq!(gateway.json("/logs/audit/size")["size"], ROWS);
}

#[test]
fn no_request_makes_administration_fail() {
    let (cluster, mut client) = cluster();
    let directory = tempfile::tempdir().unwrap();
    let token = "t".repeat(40);
    token_file(directory.path(), "tokens", &format!("ana {token}\n"));
    let configuration = "[admin]\nlisten = '127.0.0.1:0'\ntokens = '{directory}/tokens'
        [limits]\nrate_per_client = 1000000\nburst_per_client = 1000000";
    let mut gateway = Gateway::prepare(directory, configuration, |command| {
        command
            .env("PGHOST", cluster.socket())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres")
            .args(["--listen", "127.0.0.1:0"]);
    });
    let address = gateway.says("listening for administration")["fields"]["address"]
        .as_str()
        .unwrap()
        .to_owned();
    let document = server_tests::gateway::exchange(
        TcpStream::connect(&address).unwrap(),
        "GET",
        "/openapi.json",
        &[],
        "",
    )
    .json();
    let mut hostile = Hostile::new(&document, seed(), vec!["00".repeat(32); 6]);
    let mut wire = Wire {
        address,
        stream: None,
    };
    let bodies = [
        "",
        "{}",
        "[]",
        "null",
        "{\"name\":\"n\"}",
        "{\"name\":\"\\u0000\"}",
        "{\"name\":\"\\ud800\"}",
        "{\"schedule\":\"x\"}",
        "{\"name\":\"m\",\"settings\":{\"settle\":\"1 day\"}}",
        "{\"name\":\"m\",\"settings\":{\"settle\":\"-1 day\",\"batch_size\":4294967295}}",
        "{\"name\":\"m\",\"settings\":{\"run_interval\":\"999999999 years\"}}",
        "{\"name\":\"m\",\"settings\":{\"origin\":\"\\n\"}}",
    ];
    for number in 0..size(1_000, 10_000) {
        let (target, methods) = hostile.target();
        let method = methods.choose(&mut hostile.random).unwrap().clone();
        let body = bodies.choose(&mut hostile.random).unwrap();
        let target = target.replace(' ', "%20");
        let request = format!(
            "{method} {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        if let Some(answer) = wire.say(request.as_bytes()) {
            assert!(answer.status < 500, "request {number}: {request}: {answer}");
        }
    }
    let panics: Vec<_> = gateway
        .lines()
        .into_iter()
        .filter(|line| line.to_string().contains("panicked"))
        .collect();
    assert_eq!(panics, [Value::Null; 0]);
    run(
        &mut client,
        "SELECT resume_log('audit'); SELECT enable_log('audit')",
    );
    assert_eq!(findings(&mut client, "audit"), [""; 0]);
}
