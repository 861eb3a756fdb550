//! Answers in JSON or CBOR, as the request accepts them. Byte strings are lower-case hexadecimal in JSON.

use super::problems::{Kind, Problem};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};

/// Bytes of a hash, a path or leaf data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.serialize_str(&crate::output::hex(&self.0)),
            false => serializer.serialize_bytes(&self.0),
        }
    }
}

impl utoipa::PartialSchema for Bytes {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some(
                "Lower-case hexadecimal in JSON, a byte string in CBOR",
            ))
            .pattern(Some("^([0-9a-f]{2})*$"))
            .into()
    }
}

impl utoipa::ToSchema for Bytes {}

/// A format that an answer can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Cbor,
}

impl Format {
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Cbor => "application/cbor",
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Format {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Format, Problem> {
        let offered = [Format::Json, Format::Cbor];
        let chosen = preferred(&parts.headers, &offered.map(Format::media_type))?;
        Ok(offered[chosen])
    }
}

/// Which of the offered media types the request likes best; of equals the first (RFC 9110 §12.5.1).
pub fn preferred(headers: &HeaderMap, offered: &[&str]) -> Result<usize, Problem> {
    let values = headers.get_all(header::ACCEPT).iter();
    let accepted: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
    let ranges = || {
        accepted
            .iter()
            .flat_map(|value| value.split(','))
            .map(str::trim)
    };
    if ranges().all(str::is_empty) {
        return Ok(0);
    }
    let mut best = None;
    for (place, media_type) in offered.iter().enumerate() {
        // What names the type most closely counts.
        let closest = ranges()
            .filter_map(|range| matches(range, media_type))
            .max_by_key(|(closeness, _)| *closeness);
        if let Some((_, quality)) = closest
            && quality > 0
            && best.is_none_or(|(_, most)| quality > most)
        {
            best = Some((place, quality));
        }
    }
    best.map(|(place, _)| place).ok_or_else(|| {
        Problem::new(
            Kind::NotAcceptable,
            "none of the media types in Accept can be written",
        )
        .with_hint(format!("Accept {}.", offered.join(" or ")))
    })
}

/// How closely a range names a type, and its quality in thousandths.
fn matches(range: &str, media_type: &str) -> Option<(u8, u16)> {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next()?.to_ascii_lowercase();
    let group = media_type.split('/').next().unwrap_or_default();
    let closeness = match name.as_str() {
        "*/*" => 0,
        name if name == media_type => 2,
        name if name.strip_suffix("/*") == Some(group) => 1,
        _ => return None,
    };
    let quality = parts.find_map(|parameter| parameter.strip_prefix("q="));
    let quality = quality.map_or(Some(1.0), |q| {
        q.parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q))
    });
    Some((closeness, (quality.unwrap_or(0.0) * 1000.0) as u16))
}

/// An answer in the format that was asked for. It may change with the next batch.
pub struct Answer<T>(pub Format, pub T);

pub type Answered<T> = Result<Answer<T>, Problem>;

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let Answer(format, value) = self;
        let written = match format {
            Format::Json => serde_json::to_vec(&value).map_err(|error| error.to_string()),
            Format::Cbor => {
                let mut bytes = Vec::new();
                let written = ciborium::into_writer(&value, &mut bytes);
                written.map(|()| bytes).map_err(|error| error.to_string())
            }
        };
        match written {
            Ok(bytes) => (
                [
                    (header::CONTENT_TYPE, format.media_type()),
                    (header::CACHE_CONTROL, "no-cache"),
                    (header::VARY, "Accept, Authorization"),
                ],
                bytes,
            )
                .into_response(),
            Err(error) => {
                tracing::error!(%error, "an answer cannot be written");
                Problem::new(Kind::Internal, "the answer cannot be written").into_response()
            }
        }
    }
}

/// A content with its entity tag; nothing but the tag if the reader has it already (RFC 9110 §13.1.2).
pub fn tagged(
    headers: &HeaderMap,
    content: impl Into<axum::body::Bytes>,
    describing: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
) -> Response {
    let content = content.into();
    // The hash of a leaf is a SHA-256 like any other.
    let digest = merkle_tree::leaf_hash(&content);
    let tag = format!("\"{}\"", crate::output::hex(&digest.as_bytes()[..16]));
    let known = headers.get_all(header::IF_NONE_MATCH).iter().any(|given| {
        let given = given.to_str().unwrap_or_default();
        let mut tags = given.split(',').map(str::trim);
        tags.any(|given| given == "*" || given.strip_prefix("W/").unwrap_or(given) == tag)
    });
    let mut response = match known {
        true => axum::http::StatusCode::NOT_MODIFIED.into_response(),
        false => content.into_response(),
    };
    let own = response.headers_mut();
    own.remove(header::CONTENT_TYPE);
    own.extend(describing);
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        own.insert(header::ETAG, tag);
    }
    if known {
        own.remove(header::CONTENT_TYPE);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(accept: &str) -> Option<usize> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap());
        preferred(&headers, &["application/json", "application/cbor"]).ok()
    }

    #[test]
    fn the_format_that_is_liked_best_is_written() {
        assert_eq!(
            preferred(&HeaderMap::new(), &["application/json"]).ok(),
            Some(0)
        );
        assert_eq!(chosen("application/cbor"), Some(1));
        assert_eq!(
            chosen("Application/CBOR; q=0.5, application/json;q=0.4"),
            Some(1)
        );
        assert_eq!(chosen("*/*"), Some(0));
        assert_eq!(chosen("application/*;q=0.1, application/json;q=0"), Some(1));
        assert_eq!(chosen("text/html, */*;q=0.1"), Some(0));
        assert_eq!(chosen("text/html"), None);
        assert_eq!(chosen("application/json;q=nonsense"), None);
        assert_eq!(chosen(""), Some(0));
    }
}
