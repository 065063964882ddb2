//! libpq's password file.
//!
//! The client's own reader logs lines that it can't parse, passwords included.

use std::env;
use std::fs;
use std::path::PathBuf;

use tidings_core::Secret;

/// Returns the password of the first matching line: `host:port:database:user:password`, with `*` for any.
///
/// It is `PGPASSFILE` or `~/.pgpass`, and is ignored with a warning if others may read it, as by
/// libpq.
pub(crate) fn password(host: &str, port: u16, database: &str, user: &str) -> Option<Secret> {
    let file = env::var_os("PGPASSFILE").map(PathBuf::from);
    let file = file.or_else(|| env::home_dir().map(|home| home.join(".pgpass")))?;
    if is_open_to_others(&file) {
        tracing::warn!(path = %file.display(), "the password file is ignored because other users can read it; expected mode 0600");
        return None;
    }
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| password_of(line, [host, &port.to_string(), database, user]))
}

/// Checks the file's mode; a missing file is no finding.
#[cfg(unix)]
fn is_open_to_others(file: &std::path::Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o77 != 0)
}

#[cfg(not(unix))]
fn is_open_to_others(_: &std::path::Path) -> bool {
    false
}

/// Parses one line. A backslash takes the next character as it is.
fn password_of(line: &str, wanted: [&str; 4]) -> Option<Secret> {
    if line.starts_with('#') {
        return None;
    }
    let mut fields = vec![String::new()];
    let mut rest = line.chars();
    while let Some(sign) = rest.next() {
        match sign {
            // A colon in the password need not be escaped.
            ':' if fields.len() <= wanted.len() => fields.push(String::new()),
            '\\' => fields.last_mut()?.extend(rest.next()),
            _ => fields.last_mut()?.push(sign),
        }
    }
    let password = fields.get(wanted.len())?;
    let fits = fields.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted);
    fits.then(|| password.as_str().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_fits_has_the_password() {
        let found = |line| password_of(line, ["h", "5432", "d", "u"]).map(|password| password.expose().to_owned());
        assert_eq!(found("h:5432:d:u:pass").as_deref(), Some("pass"));
        assert_eq!(found(r"*:*:*:u:p\:a\\s:s").as_deref(), Some(r"p:a\s:s"));
        for other in ["", "# h:5432:d:u:pass", "x:5432:d:u:pass", "h:5432:d:u", "pass"] {
            assert_eq!(found(other), None, "{other}");
        }
    }
}
