//! What is true is proven, and what is not is refused.

use super::site::*;
use serde_json::{Value, json};
use server_tests::browser::Browser;
use server_tests::{one, run};
use tlog::{KeyName, SignatureType, SigningKey};

#[test]
fn a_row_is_looked_up_and_proven_in_the_browser_with_a_click() {
    let site = Site::start();
    let browser = Browser::start();
    browser.go(&site.address("/"));
    browser.click("a[href='/page/log/audit']");
    browser.type_into("#table", "public.orders");
    browser.type_into("#key", "42");
    browser.click("form[action$='/row'] button");
    browser.until(PROVEN);
    let report = browser.text("#report");
    for told in [
        "order 42",
        "52.5",
        "public.orders",
        "example.com/audit",
        "this server has proposed it",
        "no witness has cosigned",
    ] {
        assert!(report.contains(told), "{told} is not in\n{report}");
    }
    assert!(
        browser.script(
            "return document.querySelectorAll('svg.path .box').length > 10",
            json!([])
        ) == json!(true)
    );
    // A key of the reader's own: the same words, pasted instead of proposed, cannot be told apart; another key is.
    let other = SigningKey::from_seed(
        KeyName::new("example.com/audit").unwrap(),
        SignatureType::Ed25519,
        &[8; 32],
    )
    .unwrap();
    let document = browser.script(
        "return document.getElementById('document').value",
        json!([]),
    );
    let verdict = check(
        &browser,
        document.as_str().unwrap(),
        &other.verifier_key().to_string(),
    );
    assert_eq!(verdict, ("unknown".to_owned(), "NotSignedByLog".to_owned()));
    // A key of two columns, by index, and by hash.
    browser.go(&site.address("/page/log/audit"));
    browser.type_into("#table", "lines");
    browser.type_into("#key", "7\nfirst & last");
    browser.click("form[action$='/row'] button");
    browser.until(PROVEN);
    assert!(browser.text("main").contains("first & last"));
    browser.go(&site.address("/page/log/audit"));
    browser.type_into("#entry", "41");
    browser.click("form[action$='/entry'] button");
    browser.until(PROVEN);
    let leaf_hash = browser.text(".facts .hash");
    browser.go(&site.address("/page/log/audit"));
    browser.type_into("#entry", &leaf_hash);
    browser.click("form[action$='/entry'] button");
    browser.until(PROVEN);
    assert!(browser.text("h1").contains("Entry 41"));
    assert_quiet(&browser);
}

/// A tampered document, and the kinds of problems of which it may be one.
type Tampering = (&'static str, fn(&mut Value), &'static [&'static str]);

fn replace(bundle: &mut Value, place: &str, change: impl Fn(&str) -> String) {
    let text = bundle.pointer_mut(place).unwrap();
    *text = change(text.as_str().unwrap()).into();
}

/// The text with one of its characters of base64 changed.
fn other_at(text: &str, place: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
    String::from_utf8(bytes).unwrap()
}

const TAMPERINGS: [Tampering; 12] = [
    (
        "leaf data",
        |b| replace(b, "/entries/0/leaf_data", |t| other_at(t, t.len() / 2)),
        &["Inclusion"],
    ),
    (
        "node",
        |b| replace(b, "/nodes/0", |t| other_at(t, 3)),
        &["Inclusion"],
    ),
    (
        "index",
        |b| b["entries"][0]["index"] = "40".into(),
        &["Inclusion"],
    ),
    (
        "index beyond the tree",
        |b| b["entries"][0]["index"] = "4611686018427387000".into(),
        &["Inclusion"],
    ),
    (
        "path cut",
        |b| {
            b["nodes"].as_array_mut().unwrap().pop();
            b["entries"][0]["path"].as_array_mut().unwrap().pop();
        },
        &["Inclusion"],
    ),
    (
        "size",
        |b| replace(b, "/checkpoint", |t| t.replacen("\n301\n", "\n302\n", 1)),
        &["BadSignature"],
    ),
    (
        "root",
        |b| {
            replace(b, "/checkpoint", |t| {
                other_at(t, t.find("\n301\n").unwrap() + 8)
            })
        },
        &["BadSignature"],
    ),
    (
        "origin",
        |b| {
            replace(b, "/checkpoint", |t| {
                t.replacen("example.com/audit", "example.com/other", 1)
            })
        },
        &["UnknownLog"],
    ),
    (
        "signature",
        |b| replace(b, "/checkpoint", |t| other_at(t, t.len() - 20)),
        &["BadSignature"],
    ),
    (
        "table",
        |b| b["entries"][0]["source"] = "public.lines".into(),
        &["Contradiction"],
    ),
    (
        "key",
        |b| b["entries"][0]["key"][0][1] = "43".into(),
        &["Contradiction"],
    ),
    (
        "another field",
        |b| b["note"] = "trust me".into(),
        &["ProofBundle"],
    ),
];

#[test]
fn a_bundle_that_was_tampered_with_is_refused_and_shows_no_row() {
    let mut site = Site::start();
    let bundle = site.bundle(42);
    let browser = Browser::start();
    browser.go(&site.address("/page/verify"));
    let good = check(&browser, &bundle.to_string(), &verifier_key());
    assert_eq!(good, ("proven".to_owned(), String::new()));
    for (what, tamper, kinds) in TAMPERINGS {
        let mut tampered = bundle.clone();
        tamper(&mut tampered);
        assert_ne!(tampered, bundle, "{what}");
        let (verdict, kind) = check(&browser, &tampered.to_string(), &verifier_key());
        assert!(
            verdict != "proven" && kinds.contains(&kind.as_str()),
            "{what}: {verdict} {kind}"
        );
        let report = browser.text("#report");
        assert!(
            report.contains("Not proven") && !report.contains("order 42"),
            "{what}: {report}"
        );
    }
    // What the server's owner does to the database is found out by the reader.
    run(
        &mut site.client,
        "UPDATE merkle_log SET leaf_hash = sha256('another order') WHERE leaf_index = 41 AND log_id = (SELECT log_id FROM verification_logs WHERE log_name = 'audit')",
    );
    browser.go(&site.address("/page/log/audit/entry?entry=41"));
    browser.until("return document.querySelector('#report:not([hidden]) .verdict.false') !== null");
}

#[test]
fn the_offline_page_proves_and_refuses_from_a_file_without_a_network() {
    let mut site = Site::start();
    let bundle = site.bundle(42);
    let cbor: Vec<u8> = one(
        &mut site.client,
        "SELECT cbor FROM proof_bundle_of('audit', 'orders', 42)",
    );
    let hex: String = cbor.iter().map(|byte| format!("{byte:02x}")).collect();
    let (directory, address) = site.offline();
    let browser = Browser::start().without_network();
    browser.go(&address);
    for document in [bundle.to_string(), hex.clone(), format!("\\x{hex}")] {
        assert_eq!(check(&browser, &document, &verifier_key()).0, "proven");
    }
    assert_eq!(
        check(
            &browser,
            &hex.replacen("6f72646572203432", "6f72646572203433", 1),
            &verifier_key()
        )
        .1,
        "Inclusion"
    );
    // A file, as a reader has it.
    for (name, content) in [
        ("bundle.json", bundle.to_string().into_bytes()),
        ("bundle.cbor", cbor),
    ] {
        let file = directory.path().join(name);
        std::fs::write(&file, content).unwrap();
        browser.go(&address);
        browser.type_into("#policy", &verifier_key());
        browser.type_into("#file", file.to_str().unwrap());
        browser.until("return document.getElementById('document').value !== ''");
        browser.click("#check button");
        browser.until(PROVEN);
    }
    let loaded = browser.script(
        "return performance.getEntriesByType('resource').length",
        json!([]),
    );
    assert_eq!(loaded, json!(0));
    assert_quiet(&browser);
}

#[test]
fn each_vector_of_the_format_has_its_verdict_in_the_browser() {
    let gateway = without_database();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("verify.html");
    std::fs::write(&file, gateway.get("/page/merkle_log-verify.html").body).unwrap();
    let browser = Browser::start();
    browser.go(&format!("file://{}", file.display()));
    let vectors = vectors();
    let mut checked = 0;
    for list in ["bundles", "bad_bundles", "consistency", "bad_consistency"] {
        for vector in vectors[list].as_array().unwrap() {
            for form in ["json", "cbor"] {
                // Nothing at all is not a document that can be pasted, and what stands around one is no part of it.
                let pasted = |text: &&str| {
                    !text.is_empty() && text.trim_matches(['\u{feff}', ' ', '\n']) == *text
                };
                let Some(document) = vector[form].as_str().filter(pasted) else {
                    continue;
                };
                let (verdict, kind) = check(&browser, document, vector["policy"].as_str().unwrap());
                let expected = vector["error"].as_str().unwrap_or_default();
                assert_eq!(kind, expected, "{} ({form})", vector["name"]);
                assert_eq!(
                    verdict == "proven",
                    expected.is_empty(),
                    "{}",
                    vector["name"]
                );
                checked += 1;
            }
        }
    }
    assert!(checked > 150, "{checked}");
    assert_quiet(&browser);
}

#[test]
fn a_post_quantum_cosignature_is_checked_in_the_browser() {
    let vector: Value =
        serde_json::from_str(include_str!("../../../crates/tlog/tests/ml-dsa-44.json")).unwrap();
    let gateway = without_database();
    let browser = Browser::start();
    browser.go(&format!("http://{}/page/verify", gateway.address));
    let (document, policy) = (
        vector["json"].as_str().unwrap(),
        vector["policy"].as_str().unwrap(),
    );
    assert_eq!(check(&browser, document, policy).0, "proven");
    let mut forged: Value = serde_json::from_str(document).unwrap();
    replace(&mut forged, "/checkpoint", |note| {
        other_at(note, note.len() - 100)
    });
    assert_eq!(
        check(&browser, &forged.to_string(), policy).1,
        "BadSignature"
    );
}
