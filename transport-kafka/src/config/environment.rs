//! Reads the settings from environment variables.
//!
//! The names of variables are the parameters of the URL in capitals, after a prefix, so that both
//! are documented once. A setting given twice, by the URL and by a variable, is an error: neither
//! order of precedence is obvious to a reader of a deployment.

use std::collections::BTreeMap;

use tidings_core::settings::{Address, ConnectionUrl, Setting, SettingError};
use tidings_core::{Error, Result};

use super::KafkaConfig;
use super::text::{PARAMETERS, Settings};
use super::url::DEFAULT_PORT;

/// Prefix of the environment variables.
const PREFIX: &str = "TIDINGS_KAFKA_";
/// Variables that are not URL parameters.
const OTHERS: [&str; 6] = ["url", "brokers", "username", "password", "token", "tls"];

impl KafkaConfig {
    /// Reads the settings from environment variables.
    ///
    /// `TIDINGS_KAFKA_URL` or `TIDINGS_KAFKA_BROKERS` (`a:9092,b:9092`) is required. Either one may be combined with
    /// `TIDINGS_KAFKA_USERNAME`, `TIDINGS_KAFKA_PASSWORD`, `TIDINGS_KAFKA_TOKEN`, `TIDINGS_KAFKA_TLS` (`true`,
    /// `false`) and `TIDINGS_KAFKA_<PARAMETER>` for each parameter of [`from_url`](Self::from_url), in capitals.
    ///
    /// # Errors
    /// [`Invalid`](tidings_core::ErrorKind::Invalid), naming the variable, the setting and the expected form; unknown
    /// variables are errors too. Errors never contain a value.
    ///
    /// The process's environment is read once, when this is called.
    pub fn from_env() -> Result<Self> {
        let ours = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?.strip_prefix(PREFIX)?.to_owned();
            Some((name, value.into_string()))
        });
        let mut variables = BTreeMap::new();
        for (name, value) in ours {
            let value = value.map_err(|_| in_variable(&name, SettingError::expected(name.to_lowercase(), "UTF-8")))?;
            variables.insert(name, value);
        }
        Self::from_variables(variables)
    }

    /// Reads variables without their prefix; apart from the environment, so that tests need not
    /// change it.
    pub(super) fn from_variables(mut variables: BTreeMap<String, String>) -> Result<Self> {
        let url = variables.remove("URL");
        let url = url.map(|url| ConnectionUrl::parts(&url)).transpose().map_err(|e| in_variable("URL", e))?;
        let mut config = match (&url, variables.remove("BROKERS")) {
            (Some(_), Some(_)) => return Err(in_variable("BROKERS", twice("brokers"))),
            (Some(url), None) => Self::from_parts(url).map_err(|e| in_variable("URL", e))?,
            (None, Some(list)) => Self::new(brokers(&list).map_err(|e| in_variable("BROKERS", e))?),
            (None, None) => {
                let expected = format_args!("host:port,..., or the variable {PREFIX}URL");
                return Err(in_variable("BROKERS", SettingError::expected("brokers", expected)));
            }
        };
        let mut settings = Settings::new(config.tls.take(), config.sasl.take());
        for (name, value) in &variables {
            let field = name.to_lowercase();
            let is_twice = url.as_ref().is_some_and(|url| url.has_parameter(&field));
            let set = if is_twice { Err(twice(&field)) } else { settings.set_variable(&mut config, &field, value) };
            set.map_err(|e| in_variable(name, e))?;
        }
        let of_field = |e: SettingError| in_variable(&variable_of(e.field(), &variables, url.as_ref()), e);
        settings.finish(&mut config).map_err(of_field)?;
        config.check().map_err(of_field)?;
        Ok(config)
    }
}

impl Settings {
    /// Sets one field; credentials are collected, and combined at the end.
    fn set_variable(&mut self, config: &mut KafkaConfig, field: &str, value: &str) -> Result<(), SettingError> {
        match field {
            "username" => self.username = Some(value.to_owned()),
            "password" => self.password = Some(value.into()),
            "token" => self.token = Some(value.into()),
            "tls" => return self.set_tls(value),
            _ if PARAMETERS.contains(&field) => return self.set(config, Setting::new(field, value)),
            _ => {
                let known: Vec<_> = OTHERS.into_iter().chain(PARAMETERS).collect();
                return Err(SettingError::unknown(field, &known));
            }
        }
        Ok(())
    }
}

/// Parses a list of addresses; a missing port is the default one.
fn brokers(list: &str) -> Result<Vec<String>, SettingError> {
    let broker = |(place, broker): (usize, &str)| {
        let address = Address::parse(&format!("brokers, number {place}"), broker.trim())?;
        Ok(address.or_port(DEFAULT_PORT).to_string())
    };
    (1..).zip(list.split(',')).map(broker).collect()
}

/// The error of a setting that the URL has already.
fn twice(field: &str) -> SettingError {
    SettingError::expected(field, format_args!("no value, because {PREFIX}URL sets it"))
}

/// Names the variable in an error, never its value.
fn in_variable(name: &str, error: SettingError) -> Error {
    error.in_variable(&format!("{PREFIX}{name}"))
}

/// Returns the variable that `field` was read from, or that would set it.
///
/// A check names the field; the reader of a deployment needs the variable, or the URL if that set
/// it.
fn variable_of(field: &str, set: &BTreeMap<String, String>, url: Option<&ConnectionUrl>) -> String {
    let name = match field {
        "tls.ca" => "TLS_CA".to_owned(),
        "tls.identity" => "TLS_CERT".to_owned(),
        "tls.identity key" => "TLS_KEY".to_owned(),
        "sasl.username" => "USERNAME".to_owned(),
        "sasl.password" => "PASSWORD".to_owned(),
        _ if field.starts_with("brokers") => "BROKERS".to_owned(),
        _ => field.to_uppercase(),
    };
    let is_of_url = |url: &ConnectionUrl| {
        url.has_parameter(&name.to_lowercase()) || matches!(&*name, "BROKERS" | "USERNAME" | "PASSWORD")
    };
    if !set.contains_key(&name) && url.is_some_and(is_of_url) { "URL".to_owned() } else { name }
}
