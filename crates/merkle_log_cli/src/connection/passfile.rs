//! Passwords from the file that PGPASSFILE names, or ~/.pgpass: lines `host:port:database:user:password`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The password of the first line that fits. A file that others may read is not used, as in psql.
pub fn find(file: &Path, wanted: [&str; 4]) -> Option<String> {
    let mode = std::fs::metadata(file)
        .ok()
        .filter(|file| file.is_file())?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        eprintln!(
            "merkle-log: warning: {} is not used: others may read it; run chmod 600 on it",
            file.display()
        );
        return None;
    }
    let text = std::fs::read_to_string(file).ok()?;
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| password(line, wanted))
}

fn password(line: &str, wanted: [&str; 4]) -> Option<String> {
    let mut rest = line;
    for wanted in wanted {
        let (field, after) = field(rest)?;
        if field != "*" && unescaped(field) != wanted {
            return None;
        }
        rest = after;
    }
    Some(unescaped(rest)).filter(|password| !password.is_empty())
}

/// Up to the next colon that no backslash is before.
fn field(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            ':' if !escaped => return Some((&text[..at], &text[at + 1..])),
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}

fn unescaped(text: &str) -> String {
    let mut characters = text.chars();
    let mut plain = String::new();
    while let Some(c) = characters.next() {
        match c {
            '\\' => plain.extend(characters.next()),
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_by_its_four_fields() {
        let wanted = ["db", "5432", "orders", "me"];
        for (line, found) in [
            ("db:5432:orders:me:secret", Some("secret")),
            ("*:*:*:me:a\\:b\\\\c:d", Some("a:b\\c:d")),
            ("d\\b:*:*:*:x", Some("x")),
            ("db:5433:orders:me:secret", None),
            ("db:5432:orders:me", None),
            ("", None),
        ] {
            assert_eq!(password(line, wanted).as_deref(), found, "{line}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pgpass");
        std::fs::write(&file, "# mine\n*:*:*:*:secret\n").unwrap();
        for (mode, found) in [(0o644, None), (0o600, Some("secret"))] {
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(find(&file, ["a", "1", "b", "c"]).as_deref(), found);
        }
    }
}
