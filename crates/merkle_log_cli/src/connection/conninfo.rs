//! Connection strings as libpq reads them: keywords and values, or a URI.

use crate::output::Failure;

type Pairs = Vec<(String, String)>;

fn wrong(what: &str) -> Failure {
    Failure::Said(format!("the connection string is not valid: {what}"))
}

/// The settings that `--dbname` names; a text that is neither form is a database's name.
pub fn parse(text: &str) -> Result<Pairs, Failure> {
    let uri = ["postgresql://", "postgres://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    match uri {
        Some(rest) => self::uri(rest),
        None if text.contains('=') => keywords(text),
        None => Ok(vec![("dbname".to_owned(), text.to_owned())]),
    }
}

/// `keyword = value …`, where a value may be in single quotes, and a backslash takes the next character as it is.
fn keywords(text: &str) -> Result<Pairs, Failure> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest
            .split_once('=')
            .ok_or_else(|| wrong("a keyword has no value"))?;
        let name = name.trim_end();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(wrong("a keyword has no value"));
        }
        let after = after.trim_start();
        let quoted = after.strip_prefix('\'');
        let mut value = String::new();
        let mut characters = quoted.unwrap_or(after).chars();
        let mut closed = quoted.is_none();
        while let Some(c) = characters.next() {
            match c {
                '\\' => value.extend(characters.next()),
                '\'' if quoted.is_some() => {
                    closed = true;
                    break;
                }
                c if quoted.is_none() && c.is_whitespace() => break,
                c => value.push(c),
            }
        }
        if !closed {
            return Err(wrong("a quoted value has no end"));
        }
        pairs.push((name.to_owned(), value));
        rest = characters.as_str().trim_start();
    }
    Ok(pairs)
}

/// `[user[:password]@][host[:port],…][/dbname][?name=value&…]`, with percent encoding.
fn uri(text: &str) -> Result<Pairs, Failure> {
    let mut pairs = Vec::new();
    let mut add = |name: &str, value: &str| -> Result<(), Failure> {
        let value = decoded(value)?;
        if !value.is_empty() {
            pairs.push((name.to_owned(), value));
        }
        Ok(())
    };
    let (text, parameters) = text.split_once('?').unwrap_or((text, ""));
    let (authority, dbname) = text.split_once('/').unwrap_or((text, ""));
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (user, hosts),
        None => ("", authority),
    };
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    add("user", user)?;
    add("password", password)?;
    add("dbname", dbname)?;
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            Some(literal) => {
                let (name, after) = literal
                    .split_once(']')
                    .ok_or_else(|| wrong("a [ has no ]"))?;
                (name, after.strip_prefix(':').unwrap_or(""))
            }
            None => host.split_once(':').unwrap_or((host, "")),
        };
        names.push(name);
        ports.push(port);
    }
    if names.iter().any(|name| !name.is_empty()) {
        add("host", &names.join(","))?;
    }
    if ports.iter().any(|port| !port.is_empty()) {
        add("port", &ports.join(","))?;
    }
    for parameter in parameters
        .split('&')
        .filter(|parameter| !parameter.is_empty())
    {
        let (name, value) = parameter
            .split_once('=')
            .ok_or_else(|| wrong("a parameter has no value"))?;
        match decoded(name)?.as_str() {
            "ssl" if value == "true" => add("sslmode", "require")?,
            name => add(name, value)?,
        }
    }
    Ok(pairs)
}

fn decoded(text: &str) -> Result<String, Failure> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = after
            .get(..2)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(
            value
                .filter(|byte| *byte != 0)
                .ok_or_else(|| wrong("a percent sign without two digits"))?,
        );
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        let pairs = parse(text).unwrap();
        let pairs = pairs.iter().map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join("|")
    }

    #[test]
    fn connection_strings_are_read_as_libpq_reads_them() {
        assert_eq!(parsed("orders"), "dbname=orders");
        assert_eq!(
            parsed("host=a  port = 5433 dbname='my db' user=o\\'x"),
            "host=a|port=5433|dbname=my db|user=o'x"
        );
        assert_eq!(
            parsed("options='-c a=b\\'' user=''"),
            "options=-c a=b'|user="
        );
        assert_eq!(
            parsed(
                "postgresql://me@db.example:5433/orders?sslmode=verify-full&application_name=a%20b"
            ),
            "user=me|dbname=orders|host=db.example|port=5433|sslmode=verify-full|application_name=a b"
        );
        assert_eq!(
            parsed("postgres://%2Fvar%2Frun/x"),
            "dbname=x|host=/var/run"
        );
        assert_eq!(
            parsed("postgres://[::1]:6,b/x"),
            "dbname=x|host=::1,b|port=6,"
        );
        assert_eq!(
            parsed("postgres:///x?host=/tmp&ssl=true"),
            "dbname=x|host=/tmp|sslmode=require"
        );
        assert_eq!(parsed("postgres://"), "");
    }

    #[test]
    fn malformed_connection_strings_are_refused() {
        for text in [
            "a b=c",
            "=x",
            "host='a",
            "postgres://a%2",
            "postgres://a%zz",
            "postgres://a%00",
            "postgres://[::1/x",
            "postgres://a?b",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
