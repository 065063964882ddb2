//! KafkaJS, in a Node process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::common::{LIMIT, TestResult};

/// Number of attempts to reach the registry.
const INSTALL_TRIES: usize = 3;

/// Returns the folder of KafkaJS, kept in the build directory.
async fn installed() -> TestResult<PathBuf> {
    static DIR: OnceCell<PathBuf> = OnceCell::const_new();
    let install = async || -> TestResult<PathBuf> {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kafkajs");
        std::fs::create_dir_all(&dir)?;
        // Tests run in processes of their own, side by side: the first one installs, the others wait for it.
        let lock = File::create(dir.join("lock"))?;
        let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
        install(&dir).await?;
        drop(lock);
        Ok(dir)
    };
    Ok(DIR.get_or_try_init(install).await?.clone())
}

/// Installs KafkaJS in `dir`, unless it is there.
async fn install(dir: &Path) -> TestResult {
    let room = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafkajs");
    for file in ["package.json", "peer.js"] {
        let text = std::fs::read(room.join(file))?;
        // Not written again while another test's process may be reading it.
        if std::fs::read(dir.join(file)).ok().as_ref() != Some(&text) {
            std::fs::write(dir.join(file), text)?;
        }
    }
    // Written last, with the list of packages: an interrupted installation, or one of other packages, is repeated.
    let done = dir.join("installed");
    let packages = std::fs::read(dir.join("package.json"))?;
    if std::fs::read(&done).is_ok_and(|installed| installed == packages) {
        return Ok(());
    }
    let absent = |why: String| tidings_testbed::Error::unavailable(format!("no KafkaJS: {why}"));
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]).current_dir(dir);
    // The registry may fail temporarily.
    for tries_left in (0..INSTALL_TRIES).rev() {
        let output = npm.output().await.map_err(|e| absent(e.to_string()))?;
        if output.status.success() {
            return Ok(std::fs::write(done, packages)?);
        }
        if tries_left == 0 {
            return Err(absent(String::from_utf8_lossy(&output.stderr).into_owned()).into());
        }
    }
    Ok(())
}

/// Runs a verb of `peer.js`; returns its answer.
pub(crate) async fn peer(args: &[&str], input: &Value) -> TestResult<Vec<Value>> {
    let dir = installed().await?;
    let mut child = Command::new("node")
        .arg("peer.js")
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| tidings_testbed::Error::unavailable(format!("no Node: {e}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.to_string().as_bytes()).await?;
    }
    let output = timeout(LIMIT * 2, child.wait_with_output()).await??;
    if !output.status.success() {
        return Err(format!("KafkaJS failed at {args:?}").into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
