//! The runner: what is ignored, what fails, and what a failure says.

use std::env;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tidings_conformance::{FAIL_FAST, REQUIRE_BROKERS, Setup, Verdict, idempotency, transport};
use tidings_core::{
    Admin, Clause, Consumer, ConsumerOptions, DeadLetterSink, Error, ErrorKind, Guarantees, Publisher, Result,
    Transport, async_trait,
};
use tidings_memory::{MemoryStore, MemoryTransport};

const CASE: &str = "p5_tombstones_stay_null";

/// A memory transport that disclaims, or that hangs where asked for an admin.
#[derive(Debug)]
struct Odd {
    inner: MemoryTransport,
    disclaimed: Option<Clause>,
    hangs: bool,
}

#[async_trait]
impl Transport for Odd {
    fn system(&self) -> &'static str {
        "odd"
    }

    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        self.inner.publisher().await
    }

    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        self.inner.consumer(options).await
    }

    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        self.inner.dead_letters().await
    }

    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        // Blocks the thread, which no timeout of a runtime would notice.
        if self.hangs {
            std::thread::sleep(Duration::from_secs(600));
        }
        self.inner.admin().await
    }

    fn guarantees(&self) -> Guarantees {
        let all = self.inner.guarantees();
        self.disclaimed.map_or(all.clone(), |clause| all.without(clause, "it is odd"))
    }
}

fn odd(disclaimed: Option<Clause>, hangs: bool) -> Setup<Odd> {
    Setup::new("odd", move || async move { Ok(Odd { inner: MemoryTransport::new(), disclaimed, hangs }) })
        .with_paused_clock()
}

fn absent(kind: ErrorKind) -> Setup<MemoryTransport> {
    Setup::new("absent", move || async move { Err(Error::new(kind, "connect to 127.0.0.1:1")) })
}

#[test]
fn a_backend_that_does_not_answer_is_ignored_with_its_reason() {
    let text = verdict_where_brokers_are_required("0");
    assert!(text.contains("the verdict is: ignored") && text.contains("connect to 127.0.0.1:1"), "{text}");
}

#[test]
fn a_case_declared_as_not_kept_is_ignored_with_its_reason() {
    let verdict = transport::check(odd(None, false).without_case(CASE, "it is odd"), CASE);
    assert_eq!(verdict, Verdict::Ignored("it is odd".into()));
}

#[test]
fn a_declared_name_that_no_case_has_fails() {
    let verdict = transport::check(odd(None, false).without_case("p5_no_such_case", "it is odd"), CASE);
    assert!(matches!(&verdict, Verdict::Failed(why) if why.contains("p5_no_such_case")), "{verdict}");
}

#[test]
fn a_backend_that_refuses_to_open_fails() {
    let verdict = transport::check(absent(ErrorKind::Denied), CASE);
    assert!(matches!(&verdict, Verdict::Failed(why) if why.contains("connect to 127.0.0.1:1")), "{verdict}");
}

/// Run by other tests, in a process of its own: whether brokers are required is in the environment, here too.
#[test]
fn tells_what_an_absent_backend_is() {
    println!("the verdict is: {}", transport::check(absent(ErrorKind::Unavailable), CASE));
}

fn verdict_where_brokers_are_required(required: &str) -> String {
    let this = env::current_exe().expect("a test program has a path");
    let mut program = Command::new(this);
    program.args(["tells_what_an_absent_backend_is", "--exact", "--nocapture"]).env(REQUIRE_BROKERS, required);
    let output = program.output().expect("a test program can be run");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_backend_that_does_not_answer_fails_where_brokers_are_required() {
    let text = verdict_where_brokers_are_required("1");
    assert!(text.contains("the verdict is: failed"), "{text}");
}

/// Run by the next test, in a process of its own, whose arguments are the suite's as well.
#[test]
#[ignore = "fails"]
fn p5_of_an_absent_backend() {
    transport::run(absent(ErrorKind::Denied));
}

#[test]
fn a_suite_that_fails_fast_ends_at_its_first_failed_case() {
    let failed = |fail_fast: &str| {
        let mut program = Command::new(env::current_exe().expect("a test program has a path"));
        program.args(["p5_", "--include-ignored", "--nocapture", "--test-threads=1"]).env(FAIL_FAST, fail_fast);
        let output = program.output().expect("a test program can be run");
        String::from_utf8_lossy(&output.stdout).matches("... FAILED").count()
    };
    assert!(failed("0") > 10);
    assert_eq!(failed("1"), 1);
}

#[test]
fn what_is_disclaimed_is_ignored_with_its_reason() {
    let verdict = transport::check(odd(Some(Clause::P5), false), CASE);
    assert_eq!(verdict, Verdict::Ignored("p5 is disclaimed: it is odd".into()));
    assert_eq!(transport::check(odd(Some(Clause::P4), false), CASE), Verdict::Passed);
}

#[test]
fn a_case_without_its_hook_is_ignored() {
    let verdict = transport::check(odd(None, false), "c2_a_lost_session_raises_lost_and_fences");
    assert_eq!(verdict, Verdict::Ignored("the setup has no hook session_loss".into()));
}

#[test]
fn a_case_that_blocks_its_thread_is_given_up() {
    let verdict = transport::check(odd(None, true).with_case_limit(Duration::from_millis(300)), CASE);
    assert!(matches!(&verdict, Verdict::Failed(why) if why.contains("300ms")), "{verdict}");
}

#[test]
fn a_hook_that_does_not_offer_what_is_asked_has_its_case_ignored() {
    let setup = odd(None, false)
        .with_deleted_records(|_, _, _| async { Err(Error::new(ErrorKind::Unsupported, "no compaction here")) });
    let verdict = transport::check(setup, "c2_next_counts_gaps");
    assert_eq!(verdict, Verdict::Ignored("no compaction here".into()));
}

#[test]
fn a_case_of_no_name_fails() {
    let verdict = transport::check(odd(None, false), "p9_there_is_no_such_case");
    assert!(matches!(verdict, Verdict::Failed(_)));
}

#[test]
fn a_backend_is_opened_anew_for_each_case() {
    static OPENED: AtomicU32 = AtomicU32::new(0);
    let setup = || {
        Setup::new("counted", || async {
            OPENED.fetch_add(1, Ordering::Relaxed);
            Ok(MemoryStore::new())
        })
        .with_paused_clock()
    };
    for _ in 0..2 {
        assert_eq!(idempotency::check(setup(), "i1_scopes_are_apart"), Verdict::Passed);
    }
    // Once for its guarantees and once for the case, each time.
    assert_eq!(OPENED.load(Ordering::Relaxed), 4);
}

#[test]
fn a_reopened_backend_is_held_by_nobody_else() {
    let setup = Setup::new("alone", || async { Ok(Durable(MemoryStore::new())) }).with_paused_clock().with_reopen(
        |store: Arc<Durable>| async move {
            let store = Arc::into_inner(store).ok_or_else(|| Error::new(ErrorKind::Conflict, "it is still open"))?;
            Ok(Durable(store.0))
        },
    );
    assert_eq!(idempotency::check(setup, "restart_what_is_done_survives"), Verdict::Passed);
}

/// A memory store that promises to survive, as the hook above has it.
#[derive(Debug)]
struct Durable(MemoryStore);

#[async_trait]
impl tidings_core::IdempotencyStore for Durable {
    async fn acquire_lease(&self, scope: &tidings_core::Name, ttl: Duration) -> Result<tidings_core::Lease> {
        self.0.acquire_lease(scope, ttl).await
    }

    async fn claim(
        &self,
        lease: &tidings_core::Lease,
        events: &[tidings_core::EventRef],
    ) -> Result<Vec<tidings_core::Claim>> {
        self.0.claim(lease, events).await
    }

    async fn renew(&self, lease: &tidings_core::Lease) -> Result<()> {
        self.0.renew(lease).await
    }

    async fn complete(
        &self,
        lease: &tidings_core::Lease,
        events: &[tidings_core::EventRef],
    ) -> Result<Vec<Result<()>>> {
        self.0.complete(lease, events).await
    }

    async fn release(&self, lease: &tidings_core::Lease, events: &[tidings_core::ReleasedClaim]) -> Result<()> {
        self.0.release(lease, events).await
    }

    async fn retire(&self, lease: &tidings_core::Lease) -> Result<()> {
        self.0.retire(lease).await
    }

    async fn purge(&self, scope: &tidings_core::Name, before: tidings_core::Timestamp) -> Result<u64> {
        self.0.purge(scope, before).await
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees::all()
    }
}

#[test]
fn the_guide_shows_its_program_as_it_is() {
    let (page, source) = (include_str!("../../docs/guides/write-a-transport.md"), include_str!("guide.rs"));
    let (_, part) = source.split_once("// begin: suite\n").expect("it begins");
    let (part, _) = part.split_once("\n// end: suite\n").expect("it ends");
    assert!(page.contains(&format!("```rust,ignore\n{part}\n```")));
}
