//! How an instance of a service presents itself in a directory.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::directory::Directory;
use tidings_core::{Error, ErrorKind, Result};

/// How an instance of a service presents itself in a directory: see [`Service::with_directory`](crate::Service::with_directory).
///
/// ```
/// use tidings_service::DirectoryOptions;
///
/// let options = DirectoryOptions::new("http://10.0.0.7:9400").with_version(env!("CARGO_PKG_VERSION"));
/// assert_eq!(options.ttl, DirectoryOptions::DEFAULT_TTL);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DirectoryOptions {
    /// The URL under which operators reach this instance's ops endpoint. It must contain no user and no password.
    pub advertised_url: String,
    /// The version of the program. Default: empty.
    pub version: String,
    /// The instance's id. Default: the service's [instance id](crate::Service::with_instance_id), otherwise a new UUID.
    pub instance: Option<String>,
    /// How long an entry is valid; it is refreshed three times in this time. Default:
    /// [`DEFAULT_TTL`](Self::DEFAULT_TTL).
    pub ttl: Duration,
    /// The directory. Default: the compacted topic [`DIRECTORY_TOPIC`](tidings_core::directory::DIRECTORY_TOPIC) of the service's transport, created if it is
    /// missing.
    pub directory: Option<Arc<dyn Directory>>,
}

impl DirectoryOptions {
    /// The default of [`ttl`](Self::ttl).
    pub const DEFAULT_TTL: Duration = Duration::from_secs(30);
    /// The shortest [`ttl`](Self::ttl).
    pub const MIN_TTL: Duration = Duration::from_secs(3);

    /// Creates options with the URL of the instance's ops endpoint; an empty one if it has none.
    pub fn new(advertised_url: impl Into<String>) -> Self {
        let advertised_url = advertised_url.into();
        Self { advertised_url, version: String::new(), instance: None, ttl: Self::DEFAULT_TTL, directory: None }
    }

    /// Sets the version of the program.
    #[must_use]
    pub fn with_version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Sets the instance's id, unique among the instances of the service.
    #[must_use]
    pub fn with_instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// Sets how long an entry is valid.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets another directory, such as a Postgres store; an `Arc` of one is one as well.
    #[must_use]
    pub fn with_directory(mut self, directory: impl Directory) -> Self {
        self.directory = Some(Arc::new(directory));
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::new(ErrorKind::Invalid, format!("its directory entry: {what}")));
        let authority = self.advertised_url.split_once("://").map_or(&*self.advertised_url, |(_, rest)| rest);
        if authority.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@')) {
            return wrong("the advertised URL must contain no user and no password");
        }
        if self.ttl < Self::MIN_TTL {
            return wrong(&format!("the ttl is {:?}, it must be at least {:?}", self.ttl, Self::MIN_TTL));
        }
        Ok(())
    }
}

impl From<&str> for DirectoryOptions {
    fn from(advertised_url: &str) -> Self {
        Self::new(advertised_url)
    }
}

impl From<String> for DirectoryOptions {
    fn from(advertised_url: String) -> Self {
        Self::new(advertised_url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_with_a_password_is_refused() {
        for url in ["http://ann:secret@10.0.0.7:9400", "ann@host", "https://ann@host/x"] {
            let error = DirectoryOptions::new(url).check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        for url in ["", "http://10.0.0.7:9400/ops?to=a@b", "http://[::1]:9400"] {
            DirectoryOptions::new(url).check().unwrap();
        }
    }
}
