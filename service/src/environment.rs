//! Settings of a service from environment variables.
//!
//! One table maps the names of variables to setters of [`Options`]. It is the only list of them: an unknown variable
//! with the prefix is an error that names the closest known one, since a misspelt limit that is ignored is found too
//! late.

use std::ffi::OsString;

use tidings_core::settings::{Setting, SettingError};
use tidings_core::{Name, Result, Start};

use crate::settings::Options;

/// Parses a setting and writes it into the options. A setter checks the form only; `start` checks the range.
type Set = fn(&mut Options, Setting<'_>) -> std::result::Result<(), SettingError>;

/// The variables by their names without the prefix, in lower case.
const SETTINGS: &[(&str, Set)] = &[
    ("group", |o, s| text(s).map(|group| o.membership.group = group)),
    ("instance_id", |o, s| text(s).map(|id| o.membership.instance_id = Some(id))),
    ("topic_prefix", |o, s| text(s).map(|prefix| o.topics.prefix = prefix)),
    ("scope", |o, s| text(s).map(|scope| o.claims.scope = scope)),
    ("start", |o, s| {
        s.choice(&[("earliest", Start::Earliest), ("latest", Start::Latest)]).map(|start| o.topics.start = start)
    }),
    ("workers", |o, s| s.number().map(|workers| o.flow.workers = Some(workers))),
    ("concurrency", |o, s| s.number().map(|deliveries| o.flow.concurrency = deliveries)),
    ("max_bytes_in_flight", |o, s| s.bytes().map(|bytes| o.flow.max_bytes = bytes)),
    ("max_span", |o, s| s.number().map(|offsets| o.flow.max_span = offsets)),
    ("commit_interval", |o, s| s.duration().map(|interval| o.flow.commit_interval = interval)),
    ("handler_timeout", |o, s| s.duration().map(|timeout| o.flow.handler_timeout = Some(timeout))),
    ("lease_ttl", |o, s| s.duration().map(|ttl| o.claims.lease_ttl = ttl)),
    ("session_timeout", |o, s| s.duration().map(|timeout| o.membership.session_timeout = Some(timeout))),
    ("revocation_deadline", |o, s| s.duration().map(|deadline| o.membership.revocation_deadline = deadline)),
    ("shutdown_timeout", |o, s| s.duration().map(|timeout| o.shutdown_timeout = timeout)),
];

/// Returns the value as a name. An empty variable is refused: it is most likely an unset value in a deployment's
/// template.
fn text(setting: Setting<'_>) -> std::result::Result<Name, SettingError> {
    if setting.text().is_empty() { Err(setting.expected("text that is not empty")) } else { Ok(setting.text().into()) }
}

/// Applies those of `variables` whose names begin with `prefix`.
pub(crate) fn apply(
    options: &mut Options,
    prefix: &str,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<()> {
    for (name, value) in variables {
        let Ok(name) = name.into_string() else { continue };
        let Some(field) = name.strip_prefix(prefix) else { continue };
        set(options, &field.to_lowercase(), value).map_err(|error| error.in_variable(&name))?;
    }
    Ok(())
}

/// Applies one variable. A value that is not UTF-8 is refused without being shown.
fn set(options: &mut Options, field: &str, value: OsString) -> std::result::Result<(), SettingError> {
    let known = || SETTINGS.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    let found = SETTINGS.iter().find(|(name, _)| *name == field);
    let (name, set) = found.ok_or_else(|| SettingError::unknown(field, &known()))?;
    let value = value.into_string().map_err(|_| SettingError::expected(*name, "UTF-8"))?;
    set(options, Setting::new(name, &value))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidings_core::{Delivery, ErrorKind};

    use super::*;
    use crate::{Router, Service};

    fn with(variables: &[(&str, &str)]) -> Result<Options> {
        let mut options = Service::new("s", Router::new().on_topic("t", async |_: Delivery| {})).options;
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        apply(&mut options, "ORDERS_", variables).map(|()| options)
    }

    #[test]
    fn variables_with_the_prefix_override_the_settings() {
        let options = with(&[
            ("ORDERS_GROUP", "orders-blue"),
            ("ORDERS_INSTANCE_ID", "pod-3"),
            ("ORDERS_WORKERS", "2"),
            ("ORDERS_MAX_BYTES_IN_FLIGHT", "16MiB"),
            ("ORDERS_SHUTDOWN_TIMEOUT", "10s"),
            ("ORDERS_START", "latest"),
            ("OTHERS_GROUP", "not ours"),
            ("PATH", "/bin"),
        ]);
        let options = options.unwrap();
        assert_eq!(
            (&*options.membership.group, options.membership.instance_id.as_deref()),
            ("orders-blue", Some("pod-3"))
        );
        assert_eq!((options.flow.workers, options.flow.max_bytes), (Some(2), 16 << 20));
        assert_eq!((options.shutdown_timeout, options.topics.start), (Duration::from_secs(10), Start::Latest));
    }

    #[test]
    fn every_setting_has_a_value_that_is_accepted() {
        for (name, set) in SETTINGS {
            let mut options = with(&[]).unwrap();
            let accepts = |value: &&str| set(&mut options, Setting::new(name, value)).is_ok();
            assert!(["latest", "5", "5s"].iter().any(accepts), "{name}");
        }
    }

    #[test]
    fn an_error_names_the_variable_and_not_its_value() {
        for (name, value, part) in [
            ("ORDERS_WORKERS", "many", "workers: expected a number"),
            ("ORDERS_GRUOP", "s3cr3t", "did you mean group?"),
            ("ORDERS_GROUP", "", "group: expected text that is not empty"),
            ("ORDERS_COMMIT_INTERVAL", "5", "commit_interval: expected a duration"),
            ("ORDERS_START", "s3cr3t", "start: expected earliest, latest"),
        ] {
            let error = with(&[(name, value)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            let text = error.report();
            assert!(text.contains(name) && text.contains(part) && !text.contains("s3cr3t"), "{text}");
        }
    }
}
