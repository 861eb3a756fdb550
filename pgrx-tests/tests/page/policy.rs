//! What a page runs, and whom it shows rows.

use super::site::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use server_tests::browser::Browser;
use sha2::{Digest, Sha256};

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
    // A script that somebody slips in does not run: each way fails, or does nothing.
    browser.script(
        "const append = (name, attribute, value) => {
           const element = document.createElement(name);
           if (attribute === 'text') element.textContent = value; else element.setAttribute(attribute, value);
           document.body.append(element);
         };
         for (const attempt of [['script', 'src', '/logs'], ['script', 'text', 'window.ran = 1'], ['img', 'onerror', 'window.ran = 1'],
                                ['style', 'text', 'body { position: fixed }'], ['iframe', 'src', '/']]) {
           try { append(...attempt); } catch { }
         }
         try { document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">'); } catch { }
         try { setTimeout('window.ran = 1', 0); } catch { }
         window.fetched = 'not yet';
         fetch('/logs').then(() => { window.fetched = 'yes'; }, () => { window.fetched = 'no'; });",
        json!([]),
    );
    browser.until("return window.fetched !== 'not yet'");
    let ran = browser.script(
        "return [window.ran ?? null, window.fetched, getComputedStyle(document.body).position]",
        json!([]),
    );
    assert_eq!(ran, json!([null, "no", "static"]));
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

#[test]
fn a_page_announces_the_digests_of_what_is_served() {
    let gateway = without_database();
    let answer = gateway.get("/page/verify");
    let policy = answer.header("content-security-policy").unwrap();
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    let page = String::from_utf8(answer.body.clone()).unwrap();
    assert!(
        !page.contains("style=\"") && !page.contains("<script>"),
        "{page}"
    );
    let mut announced = 0;
    for element in page
        .split('<')
        .filter(|element| element.contains("integrity="))
    {
        let attribute = |name: &str| {
            element
                .split(&format!("{name}=\""))
                .nth(1)
                .and_then(|rest| rest.split('"').next())
        };
        let path = attribute("src").or(attribute("href")).unwrap();
        let content = gateway.get(path);
        assert!(
            content
                .header("cache-control")
                .unwrap()
                .contains("immutable")
        );
        let digest = STANDARD.encode(Sha256::digest(&content.body));
        assert_eq!(
            attribute("integrity"),
            Some(format!("sha256-{digest}").as_str()),
            "{path}"
        );
        announced += 1;
    }
    assert_eq!(announced, 2, "{page}");
}

#[test]
fn where_a_browser_has_no_cryptography_the_page_says_so_and_proves_nothing() {
    let vector = vectors()["bundles"][0].clone();
    let gateway = without_database();
    let (_, port) = gateway.address.rsplit_once(':').unwrap();
    let browser = Browser::start();
    // Another host, without TLS.
    browser.go(&format!("http://another.example:{port}/page/verify"));
    let (document, policy) = (
        vector["json"].as_str().unwrap(),
        vector["policy"].as_str().unwrap(),
    );
    assert_eq!(
        check(&browser, document, policy),
        ("unknown".to_owned(), "Platform".to_owned())
    );
    assert!(browser.text("#report").contains("save the offline page"));
}
