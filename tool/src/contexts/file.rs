//! Reading and writing of the file, as TOML.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::exit::{Failure, one_line};

/// The longest file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// Reads the file; a missing one is the default.
pub(super) fn read<T: DeserializeOwned + Default>(path: &Path) -> Result<T, Failure> {
    let fail = |why: String| Failure::usage(format!("contexts file {}: {why}", path.display()));
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
        Ok(found) if found.len() > MAX_BYTES => return Err(fail("larger than 1 MiB".into())),
        _ => {}
    }
    let text = fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    parse(&text).map_err(|why| fail(why).with_hint("correct or remove it"))
}

/// Parses TOML; an error is one line with its place and key, and without any value.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map(|before| before.matches('\n').count());
        let key = line.and_then(|line| text.lines().nth(line)).and_then(key_of);
        let message = one_line(error.message());
        // The part before it repeats the value.
        let (is_type, message) = match message.split_once(", expected ") {
            Some((found, expected)) if found.starts_with("invalid ") => (true, format!("expected {expected}")),
            _ => (false, message),
        };
        let place = line.map_or(String::new(), |line| format!("line {}: ", line + 1));
        let key = key.filter(|_| is_type).map_or(String::new(), |key| format!("{key}: "));
        format!("{place}{key}{message}")
    })
}

/// Returns the key of a line `key = value`.
fn key_of(line: &str) -> Option<&str> {
    let key = line.split_once('=')?.0.trim();
    let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    is_key.then_some(key)
}

/// Writes the file through a temporary one, readable by its owner only.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Failure> {
    let fail = |what: &str, why: &dyn std::fmt::Display| Failure::failed(format!("{what} {}: {why}", path.display()));
    let text = toml::to_string(value).map_err(|e| fail("write", &e))?;
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(|e| fail("create the directory of", &e))?;
    }
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&temporary).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    if written.is_err() {
        drop(fs::remove_file(&temporary));
    }
    written.map_err(|e| fail("write", &e))
}
