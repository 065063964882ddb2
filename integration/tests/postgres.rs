//! The interview platform on a real Postgres. Ignored where there is none.

use std::process::ExitCode;
use std::time::Duration;

use tidings::BoxError;
use tidings_integration::interview_platform;
use tidings_testbed::{Postgres, Suite};

type TestResult = Result<(), BoxError>;

/// How long a test may take: each builds an example first, where none was built before.
const BUILD_LIMIT: Duration = Duration::from_secs(900);

fn main() -> ExitCode {
    Suite::new()
        .with_timeout(BUILD_LIMIT)
        .with_case("the_interview_platform_remembers_in_postgres_what_it_has_handled", remembers)
        .with_case("the_password_of_a_store_is_not_printed", password)
        .run()
}

/// Whether it succeeded, and all that it printed.
async fn platform(arguments: &[&str]) -> Result<(bool, String), BoxError> {
    let mut command = tokio::process::Command::from(interview_platform());
    let run = command.args(arguments).kill_on_drop(true).output().await?;
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    Ok((run.status.success(), said))
}

async fn remembers() -> TestResult {
    let url = Postgres::shared().await?.fresh_database().await?;
    let arguments = ["--store", &url, "--limit", "300", "--poison", "5", "--duplicate", "5"];
    let (ok, first) = platform(&arguments).await?;
    assert!(ok && first.contains("Checked: each event was settled once"), "{first}");
    assert!(first.contains("are remembered in the schema") && !first.contains("earlier run"), "{first}");
    let (ok, second) = platform(&arguments).await?;
    assert!(ok && second.contains("deliveries were handled by an earlier run"), "{second}");
    assert!(second.contains("All ") && second.contains("nothing was handled twice"), "{second}");
    assert!(!first.contains(password_of(&url)) && !second.contains(password_of(&url)), "{first}{second}");
    Ok(())
}

fn password_of(url: &str) -> &str {
    let (user, _) = url.rsplit_once('@').expect("a URL of a server of ours");
    user.rsplit_once(':').expect("a user has a password").1
}

async fn password() -> TestResult {
    for (store, told) in [
        ("postgres://ann:hunter2@127.0.0.1:1/orders", "refused"),
        ("postgres://ann:hunter2@[/orders", "the host"),
        ("postgres:ann:hunter2@localhost", "expected"),
        ("mysql://ann:hunter2@localhost", "expected"),
    ] {
        let (ok, said) = platform(&["--store", store, "--limit", "1"]).await?;
        assert!(!ok && said.contains("--store: ") && said.contains(told), "{store}: {said}");
        assert!(!said.contains("hunter2"), "{store}: {said}");
    }
    Ok(())
}
