//! Bearer tokens, from a file that others cannot read.

use crate::output::Failure;
use axum::http::{HeaderMap, header};
use merkle_tree::{Hash, leaf_hash};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use subtle::{ConditionallySelectable, ConstantTimeEq};

/// Tokens by their names. Digests are compared, all of them and in full, so that the time that takes says nothing of
/// any token.
#[derive(Default)]
pub struct Tokens(Vec<(String, Hash)>);

/// Characters of the shortest token.
const SHORTEST: usize = 32;

impl Tokens {
    /// Each line has a name and a token; empty lines and those that begin with # have none.
    pub fn read(file: &Path) -> Result<Tokens, Failure> {
        let metadata = std::fs::metadata(file).map_err(Failure::of(file))?;
        // A file of root's may be readable to a group.
        if metadata.permissions().mode() & 0o037 != 0 {
            return Err(Failure::Said(format!(
                "others may read the tokens in {}\nHint: Run chmod 600 on it.",
                file.display()
            )));
        }
        let text = std::fs::read_to_string(file).map_err(Failure::of(file))?;
        Tokens::parse(&text).map_err(|what| Failure::Said(format!("{}: {what}", file.display())))
    }

    fn parse(text: &str) -> Result<Tokens, String> {
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let tokens = lines.map(|line| {
            let (name, token) = line
                .split_once(char::is_whitespace)
                .ok_or("a line has no name before its token")?;
            let token = token.trim_start();
            match token.len() >= SHORTEST && token.bytes().all(|byte| byte.is_ascii_graphic()) {
                true => Ok((name.to_owned(), leaf_hash(token.as_bytes()))),
                false => Err(format!(
                    "the token of {name:?} is not of {SHORTEST} visible ASCII characters or more\n\
                     Hint: Make one with openssl rand -hex 32."
                )),
            }
        });
        Ok(Tokens(tokens.collect::<Result<_, String>>()?))
    }

    /// The name of the token that is given.
    fn find(&self, given: &str) -> Option<&str> {
        let given = leaf_hash(given.as_bytes());
        let mut found = u32::MAX;
        for (place, (_, token)) in (0..).zip(&self.0) {
            let same = token.as_bytes().ct_eq(given.as_bytes());
            found.conditional_assign(&place, same);
        }
        self.0.get(found as usize).map(|(name, _)| name.as_str())
    }

    /// Whose token a request has.
    pub fn bearer(&self, headers: &HeaderMap) -> Bearer<'_> {
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (given.next(), given.next()) else {
            return match headers.contains_key(header::AUTHORIZATION) {
                true => Bearer::Unknown,
                false => Bearer::None,
            };
        };
        let token = value.to_str().ok().and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then_some(token.trim())
        });
        token.map_or(Bearer::Unknown, |token| self.given(token))
    }

    /// Whose token it is.
    pub fn given(&self, token: &str) -> Bearer<'_> {
        match self.find(token) {
            Some(name) => Bearer::Known(name),
            None => Bearer::Unknown,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bearer<'t> {
    /// The request has no token.
    None,
    Unknown,
    Known(&'t str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_all_of_it() {
        let (a, b) = ("a".repeat(32), "b".repeat(40));
        let tokens = Tokens::parse(&format!("# who\n\nana {a}\nben\t{b}\n")).unwrap();
        assert_eq!(
            (tokens.find(&a), tokens.find(&b)),
            (Some("ana"), Some("ben"))
        );
        for wrong in ["", "ana", &a[1..], &format!("{a}a"), &b[..32]] {
            assert_eq!(tokens.find(wrong), None, "{wrong}");
        }
        assert_eq!(Tokens::default().find(""), None);
    }

    #[test]
    fn weak_tokens_are_refused() {
        for text in ["secret", "ana secret", &format!("ana {}é", "x".repeat(40))] {
            assert!(Tokens::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn another_scheme_is_no_token() {
        let a = "a".repeat(32);
        let tokens = Tokens::parse(&format!("ana {a}")).unwrap();
        let bearer = |values: &[String]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            format!("{:?}", tokens.bearer(&headers))
        };
        assert_eq!(bearer(&[]), "None");
        assert_eq!(bearer(&[format!("bearer  {a}")]), "Known(\"ana\")");
        for wrong in [
            vec![format!("Basic {a}")],
            vec![a.clone()],
            vec![format!("Bearer {a}"), "x".to_owned()],
        ] {
            assert_eq!(bearer(&wrong), "Unknown");
        }
    }
}
