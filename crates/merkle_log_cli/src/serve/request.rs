//! What requests say: the log's name, parameters, and who asks. What is not understood is refused, not ignored.

use super::gateway::{Gateway, Shared};
use super::problems::{Kind, Problem};
use super::tokens::Bearer;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use merkle_tree::{HASH_SIZE, Hash};
use std::collections::HashMap;
use url::form_urlencoded;

/// The log that the path names.
pub struct LogName(pub String);

impl FromRequestParts<Shared> for LogName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, gateway: &Shared) -> Result<LogName, Problem> {
        let path = Path::<HashMap<String, String>>::from_request_parts(parts, gateway).await;
        let log = path.ok().and_then(|Path(mut parts)| parts.remove("log"));
        log.map(LogName)
            .ok_or_else(|| Problem::bad_request("the path is not UTF-8"))
    }
}

/// The parameters of a query, each to be taken once; `end` refuses those that nobody took.
pub struct Parameters(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Parameters, Problem> {
        Parameters::parse(parts.uri.query().unwrap_or_default())
    }
}

impl Parameters {
    pub fn parse(query: &str) -> Result<Parameters, Problem> {
        let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        // Bytes that are no UTF-8 are replaced when they are decoded. A row must not be found by them.
        let replaced = pairs
            .iter()
            .map(|(name, value)| {
                name.matches('\u{fffd}').count() + value.matches('\u{fffd}').count()
            })
            .sum::<usize>();
        let upper = query.to_ascii_uppercase();
        let meant = upper.matches("%EF%BF%BD").count() + query.matches('\u{fffd}').count();
        if replaced > meant {
            return Err(Problem::bad_request("the query is not UTF-8"));
        }
        Ok(Parameters(pairs))
    }

    /// All values of a parameter.
    pub fn all(&mut self, name: &str) -> Vec<String> {
        let taken = self.0.extract_if(.., |(given, _)| given == name);
        taken.map(|(_, value)| value).collect()
    }

    pub fn text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let mut values = self.all(name);
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(Problem::bad_request(format!(
                "{name} is given more than once"
            ))),
        }
    }

    /// A size or an index.
    pub fn number(&mut self, name: &str) -> Result<Option<i64>, Problem> {
        self.text(name)?.map(|text| number(name, &text)).transpose()
    }

    pub fn hash(&mut self, name: &str) -> Result<Option<Hash>, Problem> {
        self.text(name)?.map(|text| hash(name, &text)).transpose()
    }

    /// That all that was given was understood.
    pub fn end(self) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Problem::bad_request(format!(
                "there is no parameter {name:?} here"
            ))
            .with_hint("GET /openapi.json says which there are, and which go together.")),
        }
    }
}

pub fn number(name: &str, text: &str) -> Result<i64, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text
        .parse()
        .ok()
        .filter(|number| digits && (0..=merkle_tree::MAX_SIZE as i64).contains(number));
    number.ok_or_else(|| Problem::bad_request(format!("{name} is not a number from 0 to 2^62 - 1")))
}

fn hash(name: &str, text: &str) -> Result<Hash, Problem> {
    let wrong = || {
        Problem::bad_request(format!("{name} is not a hash"))
            .with_hint("A hash is 64 hexadecimal digits.")
    };
    let digits = text.as_bytes();
    if digits.len() != 2 * HASH_SIZE {
        return Err(wrong());
    }
    let mut bytes = [0; HASH_SIZE];
    for (byte, digits) in bytes.iter_mut().zip(digits.chunks(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        let (high, low) = (value(digits[0]), value(digits[1]));
        *byte = high
            .zip(low)
            .map(|(high, low)| (16 * high + low) as u8)
            .ok_or_else(wrong)?;
    }
    Ok(Hash::from(bytes))
}

/// Who asks: what needs SELECT on a source is shown to whoever has a token, and of public logs to everyone.
pub struct Reader {
    has_token: bool,
}

impl FromRequestParts<Shared> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, gateway: &Shared) -> Result<Reader, Problem> {
        Reader::known(gateway.live().read_tokens.bearer(&parts.headers))
    }
}

impl Reader {
    /// Whoever gives this token otherwise than in a header.
    pub fn with_token(gateway: &Gateway, token: &str) -> Result<Reader, Problem> {
        Reader::known(gateway.live().read_tokens.given(token))
    }

    fn known(bearer: Bearer) -> Result<Reader, Problem> {
        match bearer {
            Bearer::None => Ok(Reader { has_token: false }),
            Bearer::Known(_) => Ok(Reader { has_token: true }),
            Bearer::Unknown => Err(Problem::new(
                Kind::Unauthorized,
                "the token is not known here",
            )),
        }
    }

    pub fn may_see_rows(&self, gateway: &Gateway, log: &str) -> bool {
        self.has_token || gateway.live().is_public(log)
    }

    pub fn has_token(&self) -> bool {
        self.has_token
    }

    /// For what says which rows there are, even if it shows nothing of them.
    pub fn must_see_rows(&self, gateway: &Gateway, log: &str) -> Result<(), Problem> {
        match self.may_see_rows(gateway, log) {
            true => Ok(()),
            false => Err(Problem::new(
                Kind::Unauthorized,
                format!("rows of the log \"{log}\" are not public"),
            )
            .with_hint("Ask by leaf index or leaf hash, or give a bearer token.")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(query: &str) -> Parameters {
        Parameters::parse(query).unwrap()
    }

    #[test]
    fn numbers_are_digits_and_nothing_else() {
        assert_eq!(parsed("size=7").number("size").unwrap(), Some(7));
        assert_eq!(parsed("").number("size").unwrap(), None);
        for wrong in [
            "-1",
            "+1",
            "",
            "1.0",
            "0x1",
            " 1",
            "4611686018427387904",
            "99999999999999999999",
        ] {
            let query: String = form_urlencoded::Serializer::new(String::new())
                .append_pair("size", wrong)
                .finish();
            assert!(parsed(&query).number("size").is_err(), "{wrong:?}");
        }
        assert!(parsed("size=1&size=1").number("size").is_err());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let mut parameters = parsed("index=1&inedx=2");
        parameters.number("index").unwrap();
        assert!(parameters.end().is_err());
    }

    #[test]
    fn bytes_that_are_no_text_find_nothing() {
        assert!(Parameters::parse("key=%FF").is_err());
        assert!(Parameters::parse("key=%EF%BF%BD%FF").is_err());
        assert_eq!(parsed("key=%ef%bf%bd").all("key"), ["\u{fffd}"]);
        assert_eq!(parsed("key=a%26b+c&key=").all("key"), ["a&b c", ""]);
    }

    #[test]
    fn hashes_are_64_digits() {
        let good = "0f".repeat(32);
        let hash = parsed(&format!("hash={good}"))
            .hash("hash")
            .unwrap()
            .unwrap();
        assert_eq!(hash.to_string(), good);
        for wrong in [
            &good[2..],
            &format!("{good}00"),
            &format!("{}é", &good[2..]),
            &good.replace('f', "g"),
        ] {
            assert!(
                parsed(&format!("hash={wrong}")).hash("hash").is_err(),
                "{wrong}"
            );
        }
    }
}
