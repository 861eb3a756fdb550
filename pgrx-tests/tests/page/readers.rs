//! Whoever reads, on whatever they have: without JavaScript, on a phone, in the dark, by keyboard, by ear.

use super::site::*;
use serde_json::json;
use server_tests::browser::Browser;
use std::path::PathBuf;

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
            // A button changes its colours within a tenth of a second.
            browser.until("return document.getAnimations().length === 0");
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
