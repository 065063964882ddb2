//! Connecting: errors that name the server and the cause in one line, and servers that come later.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

use std::process::ExitCode;
use std::time::Duration;

use common::{LIMIT, TestResult, config, database};
use tidings_core::{Error, ErrorKind};
use tidings_postgres::{PostgresConfig, PostgresStore};
use tidings_testbed::{Framing, Proxy, Suite};

fn main() -> ExitCode {
    Suite::new()
        .with_case("a_wrong_address_password_or_database_is_told", wrong_places)
        .with_case("a_server_that_comes_later_is_waited_for", comes_later)
        .with_case("a_server_that_does_not_come_is_given_up", waits_in_vain)
        .run()
}

async fn refusal(config: PostgresConfig) -> Error {
    PostgresStore::connect_with(config).await.map(drop).unwrap_err()
}

async fn wrong_places() -> TestResult {
    let url = database().await?;
    let (user, place) = url.split_once('@').unwrap();
    let (name, _) = user.rsplit_once(':').unwrap();
    let (address, _) = place.split_once('/').unwrap();
    for (wrong, kind, told) in [
        (format!("{name}:guess@{place}"), ErrorKind::Denied, "password authentication failed"),
        (format!("{user}@{address}/nowhere"), ErrorKind::NotFound, "nowhere"),
        (format!("{user}@127.0.0.1:1/x"), ErrorKind::Unavailable, "refused"),
        ("mysql://x".to_owned(), ErrorKind::Invalid, "the URL: expected the scheme postgres://"),
    ] {
        let error = refusal(PostgresConfig::new(wrong)).await;
        assert_eq!(error.kind(), kind, "{}", error.report());
        let text = error.to_string();
        assert!(text.contains(told) && text.lines().count() == 1, "{text}");
        assert!(kind == ErrorKind::Invalid || text.matches("127.0.0.1").count() == 1, "{text}");
        assert_eq!(text, error.report());
        assert!(!format!("{error:?} {error:#?}").contains("tidings-secret"), "{error:?}");
    }
    let (no_socket, impossible) = ("postgres:///x?host=/no/such/directory", format!("{user}@127.0.0.1:99999/x"));
    assert_eq!(refusal(PostgresConfig::new(no_socket)).await.kind(), ErrorKind::Unavailable);
    let config = PostgresConfig::new(impossible).with_connect_wait(Duration::from_secs(3_600));
    assert_eq!(refusal(config).await.kind(), ErrorKind::Invalid);
    Ok(())
}

/// Through a proxy, that begins to forward when it was called in vain.
async fn comes_later() -> TestResult {
    let url = database().await?;
    let (user, place) = url.rsplit_once('@').unwrap();
    let (target, name) = place.split_once('/').unwrap();
    let proxy = Proxy::start(target, Framing::Chunks)?;
    proxy.refuse();
    let through = format!("{user}@{}/{name}", proxy.addr());
    let error = refusal(config(&through)).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let called = proxy.counts().connections;
    let opening = tokio::spawn(PostgresStore::connect_with(config(&format!("{through}?connect_wait=90s"))));
    let in_vain = async {
        while proxy.counts().connections <= called {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, in_vain).await?;
    proxy.resume();
    opening.await??.close().await;
    Ok(())
}

async fn waits_in_vain() -> TestResult {
    let wait = Duration::from_millis(400);
    let begin = std::time::Instant::now();
    let error = refusal(PostgresConfig::new("postgres://a:b@127.0.0.1:1/x").with_connect_wait(wait)).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(begin.elapsed() >= wait);
    Ok(())
}
