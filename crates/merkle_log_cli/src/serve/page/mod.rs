//! The page for people: logs and their state, entries looked up, and proofs that the reader's browser checks. All of
//! it is made here and works without a script, but for the checking.

mod assets;
mod chart;
pub mod history;
mod layout;
mod logs;
mod lookup;

use super::gateway::Shared;
use super::problems::Problem;
use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use layout::{Check, Part, page};
use maud::{Markup, html};

pub fn router() -> Router<Shared> {
    Router::new()
        .route("/", get(logs::overview))
        .route("/page/log/{log}", get(logs::log))
        .route("/page/log/{log}/entry", get(lookup::entry))
        .route(
            "/page/log/{log}/row",
            get(lookup::row).post(lookup::row_with_token),
        )
        .route("/page/verify", get(verify))
        .route("/page/merkle_log-verify.html", get(offline))
        .route("/page/assets/{name}", get(asset))
}

/// A page, with what its browser may do.
pub struct Html {
    status: StatusCode,
    retry_after: Option<u32>,
    page: Markup,
}

impl Html {
    fn ok(page: Markup) -> Html {
        Html {
            status: StatusCode::OK,
            retry_after: None,
            page,
        }
    }
}

/// Scripts and styles come from here, nothing is fetched, and no text becomes a script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

impl IntoResponse for Html {
    fn into_response(self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (
                HeaderName::from_static("cross-origin-opener-policy"),
                "same-origin",
            ),
            // Rows may be in it.
            (header::CACHE_CONTROL, "no-store"),
        ];
        let mut response = (self.status, headers, self.page.into_string()).into_response();
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<Problem> for Html {
    fn from(problem: Problem) -> Html {
        let title = problem.kind.title();
        let content = html! {
            h1 { (title) }
            p { (sentence(&crate::output::printable(&problem.detail))) }
            @if let Some(hint) = &problem.hint { p { (crate::output::printable(hint)) } }
        };
        Html {
            status: problem.kind.status(),
            retry_after: problem.retry_after,
            page: page(title, None, content),
        }
    }
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut rest = text.chars();
    let first: String = rest
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .collect();
    format!("{first}{}.", rest.as_str().trim_end_matches('.'))
}

async fn verify() -> Html {
    let content = html! {
        h1 { "Check a proof" }
        p {
            "Your browser checks it, and sends nothing. To rely on this server even less, "
            a href="/page/merkle_log-verify.html" download { "save this form as a file" }
            ": it works without a network, and what you have saved cannot be changed any more."
        }
        (Check::default().form())
    };
    Html::ok(page("Check a proof", Some(Part::Verify), content))
}

async fn offline() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"merkle_log-verify.html\"",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, assets::OFFLINE.as_str()).into_response()
}

async fn asset(Path(name): Path<String>) -> Result<Response, Html> {
    let asset = assets::named(&name).ok_or_else(|| {
        let problem = Problem::new(
            super::problems::Kind::NotFound,
            format!("there is no {name:?} here"),
        );
        problem.with_hint("Load the page again: the gateway has another version now.")
    })?;
    let headers = [
        (header::CONTENT_TYPE, asset.media_type),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    Ok((headers, asset.content.as_str()).into_response())
}

/// A name as one segment of a path.
fn in_path(name: &str) -> String {
    let escaped = name.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    });
    escaped.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_one_segment_of_a_path() {
        assert_eq!(in_path("audit"), "audit");
        assert_eq!(in_path("../a b/ü?#"), "..%2Fa%20b%2F%C3%BC%3F%23");
    }

    #[test]
    fn a_problem_is_shown_as_text() {
        let problem =
            Problem::bad_request("there is no parameter <b>\u{202e}x</b>").with_hint("<script>");
        let shown = Html::from(problem);
        assert_eq!(shown.status, StatusCode::BAD_REQUEST);
        let page = shown.page.into_string();
        assert!(
            page.contains("&lt;b&gt;\\u{202e}x")
                && !page.contains("<b>")
                && page.contains("&lt;script&gt;")
        );
    }
}
