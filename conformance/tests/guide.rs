//! The program of docs/guides/write-a-transport.md, on a transport that stands for the reader's: it runs here, and the
//! page must show it as it is.

use tidings_core::Result;
mod my_transport {
    pub(crate) use tidings_memory::MemoryTransport as MyTransport;
}
trait Connect: Sized {
    fn connect(at: &str) -> impl Future<Output = Result<Self>> + Send;
    fn drop_sessions(&self, group: &str);
    fn block(&self, blocked: bool);
}
impl Connect for MyTransport {
    async fn connect(_: &str) -> Result<Self> {
        Self::open(tidings_memory::MemoryConfig::new().with_auto_create(false))
    }
    fn drop_sessions(&self, group: &str) {
        self.faults().lose_all(group);
    }
    fn block(&self, blocked: bool) {
        if blocked { self.faults().down() } else { self.faults().up() }
    }
}

// begin: suite
use std::process::ExitCode;
use std::time::Duration;

use my_transport::MyTransport;
use tidings_conformance::{Setup, transport};

fn main() -> ExitCode {
    let setup = Setup::new("mine", || MyTransport::connect("localhost:1234"))
        .with_lifetime(Duration::from_secs(2)) // how long a session may live
        .with_quiet(Duration::from_millis(20)) // how long to wait for a step that must not come
        .with_session_loss(|mine, group| async move {
            mine.drop_sessions(&group);
            Ok(())
        })
        .with_outage(|mine, down| async move {
            mine.block(down);
            Ok(())
        });
    transport::run(setup)
}
// end: suite
