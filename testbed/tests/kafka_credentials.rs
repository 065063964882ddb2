//! Each listener accepts the right credentials and refuses the wrong ones.

use krafka::{
    Kafka as Client,
    admin::{CreateTopicsOptions, DescribeClusterOptions, NewTopic},
    auth::{AuthConfig, TlsConfig},
};
use std::{process::ExitCode, time::Duration};
use tidings_testbed::{BoxError, Identity, Kafka, KafkaOptions, Listener, Suite};

fn main() -> ExitCode {
    Suite::new()
        .with_case("tls_is_taken_with_the_right_authority_only", tls)
        .with_case("mutual_tls_wants_a_certificate_of_its_authority", mutual_tls)
        .with_case("sasl_takes_the_right_secret_of_each_mechanism_only", sasl)
        .with_case("acls_deny_what_was_not_granted", acls)
        .run()
}

async fn tls() -> Result<(), BoxError> {
    let kafka = Kafka::start(KafkaOptions::new().with_tls().with_bad_tls()).await?;
    let trusting = |ca: String| AuthConfig::ssl(TlsConfig::new().with_ca_cert_pem(ca));
    connect(&kafka, Listener::Tls, trusting(kafka.ca_pem())).await?;
    let refusals = [
        (Listener::Tls, kafka.wrong_ca_pem(), "UnknownIssuer"),
        (Listener::ExpiredTls, kafka.ca_pem(), "expired"),
        (Listener::WrongNameTls, kafka.ca_pem(), "not valid for name"),
    ];
    for (listener, ca, why) in refusals {
        let refused = refusal(&kafka, listener, trusting(ca)).await?;
        assert!(refused.contains(why), "{listener}: expected {why:?}, got {refused}");
    }
    Ok(())
}

async fn mutual_tls() -> Result<(), BoxError> {
    let kafka = Kafka::start(KafkaOptions::new().with_tls()).await?;
    let showing = |identity: Option<Identity>| {
        let tls = TlsConfig::new().with_ca_cert_pem(kafka.ca_pem());
        AuthConfig::ssl(match identity {
            Some(own) => tls.with_client_cert_pem(own.cert_pem(), own.key_pem().as_bytes().to_vec()),
            None => tls,
        })
    };
    connect(&kafka, Listener::MutualTls, showing(Some(kafka.client_cert("alice")?))).await?;
    refusal(&kafka, Listener::MutualTls, showing(None)).await?;
    refusal(&kafka, Listener::MutualTls, showing(Some(kafka.wrong_client_cert("alice")?))).await?;
    Ok(())
}

async fn sasl() -> Result<(), BoxError> {
    let kafka = Kafka::start(KafkaOptions::new().with_sasl().with_tls()).await?;
    let [_, (user, password), _] = Kafka::users();
    let token = |life| AuthConfig::sasl_oauthbearer(Kafka::bearer_token(user, life));
    let taken = [
        AuthConfig::sasl_plain(user, password),
        AuthConfig::sasl_scram_sha256(user, password),
        AuthConfig::sasl_scram_sha512(user, password),
        token(Duration::from_secs(600)),
    ];
    for auth in taken {
        connect(&kafka, Listener::Sasl, auth.clone()).await?;
        connect(&kafka, Listener::SaslTls, auth.with_tls(TlsConfig::new().with_ca_cert_pem(kafka.ca_pem()))).await?;
    }
    let refused = [
        AuthConfig::sasl_plain(user, "guess"),
        AuthConfig::sasl_scram_sha256(user, "guess"),
        AuthConfig::sasl_scram_sha512("nobody", password),
        token(Duration::ZERO),
    ];
    for auth in refused {
        refusal(&kafka, Listener::Sasl, auth).await?;
    }
    Ok(())
}

async fn acls() -> Result<(), BoxError> {
    let kafka = Kafka::start(KafkaOptions::new().with_sasl().with_acls()).await?;
    let as_user = |(user, password)| AuthConfig::sasl_scram_sha512(user, password);
    let [admin, alice, bob] = Kafka::users();
    create_topic(&kafka, as_user(admin), "by-admin").await?;
    create_topic(&kafka, as_user(alice), "by-alice").await.expect_err("alice was granted nothing yet");
    kafka.allow(alice.0, "Create", &["--cluster"]).await?;
    create_topic(&kafka, as_user(alice), "by-alice").await?;
    create_topic(&kafka, as_user(bob), "by-bob").await.expect_err("bob was granted nothing");
    Ok(())
}

async fn create_topic(kafka: &Kafka, auth: AuthConfig, topic: &str) -> Result<(), BoxError> {
    let client = Client::builder(kafka.bootstrap_on(Listener::Sasl)?).security(auth).connect().await?;
    let made = client.admin().create_topics([NewTopic::new(topic, 1, 1)?], CreateTopicsOptions::default()).await?;
    made.into_values().collect::<Result<Vec<()>, _>>()?;
    Ok(())
}

async fn connect(kafka: &Kafka, listener: Listener, auth: AuthConfig) -> Result<(), BoxError> {
    let bootstrap = kafka.bootstrap_on(listener)?;
    let client = Client::builder(bootstrap).security(auth).request_timeout(Duration::from_secs(10)).connect().await?;
    client.admin().describe_cluster(DescribeClusterOptions::default()).await?;
    Ok(())
}

/// Returns the error, with all causes, of a client that must be refused.
async fn refusal(kafka: &Kafka, listener: Listener, auth: AuthConfig) -> Result<String, BoxError> {
    match connect(kafka, listener, auth).await {
        Ok(()) => Err(format!("{listener} took what it should refuse").into()),
        Err(error) => Ok(format!("{error}: {error:?}")),
    }
}
