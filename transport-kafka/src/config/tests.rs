//! Tests of URLs, environment variables and their error messages.

use std::time::Duration;

use tidings_core::{ErrorKind, Result};

use super::*;

const CANARY: &str = "c4n4ry-p4ssw0rd";

fn refused(url: &str) -> String {
    let error = KafkaConfig::from_url(url).unwrap_err();
    assert_eq!(error.kind(), if url.contains("zstd") { ErrorKind::Unsupported } else { ErrorKind::Invalid });
    error.report()
}

#[test]
fn a_url_sets_every_kind_of_field() {
    let url = "kafkas://u%40x:p%3A1@a:1,b,[::1]:2?compression=gzip&compression_level=9&linger=7ms&batch_bytes=64KiB\
               &delivery_timeout=2m&group_protocol=classic&isolation=read_uncommitted&sasl=scram-sha-512&rack=r&reader=native\
               &publisher=native";
    let config = KafkaConfig::from_url(url).unwrap();
    assert_eq!(config.brokers, ["a:1", "b:9092", "[::1]:2"]);
    assert_eq!((config.compression, config.compression_level), (Compression::Gzip, Some(9)));
    assert_eq!((config.linger, config.batch_bytes), (Duration::from_millis(7), 64 << 10));
    assert_eq!((config.group_protocol, config.isolation), (GroupProtocol::Classic, Isolation::ReadUncommitted));
    assert_eq!(config.delivery_timeout, Duration::from_secs(120));
    assert_eq!((config.rack.as_deref(), config.reader), (Some("r"), ReaderKind::Native));
    assert_eq!(config.publisher, PublisherKind::Native);
    let shown = format!("{config:?}");
    assert!(shown.contains("reader: Native") && shown.contains("publisher: Native"), "{shown}");
    assert!(config.tls.is_some());
    let Some(Sasl::Scram { hash, username, password }) = config.sasl else { panic!("no scram") };
    assert_eq!((hash, username.as_str(), password.expose()), (ScramHash::Sha512, "u@x", "p:1"));
}

#[test]
fn a_wrong_setting_is_named() {
    for (query, name) in [
        ("linger=5", "linger"),
        ("linger=61s", "linger"),
        ("compression=brotli", "compression"),
        ("compression=lz4&compression_level=3", "compression_level"),
        ("batch_bytes=1KB", "batch_bytes"),
        ("lingerr=5ms", "lingerr"),
        ("linger=1ms&linger=2ms", "linger"),
        ("tls_ca=/x", "tls_ca"),
        ("delivery_timeout=1s", "delivery_timeout"),
        ("fetch_max_wait=20s", "fetch_max_wait"),
        ("metadata_max_age=0s", "metadata_max_age"),
        ("sasl=plain", "username"),
        ("isolation=dirty", "isolation"),
        ("reader=fast", "reader"),
        ("publisher=fast", "publisher"),
        ("fetch_max_bytes=1KiB", "fetch_max_partition_bytes"),
        ("batch_bytes=1MiB&max_unanswered_bytes=1KiB", "batch_bytes"),
    ] {
        let report = refused(&format!("kafka://a:1?{query}"));
        assert!(report.contains(name), "{query}: {report}");
    }
    assert!(refused("http://a:1").contains("kafka"));
    assert!(refused("kafka://").contains("brokers"));
    assert!(refused("kafka://a:x").contains("the host"));
}

#[test]
fn a_slip_in_a_name_is_answered_with_the_name_that_is_meant() {
    for name in text::PARAMETERS {
        let (head, tail) = name.split_at(name.len() / 2);
        for slip in [format!("{head}{}", &tail[1..]), format!("{name}s"), name.replace('_', "-") + "x"] {
            let error = refused(&format!("kafka://a:1?{slip}=1"));
            let known = text::PARAMETERS.iter().any(|name| error.ends_with(&format!("did you mean {name}?")));
            assert!(known && error.contains(&slip), "{slip}: {error}");
        }
    }
    assert!(refused("kafka://a:1?lingr=5ms").ends_with("lingr: no such setting, did you mean linger?"));
}

#[test]
fn an_impossible_address_is_invalid_and_its_place_is_named() {
    for (url, place) in [
        ("kafka://", "brokers"),
        ("kafka:///", "brokers"),
        ("kafka://user:pass@", "brokers"),
        ("kafka://a:9092;b:9092", "the host"),
        ("kafka://a;b", "the host"),
        ("kafka://a:9092 b:9092", "the host"),
        ("kafka://a b:9092", "the host"),
        ("kafka://a:9092, b:9092", "host 2"),
        ("kafka://a:9092,b:9092,", "host 3"),
        ("kafka://,a:9092", "host 1"),
        ("kafka://a:9092,,b:9092", "host 2"),
        ("kafka://a:9092,b:99999", "host 2"),
        ("kafka://::1", "the host"),
        ("kafka://::1:9092", "the host"),
        ("kafka://a:9092,fe80::1", "host 2"),
        ("kafka://[::1", "the host"),
        ("kafka://::1]:9092", "the host"),
        ("kafka://[localhost]:9092", "the host"),
        ("kafka://[fe80::1%25eth0]:9092", "the host"),
        ("kafka://a:99999", "the host"),
        ("kafka://a:65536", "the host"),
        ("kafka://a:0", "the host"),
        ("kafka://a:-1", "the host"),
        ("kafka://a:+9092", "the host"),
        ("kafka://a:9092:9092", "the host"),
        ("kafka://a:port", "the host"),
        ("kafka://:9092", "the host"),
        ("kafka://kafka://a:9092", "the host"),
        ("kafka://http://a:9092", "the host"),
        ("kafka://a:9092/topic", "parameters after the hosts"),
        ("kafka://a:9092/b:9092", "parameters after the hosts"),
        ("kafka://a:9092#x", "%23"),
        ("kafka://a..b:9092", "the host"),
        ("kafka://1.2.3:9092", "the host"),
        ("kafka://256.1.1.1:9092", "the host"),
        ("kafka://b\u{fc}cher:9092", "the host"),
        ("kafka://a\t:9092", "the host"),
        ("kafka://a:9092\n", "the host"),
        ("kafka://%2Ftmp%2Fx..y z:1", "the host"),
        ("kafka://%2Ftmp", "brokers"),
        ("kafka://*:9092", "the host"),
        ("kafka:/a:9092", "://"),
        ("kafka:a:9092", "://"),
        ("a:9092", "://"),
        ("a:9092,b:9092", "://"),
        (" kafka://a:9092", "scheme"),
        ("mqtt://a:9092", "kafka://"),
    ] {
        let error = refused(url);
        assert!(error.contains(place), "{url}: {error}");
    }
    for broker in ["", "a", "a:", ":1", "a:0", "a:1,b:1", "a:1;b:1", "::1", "a b:1", "kafka://a:1", "a:1/x", "a:99999"]
    {
        let error = KafkaConfig::new(["ok:1", broker]).check().unwrap_err();
        assert_eq!(error.field(), "brokers, number 2", "{broker}: {error}");
    }
}

#[cfg(not(feature = "zstd"))]
#[test]
fn zstd_that_is_not_built_in_says_which_feature_is() {
    assert!(refused("kafka://a:1?compression=zstd").contains("feature kafka-zstd"));
}

#[test]
fn secrets_show_nowhere() {
    let config = KafkaConfig::from_url(&format!("kafka://user:{CANARY}@a:1?sasl=plain")).unwrap();
    assert!(!format!("{config:?}").contains(CANARY));
    for url in [
        format!("kafka://user:{CANARY}@a:x"),
        format!("kafka://user:{CANARY}@a:1?sasl=oauthbearer"),
        format!("kafka://user:{CANARY}@a:1?sasl=nonsense"),
        format!("kafka://user:{CANARY}%zz@a:1"),
        // The host is missing, or special characters of the password are not percent-encoded.
        format!("kafka://user:{CANARY}"),
        format!("kafka://user:{CANARY}?linger=1ms"),
        format!("kafka://a:1,user:{CANARY}"),
        format!("kafka://user:pass?{CANARY}=@a:1"),
        format!("kafka://user:1?{CANARY}=@a:1"),
        format!("kafka://user:1?linger={CANARY}@a:1"),
        format!("kafka://user:1?x={CANARY}&{CANARY}=1@a:1"),
        format!("kafka://user:pass?{CANARY}=1"),
    ] {
        let error = KafkaConfig::from_url(&url).unwrap_err();
        assert!(!error.report().contains(CANARY) && !format!("{error:?}").contains(CANARY), "{error:?}");
    }
    let token = KafkaConfig::from_url(&format!("kafka://{CANARY}@a:1?sasl=oauthbearer")).unwrap();
    assert!(!format!("{token:?}").contains(CANARY));
    let forgotten = KafkaConfig::new([format!("user:{CANARY}"), format!("user:{CANARY}@a:1")]);
    let shown = format!("{forgotten:?} {forgotten:#?} {:?}", forgotten.check());
    assert!(!shown.contains(CANARY), "{shown}");
}

/// URL templates, some of them malformed, with `S` in place of a secret.
const TEMPLATES: &[&str] = &[
    "kafka://u:S@h:1",
    "kafka://S@h:1",
    "kafka://S:S@h:1",
    "kafka://u:S",
    "kafka://S:x",
    "kafka://u:S]",
    "kafka://[S",
    "kafka://u:1?S@h",
    "kafka://u:1/S@h",
    "kafka://u:1#S@h",
    "kafka://u:1#S",
    "kafka://u:1/S",
    "kafka://u:1?S",
    "kafka://u:1?S=1",
    "kafka://u:1?a=S",
    "kafka://u:S@h:1?linger=1",
    "kafka://u:1?linger=S",
    "kafka://u:1?sasl=S",
    "kafka://u:1?batch_bytes=S",
    "kafka://u:1?compression=S",
    "kafka://u:1?isolation=S",
    "kafkas://u:1?tls_ca=S",
    "kafkas://u:1?tls_cert=S&tls_key=S",
    "kafka://a:1,u:S",
    "kafka://a:1,u:S@",
    "kafka://u:S@h:0",
    "kafka://u:S@h:x",
    "kafka://u:S@h h",
    "kafka://u:S@a;b",
    "kafka://u:S@::1",
    "kafka://u:S@h/p",
    "kafka://u:S@h?sasl=x",
    "u:S@h:1",
    "S",
    "kafka:u:S@h",
    "S://h",
    "kafka://u@S@h",
    "kafka://u:S%zz@h",
    "kafka://u:%S@h",
    "kafka://u:S @h",
    "kafka://u:S\n@h",
    "kafka://u:S@h?sasl=oauthbearer",
    "kafka://u:S@h?linger=5ms&linger=5ms",
    "kafka://u:S@h?lingr=1",
    "kafkas://u:S@h?sasl=scram-sha-256",
    "kafka://u:S@h?fetch_max_bytes=1",
];

/// Substitutes a password at each place of many URLs, some of them malformed.
#[test]
fn a_secret_at_any_place_of_a_url_shows_nowhere() {
    for round in 0..200 {
        // Characters that separate the parts of a URL, and some that are not allowed there.
        let alphabet: Vec<char> =
            if round % 2 == 0 { "abcXYZ019".chars() } else { "abcXYZ01?#/@:[]%&=+;^ ".chars() }.collect();
        let secret: String = std::iter::repeat_with(|| fastrand::choice(&alphabet).unwrap()).take(12).collect();
        // Parts of the secret are secret, too. (A comma would turn the rest into a host, which is shown.)
        let parts: Vec<_> = secret
            .split(|sign: char| !sign.is_ascii_alphanumeric())
            .filter(|part| part.len() > 4)
            .chain([&*secret])
            .collect();
        for template in TEMPLATES {
            let shown = match KafkaConfig::from_url(&template.replace('S', &secret)) {
                // A user name is not a secret, except where it is a token.
                Ok(config) => format!("{config:?} {config:#?}").replace(&format!("username: {secret:?}"), ""),
                Err(error) => format!("{error} {error:?} {error:#?} {}", error.report()),
            };
            let found = parts.iter().find(|part| shown.contains(**part));
            assert!(found.is_none(), "{template}: {secret}: {shown}");
        }
    }
}

fn environment(pairs: &[(&str, &str)]) -> Result<KafkaConfig> {
    KafkaConfig::from_variables(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
}

#[test]
fn the_environment_says_the_same() {
    let pairs = [("BROKERS", "a:1, b"), ("LINGER", "9ms"), ("USERNAME", "u"), ("PASSWORD", CANARY)];
    let config = environment(&pairs).unwrap();
    assert_eq!(
        (config.brokers, config.linger),
        (vec!["a:1".to_owned(), "b:9092".to_owned()], Duration::from_millis(9))
    );
    assert!(matches!(config.sasl, Some(Sasl::Plain { .. })));
    let config =
        environment(&[("URL", "kafkas://a:1?rack=r"), ("LINGER", "9ms"), ("SASL", "OAUTHBEARER"), ("TOKEN", CANARY)]);
    let config = config.unwrap();
    assert!(config.tls.is_some() && matches!(config.sasl, Some(Sasl::OAuthBearer(_))) && config.rack.is_some());
    assert!(!format!("{config:?}").contains(CANARY));
}

/// Variables, the invalid variable, and its setting.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);

const AT: (&str, &str) = ("BROKERS", "a:1");
const PLAIN: &str = "kafka://user:c4n4ry-p4ssw0rd@a:1";
const CASES: &[Case<'_>] = &[
    (&[], "BROKERS", "brokers"),
    (&[("BROKERS", "")], "BROKERS", "brokers"),
    (&[("BROKERS", "user:c4n4ry-p4ssw0rd@a:1")], "BROKERS", "brokers"),
    (&[("BROKERS", CANARY), ("LINGER", "1")], "LINGER", "linger"),
    (&[("BROKERS", "a:1,b:99999")], "BROKERS", "brokers, number 2"),
    (&[("BROKERS", "a:1;b:1")], "BROKERS", "brokers"),
    (&[("BROKERS", "::1")], "BROKERS", "brokers"),
    (&[AT, ("URL", "kafka://a:1")], "BROKERS", "brokers"),
    (&[("URL", "kafka://user:c4n4ry-p4ssw0rd]")], "URL", "the host"),
    (&[("URL", CANARY)], "URL", "the URL"),
    (&[("URL", "")], "URL", "the URL"),
    (&[("URL", "kafka://user:c4n4ry-p4ssw0rd@a:1?linger=5")], "URL", "linger"),
    (&[("URL", "kafka://a:1?lingr=1s")], "URL", "lingr"),
    (&[("URL", "kafka://a:1?linger=1h")], "URL", "linger"),
    (&[("URL", "kafka://")], "URL", "brokers"),
    (&[("URL", "kafka://a:1?linger=1ms"), ("LINGER", "2ms")], "LINGER", "linger"),
    (&[("URL", "kafkas://a:1"), ("TLS", "false")], "TLS", "tls"),
    (&[("URL", PLAIN), ("USERNAME", "v"), ("PASSWORD", CANARY)], "USERNAME", "username"),
    (&[("URL", PLAIN), ("PASSWORD", CANARY)], "PASSWORD", "password"),
    (&[("URL", PLAIN), ("TOKEN", CANARY)], "TOKEN", "token"),
    (&[("URL", PLAIN), ("SASL", "plain")], "SASL", "sasl"),
    (&[AT, ("LINGR", CANARY)], "LINGR", "lingr"),
    (&[AT, ("USERNAME", "u")], "PASSWORD", "password"),
    (&[AT, ("USERNAME", ""), ("PASSWORD", CANARY)], "USERNAME", "sasl.username"),
    (&[AT, ("USERNAME", "u"), ("PASSWORD", "")], "PASSWORD", "sasl.password"),
    (&[AT, ("PASSWORD", CANARY)], "USERNAME", "username"),
    (&[AT, ("USERNAME", "u"), ("PASSWORD", CANARY), ("TOKEN", CANARY)], "TOKEN", "token"),
    (&[AT, ("SASL", "plain"), ("TOKEN", CANARY)], "TOKEN", "token"),
    (&[AT, ("SASL", "plain")], "USERNAME", "username"),
    (&[AT, ("SASL", "oauthbearer")], "TOKEN", "token"),
    (&[AT, ("SASL", "oauthbearer"), ("TOKEN", "t"), ("PASSWORD", CANARY)], "PASSWORD", "password"),
    (&[AT, ("SASL", CANARY), ("TOKEN", CANARY)], "SASL", "sasl"),
    (&[AT, ("TLS", CANARY)], "TLS", "tls"),
    (&[AT, ("TLS_CA", CANARY)], "TLS_CA", "tls_ca"),
    (&[AT, ("TLS", "true"), ("TLS_CA", CANARY)], "TLS_CA", "tls.ca"),
    (&[AT, ("TLS", "true"), ("TLS_CERT", CANARY)], "TLS_KEY", "tls_key"),
    (&[AT, ("TLS", "true"), ("TLS_KEY", CANARY)], "TLS_CERT", "tls_cert"),
    (&[AT, ("TLS", "true"), ("TLS_CERT", CANARY), ("TLS_KEY", CANARY)], "TLS_CERT", "tls.identity"),
    (&[AT, ("FETCH_MAX_BYTES", "1KiB")], "FETCH_MAX_PARTITION_BYTES", "fetch_max_partition_bytes"),
    (&[AT, ("MAX_UNANSWERED_BYTES", "1KiB")], "BATCH_BYTES", "batch_bytes"),
    (&[AT, ("LINGER", "1h")], "LINGER", "linger"),
    (&[AT, ("CONNECT_WAIT", "8d")], "CONNECT_WAIT", "connect_wait"),
    (&[AT, ("DELIVERY_TIMEOUT", "1s")], "DELIVERY_TIMEOUT", "delivery_timeout"),
    (&[AT, ("FETCH_MAX_WAIT", "20s")], "FETCH_MAX_WAIT", "fetch_max_wait"),
    (&[AT, ("COMPRESSION", "lz4"), ("COMPRESSION_LEVEL", "3")], "COMPRESSION_LEVEL", "compression_level"),
    (&[AT, ("CLIENT_ID", "")], "CLIENT_ID", "client_id"),
    (&[AT, ("RACK", "")], "RACK", "rack"),
    (&[AT, ("INSTANCE_ID", "")], "INSTANCE_ID", "instance_id"),
    (&[AT, ("INSTANCE_ID", "a b")], "INSTANCE_ID", "instance_id"),
];

/// Each error of the environment names the variable first, then the setting, and contains no value.
#[test]
fn an_error_of_the_environment_names_the_variable_and_the_setting() {
    let parameters = text::PARAMETERS.iter().filter(|name| !["client_id", "instance_id", "rack"].contains(name));
    let each: Vec<_> = parameters.map(|name| (name.to_uppercase(), *name)).collect();
    for (variable, field) in &each {
        refused_variable((&[("URL", PLAIN), (variable, CANARY)], variable, field));
    }
    CASES.iter().for_each(|case| refused_variable(*case));
}

fn refused_variable((pairs, variable, field): Case<'_>) {
    let error = environment(pairs).unwrap_err();
    let begin = format!("TIDINGS_KAFKA_{variable}: {field}");
    assert!(error.to_string().starts_with(&begin), "{begin}: {error}");
    let shown = format!("{error} {error:?} {error:#?} {}", error.report());
    assert!(!shown.contains(CANARY), "{shown}");
}
