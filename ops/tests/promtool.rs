//! `promtool check metrics` finds nothing wrong with `/metrics`. Without promtool (of Debian's package `prometheus`, or
//! named by `TIDINGS_PROMTOOL`) the test is reported ignored.

mod common;

use std::ffi::OsString;
use std::io::Write;
use std::process::{Command, ExitCode, Stdio};

use common::{ask, caught_up, publish, started};
use libtest_mimic::{Arguments, Failed, Trial};
use tidings_core::{Delivery, Record};
use tidings_memory::MemoryTransport;
use tidings_ops::Ops;
use tidings_service::{EventPublisher, HandlerExt, Router};

fn main() -> ExitCode {
    let tool = std::env::var_os("TIDINGS_PROMTOOL").unwrap_or_else(|| "promtool".into());
    let is_there = Command::new(&tool).arg("--version").output().is_ok_and(|output| output.status.success());
    let trial = Trial::test("promtool_accepts_the_metrics", move || accepted(&tool)).with_ignored_flag(!is_there);
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

fn accepted(tool: &OsString) -> Result<(), Failed> {
    let text = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(metrics());
    let mut command = Command::new(tool);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = command.spawn()?;
    check.stdin.take().ok_or("it has an input")?.write_all(text.as_bytes())?;
    let output = check.wait_with_output()?;
    let found = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() && found.is_empty() { Ok(()) } else { Err(format!("{found}\n{text}").into()) }
}

async fn metrics() -> String {
    let transport = MemoryTransport::new();
    let handler = (async |_: Delivery| {}).named("quotes \"and\\slashes\"");
    let service = started(Router::new().on_topic("t", handler), &transport).await;
    publish(&transport, vec![Record::new("t", "1"), Record::new("t", "2")]).await;
    caught_up(&service).await;
    let events = EventPublisher::new(&transport, "gateway");
    let router = Ops::new().with_service(&service).with_publisher(&events).with_open_metrics().router();
    ask(&router, "/metrics").await.1
}
