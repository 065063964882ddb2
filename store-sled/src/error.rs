//! Maps errors of sled and the file system to ours.
//!
//! The kinds that matter are `Corrupt`, which an operator has to judge, and `Unavailable`, which a
//! retry may solve. sled reports several causes as plain IO errors, so some are told apart by their
//! text.

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use tidings_core::{Error, ErrorKind};

/// Why a store broke: it is closed and reopened later.
///
/// Cheap to clone: all callers that wait get the same reason.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub(crate) kind: ErrorKind,
    what: Arc<str>,
}

pub(crate) type Result<T, E = Broken> = std::result::Result<T, E>;

impl Broken {
    pub(crate) fn new(kind: ErrorKind, what: impl Into<Arc<str>>) -> Self {
        Self { kind, what: what.into() }
    }

    /// Reports damaged content of a file.
    pub(crate) fn corrupt(path: &Path, what: &str) -> Self {
        Self::new(ErrorKind::Corrupt, format!("{}: {what}", path.display()))
    }

    /// Reports a failed file operation, with its path.
    pub(crate) fn io(doing: &str, path: &Path, error: &io::Error) -> Self {
        Self::new(kind_of(error), format!("{doing} {}: {error}", path.display()))
    }

    /// Reports a failure of sled. A log that ends too early is damage, and a held lock is another
    /// owner.
    pub(crate) fn sled(doing: &str, path: &Path, error: &sled::Error) -> Self {
        let kind = match error {
            sled::Error::Io(e) if e.to_string().starts_with("could not acquire lock") => ErrorKind::Conflict,
            sled::Error::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => ErrorKind::Corrupt,
            sled::Error::Io(e) => kind_of(e),
            sled::Error::Unsupported(_) | sled::Error::Corruption { .. } | sled::Error::CollectionNotFound(_) => {
                ErrorKind::Corrupt
            }
            _ => ErrorKind::Unavailable,
        };
        Self::new(kind, format!("{doing} {}: {error}", path.display()))
    }

    /// Converts to the error of `open`, which names the store's path once and the cause.
    pub(crate) fn of_open(&self, path: &Path) -> Error {
        let path = path.display().to_string();
        let context =
            if self.what.contains(&path) { "open the sled store" } else { &format!("open the sled store {path}") };
        Error::explained(self.kind, context, self)
    }

    /// Converts to the error of a call: nothing was acknowledged, and the store reopens itself.
    pub(crate) fn down(&self) -> Error {
        Error::caused_by(ErrorKind::Unavailable, "use the store: it failed and is being reopened", self.clone())
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Broken {}

/// A full disk is `Unavailable`: space can be freed while the service runs.
fn kind_of(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    }
}

/// Runs `work` and converts a panic to a broken store; sled panics in places where it should return errors.
///
/// The work must leave no state behind that a later call would trust.
pub(crate) fn guarded<T>(doing: &str, panic_is: ErrorKind, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(Broken::new(panic_is, format!("{doing}: sled panicked: {}", text(&*panic)))))
}

/// Returns the message of a panic.
fn text(panic: &(dyn Any + Send)) -> &str {
    let of_string = panic.downcast_ref::<String>().map(String::as_str);
    of_string.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_apart() {
        let io = |kind: io::ErrorKind, text: &'static str| sled::Error::Io(io::Error::new(kind, text));
        for (error, kind) in [
            (io(io::ErrorKind::Other, "could not acquire lock on \"db\""), ErrorKind::Conflict),
            (io(io::ErrorKind::UnexpectedEof, "no more"), ErrorKind::Corrupt),
            (io(io::ErrorKind::PermissionDenied, "no"), ErrorKind::Denied),
            (io(io::ErrorKind::ReadOnlyFilesystem, "no"), ErrorKind::Denied),
            (io(io::ErrorKind::NotADirectory, "no"), ErrorKind::Invalid),
            (io(io::ErrorKind::InvalidInput, "no"), ErrorKind::Invalid),
            (io(io::ErrorKind::StorageFull, "no"), ErrorKind::Unavailable),
            (sled::Error::Unsupported("an old file".to_owned()), ErrorKind::Corrupt),
            (sled::Error::ReportableBug("a bug".to_owned()), ErrorKind::Unavailable),
        ] {
            assert_eq!(Broken::sled("open", Path::new("x"), &error).kind, kind, "{error}");
        }
    }

    #[test]
    fn a_panic_is_reported_with_its_message() {
        let broken = |work: fn() -> Result<()>| guarded("write", ErrorKind::Corrupt, work).unwrap_err();
        for (work, message) in [
            ((|| panic!("text")) as fn() -> Result<()>, "text"),
            (|| panic!("{}", 7), "7"),
            (|| std::panic::panic_any(7), "no message"),
        ] {
            let broken = broken(work);
            assert_eq!(
                (broken.kind, broken.to_string()),
                (ErrorKind::Corrupt, format!("write: sled panicked: {message}"))
            );
        }
        assert_eq!(broken(|| Err(Broken::new(ErrorKind::Denied, "no"))).kind, ErrorKind::Denied);
    }

    #[test]
    fn an_error_of_open_names_the_path_once_and_the_cause() {
        let path = Path::new("/data/events");
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        for broken in [
            Broken::io("create", path, &denied),
            Broken::io("create", &path.join("claims"), &denied),
            Broken::corrupt(path, "permission denied"),
            Broken::new(ErrorKind::Unavailable, "a thread: permission denied"),
        ] {
            let error = broken.of_open(path);
            let text = error.to_string();
            assert!(text.matches("/data/events").count() == 1 && text.contains("permission denied"), "{text}");
            assert_eq!(text, error.report());
        }
    }
}
