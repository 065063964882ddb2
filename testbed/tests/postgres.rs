//! Postgres servers start, keep committed data across a crash, and fail on request.

use std::{process::ExitCode, time::Duration};
use tidings_testbed::{BoxError, Certificate, Postgres, PostgresOptions, Shutdown, Suite};

const POLL: Duration = Duration::from_millis(20);
const DEADLINE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    Suite::new()
        .with_case("keeps_what_was_committed_over_an_immediate_restart", keeps_commits)
        .with_case("paused_it_does_not_answer_until_resumed", pauses)
        .with_case("a_killed_session_takes_the_others_along_and_the_server_recovers", kills_a_session)
        .with_case("tls_verifies_with_its_own_authority_only", tls)
        .with_case("a_wrong_password_is_refused", wrong_password)
        .with_case("fresh_databases_are_empty_and_apart", fresh_databases)
        .with_case("a_small_disk_gets_full", small_disk)
        .run()
}

async fn keeps_commits() -> Result<(), BoxError> {
    let postgres = Postgres::start(PostgresOptions::new()).await?;
    postgres.sql("CREATE TABLE t (n int); INSERT INTO t VALUES (7)").await?;
    for how in [Shutdown::Immediate, Shutdown::Fast] {
        postgres.restart(how).await?;
        assert_eq!(postgres.sql("SELECT n FROM t").await?, "7", "after {how:?}");
    }
    postgres.stop(Shutdown::Fast).await?;
    assert!(postgres.sql("SELECT 1").await.is_err());
    Ok(())
}

async fn pauses() -> Result<(), BoxError> {
    let postgres = Postgres::start(PostgresOptions::new()).await?;
    postgres.pause()?;
    let asked = {
        let postgres = postgres.clone();
        tokio::spawn(async move { postgres.sql("SELECT 1").await })
    };
    tokio::pin!(asked);
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut asked).await.is_err(), "it answered while paused");
    postgres.resume()?;
    assert_eq!(asked.await??, "1");
    Ok(())
}

async fn kills_a_session() -> Result<(), BoxError> {
    let postgres = Postgres::start(PostgresOptions::new()).await?;
    let sleeper = |text: &'static str| {
        let postgres = postgres.clone();
        tokio::spawn(async move { postgres.sql(text).await })
    };
    let (victim, other) = (sleeper("SELECT pg_sleep(60), 'victim'"), sleeper("SELECT pg_sleep(60), 'other'"));
    let both = async {
        loop {
            let sessions = postgres.backends()?;
            if sessions.iter().filter(|session| session.title.ends_with("SELECT")).count() == 2 {
                return Ok::<_, BoxError>(sessions);
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let sessions = tokio::time::timeout(DEADLINE, both).await??;
    postgres.kill_backend(sessions[0].pid)?;
    assert!(victim.await?.is_err() && other.await?.is_err());
    let recovered = async {
        while postgres.sql("SELECT 1").await.is_err() {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(DEADLINE, recovered).await?;
    assert!(postgres.kill_backend(1).is_err(), "a process of others was killed");
    Ok(())
}

async fn tls() -> Result<(), BoxError> {
    let postgres = Postgres::start(PostgresOptions::new().with_tls(Certificate::Good).with_tls_only()).await?;
    assert_eq!(psql(&postgres.tls_url(), "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")?, "t");
    let refused = psql(&format!("{}?sslmode=disable", postgres.url()), "SELECT 1").expect_err("it was taken");
    assert!(refused.contains("no encryption"), "{refused}");
    let wrong = tempfile::NamedTempFile::new()?;
    std::fs::write(wrong.path(), postgres.wrong_ca_pem())?;
    let url = format!("{}?sslmode=verify-full&sslrootcert={}", postgres.url(), wrong.path().display());
    let refused = psql(&url, "SELECT 1").expect_err("it was taken");
    assert!(refused.contains("certificate verify failed"), "{refused}");
    Ok(())
}

async fn wrong_password() -> Result<(), BoxError> {
    let postgres = Postgres::start(PostgresOptions::new()).await?;
    let refused = psql(&postgres.url().replace("tidings-secret", "guess"), "SELECT 1").expect_err("it was taken");
    assert!(refused.contains("password authentication failed"), "{refused}");
    Ok(())
}

async fn fresh_databases() -> Result<(), BoxError> {
    let postgres = Postgres::shared().await?;
    let (a, b) = (postgres.fresh_database().await?, postgres.fresh_database().await?);
    assert_ne!(a, b);
    psql(&a, "CREATE TABLE t (n int)")?;
    assert!(psql(&b, "SELECT * FROM t").expect_err("it was taken").contains("does not exist"));
    Ok(())
}

fn psql(url: &str, sql: &str) -> Result<String, String> {
    let output = std::process::Command::new("psql").args(["-XAtqc", sql, url]).output().expect("psql runs");
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

async fn small_disk() -> Result<(), BoxError> {
    let postgres = Postgres::start(PostgresOptions::new().with_small_disk(1)).await?;
    let small = postgres.small_disk();
    postgres.sql(&format!("CREATE TABLESPACE small LOCATION '{}'", small.display())).await?;
    postgres.sql("CREATE TABLE t (n int) TABLESPACE small").await?;
    let filled = postgres.sql("INSERT INTO t SELECT generate_series(1, 100000)").await;
    assert!(filled.is_err_and(|error| error.to_string().contains("No space left on device")));
    postgres.sql("TRUNCATE t").await?;
    postgres.sql("INSERT INTO t VALUES (7)").await?;
    assert_eq!(postgres.sql("SELECT n FROM t").await?, "7");
    Ok(())
}
