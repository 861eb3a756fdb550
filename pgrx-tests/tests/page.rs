//! The page of `merkle-log serve` in a real browser: rows are looked up, proofs are checked by the reader's own
//! machine, and what was tampered with is refused.

use serde_json::{Value, json};
use server_tests::browser::Browser;
use server_tests::gateway::Gateway;
use server_tests::*;
use std::path::{Path, PathBuf};
use tlog::{KeyName, SignatureType, SigningKey};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// As a log may be called.
const HOSTILE: &str = "<script>alert(1)</script> a/b?#%";

fn key() -> SigningKey {
    let name = KeyName::new("example.com/audit").unwrap();
    SigningKey::from_seed(name, SignatureType::Ed25519, &[7; 32]).unwrap()
}

fn verifier_key() -> String {
    key().verifier_key().to_string()
}

/// A gateway over a database with logs.
struct Site {
    gateway: Gateway,
    client: Client,
    _cluster: Cluster,
}

impl Site {
    fn start() -> Site {
        let cluster = Cluster::start();
        let file = cluster.secret_file("key", key().to_text().as_str());
        cluster.reload_with(&format!(
            "merkle_log.signing_key_file = '{file}'\nmerkle_log.origin_prefix = 'example.com'"
        ));
        let mut c = cluster.client("postgres");
        until(
            &mut c,
            "SELECT current_setting('merkle_log.signing_key_file', true) <> ''",
        );
        run(
            &mut c,
            "CREATE TABLE orders (id bigint PRIMARY KEY, note text, amount numeric(12, 2));
             CREATE TABLE lines (order_id bigint, line text, PRIMARY KEY (order_id, line));
             SELECT create_log('audit'); SELECT add_source('audit', 'orders', capture => 'trigger', store_leaf_data => true);
             SELECT add_source('audit', 'lines', capture => 'trigger');
             CREATE TABLE people (id int PRIMARY KEY, name text);
             SELECT create_log('private'); SELECT add_source('private', 'people', capture => 'trigger', store_leaf_data => true);
             SELECT create_log('empty')",
        );
        c.execute("SELECT create_log($1)", &[&HOSTILE]).unwrap();
        run(
            &mut c,
            "INSERT INTO orders SELECT i, 'order ' || i, i * 1.25 FROM generate_series(1, 300) i",
        );
        run(&mut c, "INSERT INTO lines VALUES (7, 'first & last')");
        run(&mut c, "INSERT INTO people VALUES (1, 'Ada Lovelace')");
        drain(&mut c, "audit");
        drain(&mut c, "private");
        run(
            &mut c,
            "SELECT checkpoint('audit'); SELECT checkpoint('private')",
        );
        let gateway = Gateway::start(
            &cluster,
            &format!(
                "public_logs = [\"audit\"]\nread_tokens = \"{}\"",
                cluster.secret_file("tokens", &format!("reader {TOKEN}\n"))
            ),
        );
        Site {
            gateway,
            client: c,
            _cluster: cluster,
        }
    }

    fn address(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.address)
    }

    /// The bundle of an order, as the database gives it.
    fn bundle(&mut self, order: i64) -> Value {
        let json: String = one(
            &mut self.client,
            &format!("SELECT json FROM proof_bundle_of('audit', 'orders', {order})"),
        );
        serde_json::from_str(&json).unwrap()
    }

    /// The page that readers keep, in a file of theirs.
    fn offline(&self) -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("verify.html");
        std::fs::write(&file, self.gateway.get("/page/merkle_log-verify.html").body).unwrap();
        let address = format!("file://{}", file.display());
        (directory, address)
    }
}

/// Puts texts into the form, lets it check them, and returns the verdict with the kind of problem.
fn check(browser: &Browser, document: &str, policy: &str) -> (String, String) {
    let verdict = browser.script_async(
        "const [document_, policy, done] = arguments;
         const field = (id) => document.getElementById(id);
         [field('document').value, field('policy').value] = [document_, policy];
         field('report').hidden = true;
         field('check').requestSubmit();
         const look = () => {
           const verdict = document.querySelector('#report:not([hidden]) .verdict');
           if (verdict === null) setTimeout(look, 2);
           else done([verdict.className.split(' ').at(-1), verdict.dataset.kind]);
         };
         setTimeout(look, 0);",
        json!([document, policy]),
    );
    let part = |place: usize| verdict[place].as_str().unwrap_or_default().to_owned();
    (part(0), part(1))
}

fn assert_quiet(browser: &Browser) {
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{complaints:?}");
}

const PROVEN: &str =
    "return document.querySelector('#report:not([hidden]) .verdict.proven') !== null";

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

#[test]
fn rows_of_a_log_that_is_not_public_need_a_token_that_no_address_shows() {
    let site = Site::start();
    let browser = Browser::start();
    browser.go(&site.address("/page/log/private/row?table=people&key=1"));
    assert!(browser.text("main").contains("not public") && !browser.text("main").contains("Ada"));
    // The proof by index is for everyone, and shows nothing of the row.
    browser.go(&site.address("/page/log/private/entry?entry=0"));
    browser.until(PROVEN);
    assert!(
        browser.text("#report").contains("withheld") && !browser.text("main").contains("people")
    );
    for (token, sees) in [("wrong", false), (TOKEN, true)] {
        browser.go(&site.address("/page/log/private"));
        browser.type_into("#table", "people");
        browser.type_into("#key", "1");
        browser.type_into("#token", token);
        browser.click("form[action$='/row'] button");
        browser.until("return document.readyState === 'complete' && document.querySelector('#token') === null");
        assert!(!browser.address().contains(token));
        assert_eq!(
            browser.text("main").contains("Ada Lovelace"),
            sees,
            "{token}"
        );
    }
    browser.until(PROVEN);
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
    // The form is there although no database is.
    let gateway = Gateway::prepare(tempfile::tempdir().unwrap(), "", |command| {
        command
            .env("PGHOST", "/nowhere")
            .args(["--listen", "127.0.0.1:0"]);
    });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("verify.html");
    std::fs::write(&file, gateway.get("/page/merkle_log-verify.html").body).unwrap();
    let browser = Browser::start();
    browser.go(&format!("file://{}", file.display()));
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/proof-format-vectors.json");
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(vectors).unwrap()).unwrap();
    let mut checked = 0;
    for list in ["bundles", "bad_bundles", "consistency", "bad_consistency"] {
        for vector in vectors[list].as_array().unwrap() {
            for form in ["json", "cbor"] {
                // Nothing at all is not a document that can be pasted.
                let Some(document) = vector[form].as_str().filter(|text| !text.is_empty()) else {
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

/// Every page of the site, in all its states.
const PAGES: [&str; 9] = [
    "/",
    "/page/log/audit",
    "/page/log/private",
    "/page/log/empty",
    "/page/log/%3Cscript%3Ealert(1)%3C%2Fscript%3E%20a%2Fb%3F%23%25",
    "/page/log/audit/row?table=orders&key=42",
    "/page/log/audit/entry?entry=300000",
    "/page/log/nowhere",
    "/page/verify",
];

#[test]
fn without_javascript_all_works_but_the_check() {
    let site = Site::start();
    let browser = Browser::start().without_javascript();
    browser.go(&site.address("/"));
    assert!(
        browser.text("main").contains("301"),
        "{}",
        browser.text("main")
    );
    browser.click("a[href='/page/log/audit']");
    browser.type_into("#table", "orders");
    browser.type_into("#key", "42");
    browser.click("form[action$='/row'] button");
    browser.until("return document.querySelector('noscript p') !== null || document.querySelector('#check') !== null");
    let page = browser.text("main");
    assert!(
        page.contains("order 42") && page.contains("52.5") && page.contains("merkle-log verify"),
        "{page}"
    );
    assert_eq!(
        browser.script(
            "return document.querySelector('#check button').disabled",
            json!([])
        ),
        json!(true)
    );
    assert_quiet(&browser);
}

#[test]
fn no_page_scrolls_sideways_on_a_phone() {
    let site = Site::start();
    let browser = Browser::start().phone(320);
    for page in PAGES {
        browser.go(&site.address(page));
        if page.contains("key=42") {
            browser.until(PROVEN);
            browser.script("document.querySelectorAll('details').forEach((details) => { details.open = true; })", json!([]));
        }
        let too_wide = browser.script(
            "return [...document.querySelectorAll('main *, header *, footer *')].filter((element) =>
                 element.getBoundingClientRect().right > innerWidth + 1).map((element) => element.outerHTML.slice(0, 120))",
            json!([]),
        );
        assert_eq!(too_wide, json!([]), "{page}");
        let scrolls = browser.script(
            "return document.scrollingElement.scrollWidth > innerWidth",
            json!([]),
        );
        assert_eq!(scrolls, json!(false), "{page}");
    }
}

/// WCAG 2.2 contrast of each element's own text, where that is less than it should be.
const PALE: &str = "
    const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const rgba = (color) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
    const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const color = rgba(getComputedStyle(at).backgroundColor);
            if (color[3] === 255) return color;
        }
        return rgba('Canvas');
    };
    const own = [...document.querySelectorAll('body *')].filter((element) => !element.closest('svg') && !element.matches(':disabled, noscript, script, .skip')
        && element.checkVisibility() && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim() !== ''));
    return own.map((element) => {
        const [a, b] = [luminance(rgba(getComputedStyle(element).color)), luminance(ground(element))];
        return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.outerHTML.slice(0, 100)];
    }).filter(([contrast]) => contrast < 4.5)";

#[test]
fn light_and_dark_are_told_apart_and_readable() {
    let site = Site::start();
    let ground = |browser: &Browser| {
        browser.script(
            "return getComputedStyle(document.body).backgroundColor",
            json!([]),
        )
    };
    let (light, dark) = (Browser::start(), Browser::start().dark());
    let mut grounds = Vec::new();
    for browser in [&light, &dark] {
        for page in PAGES {
            browser.go(&site.address(page));
            if page.contains("key=42") {
                browser.until(PROVEN);
            }
            assert_eq!(browser.script(PALE, json!([])), json!([]), "{page}");
        }
        grounds.push(ground(browser));
    }
    assert_ne!(grounds[0], grounds[1]);
}

const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';

#[test]
fn the_keyboard_reaches_everything_and_checks_a_proof() {
    let site = Site::start();
    let browser = Browser::start();
    for page in PAGES {
        browser.go(&site.address(page));
        if page.contains("key=42") {
            browser.until(PROVEN);
        }
        let count = browser.script(
            "window.left = new Set([...document.querySelectorAll('a[href], button, input, textarea, summary')].filter((element) => !element.disabled && element.checkVisibility()));
             return window.left.size",
            json!([]),
        );
        for _ in 0..count.as_u64().unwrap() + 3 {
            browser.press(TAB);
            browser.script("window.left.delete(document.activeElement)", json!([]));
        }
        let missed = browser.script(
            "return [...window.left].map((element) => element.outerHTML)",
            json!([]),
        );
        assert_eq!(missed, json!([]), "{page}");
    }
    browser.go(&site.address("/page/log/audit"));
    browser.script("document.getElementById('entry').focus()", json!([]));
    for digit in "41".chars() {
        browser.press(digit);
    }
    browser.press(ENTER);
    browser.until(PROVEN);
    browser.script("document.querySelector('#check button').focus()", json!([]));
    browser.press(ENTER);
    browser.until("return document.activeElement.id === 'report'");
}

#[test]
fn a_screen_reader_has_a_name_for_each_control_and_picture() {
    let site = Site::start();
    let browser = Browser::start();
    for page in PAGES {
        browser.go(&site.address(page));
        if page.contains("key=42") {
            browser.until(PROVEN);
        }
        let tree = browser.devtools("Accessibility.getFullAXTree", json!({}));
        let nodes = tree["nodes"].as_array().unwrap();
        let told = [
            "link",
            "button",
            "textbox",
            "image",
            "img",
            "DisclosureTriangle",
            "figure",
            "RootWebArea",
        ];
        let nameless: Vec<_> = nodes
            .iter()
            .filter(|node| {
                node["ignored"] == json!(false)
                    && told[..6].contains(&node["role"]["value"].as_str().unwrap_or_default())
            })
            .filter(|node| {
                node["name"]["value"]
                    .as_str()
                    .unwrap_or_default()
                    .trim()
                    .is_empty()
            })
            .collect();
        assert!(nameless.is_empty(), "{page}: {nameless:?}");
        let structure = browser.script(
            "const levels = [...document.querySelectorAll('h1, h2, h3')].map((heading) => Number(heading.tagName[1]));
             return [document.documentElement.lang, levels.filter((level) => level === 1).length,
                     levels.some((level, i) => i > 0 && level > levels[i - 1] + 1), document.querySelectorAll('main').length,
                     new Set([...document.querySelectorAll('[id]')].map((element) => element.id)).size === document.querySelectorAll('[id]').length]",
            json!([]),
        );
        assert_eq!(structure, json!(["en", 1, false, 1, true]), "{page}");
    }
}

#[test]
fn a_page_runs_its_own_script_only_and_shows_names_as_text() {
    let site = Site::start();
    let browser = Browser::start();
    for page in PAGES {
        browser.go(&site.address(page));
        assert_quiet_but_for_status(&browser, page);
    }
    browser.go(&site.address("/"));
    assert!(browser.text("main").contains(HOSTILE));
    browser.script("[...document.querySelectorAll('h2 a')].find((link) => link.textContent.includes('script')).click()", json!([]));
    browser.until("return document.querySelector('h1').textContent.includes('<script>')");
    // A script that somebody slips in does not run.
    let ran = browser.script(
        "const script = document.createElement('script'); script.setAttribute('src', '/logs'); document.body.append(script);
         const inline = document.createElement('img'); inline.setAttribute('onerror', 'window.ran = 1'); inline.setAttribute('src', '/nothing'); document.body.append(inline);
         return window.ran ?? null",
        json!([]),
    );
    assert_eq!(ran, Value::Null);
    // What is announced is what is served.
    let page = String::from_utf8(site.gateway.get("/").body).unwrap();
    assert_eq!(page.matches("integrity=\"sha256-").count(), 2, "{page}");
    assert!(!page.contains("style=\"") && !page.contains("onclick"));
}

/// A page that says that something is not there is itself found to be missing by the browser.
fn assert_quiet_but_for_status(browser: &Browser, page: &str) {
    let complaints = browser.complaints();
    let real: Vec<_> = complaints
        .iter()
        .filter(|line| !line.contains("the server responded with a status of 4"))
        .collect();
    assert!(real.is_empty(), "{page}: {real:?}");
}

/// Pictures for people, where somebody wants them: SCREENSHOTS names a directory.
#[test]
fn pictures_are_taken_where_they_are_asked_for() {
    let Some(directory) = std::env::var_os("SCREENSHOTS").map(PathBuf::from) else {
        return;
    };
    let site = Site::start();
    let named = [
        ("logs", PAGES[0]),
        ("log", PAGES[1]),
        ("private", PAGES[2]),
        ("entry", PAGES[5]),
        ("missing", PAGES[7]),
        ("verify", PAGES[8]),
    ];
    for (kind, browser) in [
        ("light", Browser::start()),
        ("dark", Browser::start().dark()),
        ("phone", Browser::start().phone(360)),
    ] {
        for (name, page) in named {
            browser.go(&site.address(page));
            if name == "entry" {
                browser.until(PROVEN);
            }
            browser.screenshot(&directory.join(format!("{name}-{kind}.png")));
        }
    }
}
