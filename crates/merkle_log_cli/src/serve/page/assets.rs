//! Scripts and styles, as they are served, each with the digest by which the reader's browser knows it; and the
//! page that a reader keeps as one file, which works without a network.
//!
//! The verifier is that of `examples/verify/javascript`. Its modules are joined to one script, because the digest of
//! a script covers that script, and not what it imports.

use super::layout;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// A file that never changes under its name.
pub struct Asset {
    pub name: String,
    pub media_type: &'static str,
    pub content: String,
    /// As the attribute `integrity` has it.
    pub integrity: String,
}

/// In an order in which each module comes after those that it imports.
const MODULES: [&str; 5] = [
    include_str!("../../../../../examples/verify/javascript/bytes.js"),
    include_str!("../../../../../examples/verify/javascript/leaf-data.js"),
    include_str!("../../../../../examples/verify/javascript/verify.js"),
    include_str!("assets/picture.js"),
    include_str!("assets/page.js"),
];

pub static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("js", "text/javascript; charset=utf-8", joined(&MODULES)));

pub static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    let style = include_str!("assets/page.css").to_owned();
    Asset::new("css", "text/css; charset=utf-8", style)
});

pub static ICON: LazyLock<Asset> = LazyLock::new(|| {
    let icon = include_str!("assets/icon.svg").to_owned();
    Asset::new("svg", "image/svg+xml", icon)
});

/// The page that checks proofs, as one file with nothing but itself to rely on.
pub static OFFLINE: LazyLock<String> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; base-uri 'none'; form-action 'none'",
        SCRIPT.integrity, STYLE.integrity
    );
    layout::offline(&policy, &SCRIPT.content, &STYLE.content).into_string()
});

/// The asset with a name.
pub fn named(name: &str) -> Option<&'static Asset> {
    let all: [&'static Asset; 3] = [&SCRIPT, &STYLE, &ICON];
    all.into_iter().find(|asset| asset.name == name)
}

impl Asset {
    fn new(extension: &str, media_type: &'static str, content: String) -> Asset {
        let digest = Sha256::digest(&content);
        Asset {
            name: format!("page.{}.{extension}", crate::output::hex(&digest[..8])),
            media_type,
            integrity: format!("sha256-{}", STANDARD.encode(digest)),
            content,
        }
    }

    pub fn path(&self) -> String {
        format!("/page/assets/{}", self.name)
    }
}

/// Modules as one: what they import from each other is there already.
fn joined(modules: &[&str]) -> String {
    let lines = modules.iter().flat_map(|module| module.lines());
    let kept = lines.filter(|line| !line.starts_with("import "));
    kept.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_relies_on_no_other_file() {
        assert!(!SCRIPT.content.contains("import ") && !SCRIPT.content.contains("import("));
        // It would end the element that has it in the offline page.
        assert!(!SCRIPT.content.contains("</") && !SCRIPT.content.contains("<!--"));
        assert!(!STYLE.content.contains("</") && !STYLE.content.contains("url("));
    }

    #[test]
    fn the_offline_page_allows_its_own_script_and_style_and_nothing_else() {
        let page = OFFLINE.as_str();
        for kept in ["default-src &#39;none&#39;", "default-src 'none'"] {
            if page.contains(kept) {
                assert!(page.contains(&SCRIPT.integrity) && page.contains(&STYLE.integrity));
                assert!(
                    !page.contains("http://")
                        || page.matches("http://").count()
                            == SCRIPT.content.matches("http://").count()
                );
                return;
            }
        }
        panic!("no policy: {page}");
    }

    #[test]
    fn an_asset_is_found_under_the_name_of_its_content_alone() {
        assert!(
            named(&SCRIPT.name)
                .is_some_and(|asset| asset.media_type.starts_with("text/javascript"))
        );
        for other in ["page.js", "", "../page.js", "page.0000000000000000.js"] {
            assert!(named(other).is_none());
        }
    }
}
