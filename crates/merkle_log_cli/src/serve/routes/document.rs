//! The OpenAPI document, and the page that shows it without any other file.

use crate::serve::gateway::Shared;
use crate::serve::problems::{Kind, ProblemDetails};
use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use utoipa::openapi::path::{Operation, Parameter};
use utoipa::openapi::{
    Content, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Response, ResponseBuilder,
};

pub fn start() -> OpenApi {
    let info = InfoBuilder::new()
        .title("merkle-log gateway")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Roots, proofs, entries and tiles of append-only logs. Hashes and proofs are for everyone; rows are for those \
             who have a token, or for everyone where a log is public. A proof is checked with a key that comes from \
             somewhere else.",
        ));
    OpenApiBuilder::new().info(info.build()).build()
}

/// All problems, in the documentation of an operation.
pub struct Problems;

impl utoipa::IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let response = |kind: Kind| {
            let schema = Ref::from_schema_name("ProblemDetails");
            let content = Content::new(Some(schema));
            let response = ResponseBuilder::new()
                .description(kind.title())
                .content("application/problem+json", content);
            (kind.status().as_str().to_owned(), response.build().into())
        };
        Kind::ALL.into_iter().map(response).collect()
    }
}

pub fn router(mut document: OpenApi) -> Router<Shared> {
    use utoipa::{PartialSchema, ToSchema};
    let components = document.components.get_or_insert_default();
    let name = ProblemDetails::name().into_owned();
    components.schemas.insert(name, ProblemDetails::schema());
    describe_as_served(&mut document);
    let page: Arc<str> = page(&document).into();
    let json: Arc<str> = document.to_json().unwrap_or_default().into();
    let json = move || async move {
        let headers = [
            (header::CONTENT_TYPE, "application/json"),
            (header::CACHE_CONTROL, "max-age=300"),
        ];
        (headers, json.to_string())
    };
    let page = move || async move {
        let headers = [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CACHE_CONTROL, "max-age=300"),
            (
                header::CONTENT_SECURITY_POLICY,
                "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            ),
        ];
        (headers, page.to_string()).into_response()
    };
    Router::new()
        .route("/openapi.json", get(json))
        .route("/docs", get(page))
}

/// What the routes' own descriptions leave out: that answers are CBOR too, and that OpenAPI knows no wildcards.
fn describe_as_served(document: &mut OpenApi) {
    let paths = std::mem::take(&mut document.paths.paths).into_iter();
    document.paths.paths = paths
        .map(|(path, item)| (path.replace("{*", "{"), item))
        .collect();
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post];
        for operation in operations.into_iter().flatten() {
            for response in operation.responses.responses.values_mut() {
                if let RefOr::T(response) = response
                    && let Some(json) = response.content.get("application/json").cloned()
                {
                    let cbor = "application/cbor".to_owned();
                    response.content.entry(cbor).or_insert(json);
                }
            }
        }
    }
}

const STYLE: &str = "
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
body { max-width: 56rem; margin: 2rem auto; padding: 0 1rem }
h2 { border-top: 1px solid #8888; padding-top: 1rem; font-size: 1.1rem; overflow-wrap: anywhere }
code { font-family: ui-monospace, monospace }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0 }
";

fn page(document: &OpenApi) -> String {
    let mut html = String::new();
    let info = &document.info;
    // Writing to a String does not fail.
    let _ = write!(
        html,
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body><main><h1>{title}</h1>\
         <p>{description}</p><p>The same for programs: <a href=\"openapi.json\"><code>openapi.json</code></a>.</p>",
        title = escaped(&info.title),
        description = escaped(info.description.as_deref().unwrap_or_default()),
    );
    for (path, item) in &document.paths.paths {
        let operations = [
            ("GET", &item.get),
            ("POST", &item.post),
            ("DELETE", &item.delete),
        ];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                describe(&mut html, method, path, operation);
            }
        }
    }
    let _ = write!(
        html,
        "<h2>Problems</h2><p>Errors are problem details (RFC 9457).</p><table>"
    );
    for kind in Kind::ALL {
        let _ = write!(
            html,
            "<tr id=\"{name}\"><td>{status}</td><td><code>{name}</code></td><td>{title}.</td></tr>",
            name = kind.name(),
            status = kind.status().as_str(),
            title = escaped(kind.title()),
        );
    }
    html.push_str("</table></main></body></html>");
    html
}

fn describe(html: &mut String, method: &str, path: &str, operation: &Operation) {
    let texts = [&operation.summary, &operation.description];
    let texts: Vec<_> = texts
        .into_iter()
        .flatten()
        .map(|text| escaped(text))
        .collect();
    let _ = write!(
        html,
        "<h2><code>{method} {}</code></h2><p>{}</p>",
        escaped(path),
        texts.join("</p><p>")
    );
    let parameters = operation.parameters.as_deref().unwrap_or_default();
    if parameters.is_empty() {
        return;
    }
    html.push_str("<table>");
    for Parameter {
        name, description, ..
    } in parameters
    {
        let description = description.as_deref().unwrap_or_default();
        let _ = write!(
            html,
            "<tr><td><code>{}</code></td><td>{}</td></tr>",
            escaped(name),
            escaped(description)
        );
    }
    html.push_str("</table>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
