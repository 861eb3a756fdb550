//! What all pages have: head, navigation, and the form in which a proof is checked.

use super::assets::{ICON, SCRIPT, STYLE};
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Which part of the site a page belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Logs,
    Verify,
}

/// A page of the server.
pub fn page(title: &str, part: Option<Part>, content: Markup) -> Markup {
    let link = |of: Part, path: &str, text: &str| {
        html! { li { a href=(path) aria-current=[(part == Some(of)).then_some("true")] { (text) } } }
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · merkle_log" }
                link rel="icon" href=(ICON.path());
                link rel="stylesheet" href=(STYLE.path()) integrity=(STYLE.integrity);
                script type="module" src=(SCRIPT.path()) integrity=(SCRIPT.integrity) {}
            }
            body {
                a class="skip" href="#content" { "Skip to the content" }
                header class="site" {
                    a class="name" href="/" { "merkle_log" }
                    nav aria-label="Site" { ul {
                        (link(Part::Logs, "/", "Logs"))
                        (link(Part::Verify, "/page/verify", "Check a proof"))
                        li { a href="/docs" { "API" } }
                    } }
                }
                main id="content" { (content) }
                footer class="site" {
                    p {
                        "This server shows what its database says. A proof is checked by your browser, with a key that you have \
                         from elsewhere: then you need not take the server's word for it."
                    }
                }
            }
        }
    }
}

/// The page that is kept as a file: the form alone, with script and style inside.
pub fn offline(policy: &str, script: &str, style: &str) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { "Check a proof · merkle_log" }
                link rel="icon" href="data:,";
                style { (PreEscaped(style)) }
            }
            body {
                header class="site" { span class="name" { "merkle_log" } }
                main id="content" {
                    h1 { "Check a proof" }
                    p {
                        "This file works without a network and sends nothing. It checks proofs of merkle_log, "
                        "with your browser's own cryptography."
                    }
                    (Check::default().form())
                }
                script type="module" { (PreEscaped(script)) }
            }
        }
    }
}

/// What the form has in it from the start.
#[derive(Default)]
pub struct Check<'c> {
    pub document: Option<&'c str>,
    /// The key that the server says is the log's.
    pub proposed_key: Option<&'c str>,
}

impl Check<'_> {
    /// The form, and the place for what the script has to say.
    pub fn form(&self) -> Markup {
        let key = self.proposed_key.unwrap_or_default();
        html! {
            noscript {
                p class="panel" {
                    "Checking needs JavaScript. Without it, save the proof and check it with "
                    code { "merkle-log verify" } ", or with one of the verifiers in Python, Go and JavaScript that come with merkle_log."
                }
            }
            form id="check" data-proposed=[self.proposed_key] {
                @if self.document.is_some() {
                    details { summary { "The proof that is checked" } (self.proof()) }
                } @else {
                    (self.proof())
                }
                div {
                    label for="policy" { "Verifier key" }
                    textarea id="policy" rows="2" spellcheck="false" autocomplete="off" aria-describedby="policy-hint" required { (key) }
                    p class="hint" id="policy-hint" {
                        @if self.proposed_key.is_some() {
                            strong { "This server proposes the key that is filled in." }
                            " Compare it with the one that the log's owner has published elsewhere: whoever can forge a log can also propose a key. "
                        } @else {
                            "The log's key, " code { "name+id+key" } ", from its owner, and not from whoever gave you the proof. "
                        }
                        "The text of a policy file (C2SP tlog-policy) with witnesses and a quorum can stand here as well."
                    }
                }
                button type="submit" disabled { "Check in this browser" }
            }
            section id="report" aria-live="polite" aria-label="Result" tabindex="-1" hidden {}
        }
    }

    fn proof(&self) -> Markup {
        html! {
            div class="proof" {
                div {
                    label for="document" { "Proof" }
                    textarea id="document" rows="7" spellcheck="false" autocomplete="off" aria-describedby="document-hint" {
                        (self.document.unwrap_or_default())
                    }
                    p class="hint" id="document-hint" {
                        "A proof bundle or a consistency proof: JSON, or CBOR as hexadecimal digits or base64."
                    }
                }
                div {
                    label for="file" { "Or a file with it" }
                    input id="file" type="file";
                }
            }
        }
    }
}
