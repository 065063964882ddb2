//! The context of a verb: the target's handles, the outputs, the deadline.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tidings_audit::TopicAudit;
use tidings_core::audit::AuditSink;
use tidings_core::{Admin, DeadLetterStore, ErrorKind, EventRef, IdempotencyStore, Name, Secret, Transport};
use tidings_ops_api::client::{OpsConfig, OpsTransport, RemoteServices};
use tidings_service::{DeadLetters, ServiceDescription};
use tokio::sync::OnceCell;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::arguments::Globals;
use crate::connect::{Connect, Generated};
use crate::console::{Console, visible};
use crate::contexts::closest;
use crate::exit::{Exit, Failure};
use crate::output::{Format, View, render, schema};
use crate::services::Services;
use crate::target::{ReadTarget, Target, Variables};
use crate::trail::{ConsoleAudit, Trail};

/// The context of a run. Handles are opened when a verb first asks for them.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) globals: Globals,
    pub(crate) variables: Variables,
    pub(crate) console: Arc<Console>,
    pub(crate) services: Services,
    connect: Arc<dyn Connect>,
    interrupt: watch::Receiver<bool>,
    deadline: std::sync::Mutex<Instant>,
    target: OnceCell<Target>,
    transport: OnceCell<Arc<dyn Transport>>,
    admin: OnceCell<Arc<dyn Admin>>,
    /// The audit trail while a plan is applied, and what is audited by it.
    trail: OnceCell<Trail>,
    audited: OnceCell<Arc<dyn Transport>>,
    audited_admin: OnceCell<Arc<dyn Admin>>,
}

/// A store of done events.
#[derive(Debug)]
pub(crate) enum Store {
    /// One that this process opened.
    Local(Arc<dyn IdempotencyStore>),
    /// One of an ops endpoint, by its name there.
    Remote(OpsTransport, String),
}

impl Store {
    /// Returns which events of a scope are done.
    pub(crate) async fn done(&self, scope: &Name, events: &[EventRef]) -> tidings_core::Result<Vec<bool>> {
        match self {
            Self::Local(store) => store.done(scope, events).await,
            Self::Remote(endpoint, store) => endpoint.done(store, scope, events).await,
        }
    }
}

/// A verb that only looks.
pub(crate) trait Query {
    /// The output.
    type View: View;

    /// Looks, and returns the output.
    async fn run(&self, cx: &Context) -> Result<Self::View, Failure>;
}

impl Context {
    pub(crate) fn new(
        globals: Globals,
        variables: Variables,
        console: Console,
        connect: Arc<dyn Connect>,
        interrupt: watch::Receiver<bool>,
    ) -> Self {
        let deadline = std::sync::Mutex::new(after(globals.timeout));
        let (target, transport, admin) = Default::default();
        let (trail, audited, audited_admin) = Default::default();
        let console = Arc::new(console);
        Self {
            globals,
            variables,
            console,
            services: Services::default(),
            connect,
            interrupt,
            deadline,
            target,
            transport,
            admin,
            trail,
            audited,
            audited_admin,
        }
    }

    /// Adds the services that the program declares.
    pub(crate) fn with_services(mut self, services: Vec<ServiceDescription>) -> Self {
        self.services = Services::new(services);
        self
    }

    /// Runs a query and prints its output, again and again with `--watch`.
    pub(crate) async fn show<Q: Query>(&self, query: &Q) -> Result<Exit, Failure> {
        if self.globals.output == Format::Schema {
            return self.print(&schema::<Q::View>()).map(|()| Exit::Ok);
        }
        let Some(interval) = self.globals.watch else { return self.round(query).await };
        let mut last = None;
        loop {
            let exit = match (self.round(query).await, last) {
                // An interrupted round does not change the exit code.
                (Err(failure), Some(last)) if failure.exit() == Exit::Interrupted => return Ok(last),
                (round, _) => round?,
            };
            last = Some(exit);
            let next = after(interval);
            if self.until(next).await {
                return Ok(exit);
            }
            self.start_round();
            if self.globals.output.is_for_people() {
                self.print("\n")?;
            }
        }
    }

    async fn round<Q: Query>(&self, query: &Q) -> Result<Exit, Failure> {
        let view = self.within(query.run(self)).await?;
        self.output(&view)
    }

    /// Prints an output, and its notes for people.
    pub(crate) fn output<V: View>(&self, view: &V) -> Result<Exit, Failure> {
        let text = render(view, self.globals.output)?;
        match self.globals.output {
            Format::Table | Format::Wide | Format::Nagios => self.print(&visible(&text))?,
            _ => self.print(&text)?,
        }
        if self.globals.output.is_for_people() {
            view.notes().iter().for_each(|note| self.console.note(note));
        }
        Ok(match view.nagios() {
            Some((_, exit)) if self.globals.output == Format::Nagios => exit,
            _ => view.exit(),
        })
    }

    /// Prints data. A reader that has left ends the run without an error.
    pub(crate) fn print(&self, text: &str) -> Result<(), Failure> {
        self.console.print(text).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::reader_left(),
            _ => Failure::failed(format!("write the output: {error}")),
        })
    }

    /// Waits for a future, at most until the deadline or an interrupt.
    pub(crate) async fn within<T>(&self, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.interrupted() => Err(Failure::interrupted()),
            answer = timeout_at(self.deadline(), future) => answer.unwrap_or_else(|_| Err(self.late())),
        }
    }

    /// Returns the failure of a run that took longer than `--timeout`.
    pub(crate) fn late(&self) -> Failure {
        let limit = humantime::format_duration(self.globals.timeout);
        let of = self.target.get().map_or(String::new(), |target| format!(" from {}", target.name()));
        Failure::failed(format!("no answer{of} within {limit}")).with_hint("is the broker up? --timeout sets the limit")
    }

    /// Returns when this round must have ended.
    pub(crate) fn deadline(&self) -> Instant {
        *self.deadline.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Starts the time limit anew, for the next round.
    pub(crate) fn start_round(&self) {
        *self.deadline.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = after(self.globals.timeout);
    }

    /// Completes when the user interrupts the run.
    pub(crate) async fn interrupted(&self) {
        let mut interrupt = self.interrupt.clone();
        if interrupt.wait_for(|is| *is).await.is_err() {
            // The sender is gone: nothing can interrupt the run.
            std::future::pending::<()>().await;
        }
    }

    /// Returns whether the user has interrupted the run.
    pub(crate) fn is_interrupted(&self) -> bool {
        *self.interrupt.borrow()
    }

    /// Waits until a time; returns whether the user interrupted it.
    pub(crate) async fn until(&self, time: Instant) -> bool {
        timeout_at(time, self.interrupted()).await.is_ok()
    }

    /// Returns the target.
    pub(crate) async fn target(&self) -> Result<&Target, Failure> {
        self.target.get_or_try_init(async || self.read_target(Target::of).await).await
    }

    /// Reads a target within the time limit of the run.
    pub(crate) async fn read_target(&self, read: impl ReadTarget) -> Result<Target, Failure> {
        let left = self.deadline().saturating_duration_since(Instant::now());
        crate::target::read(self.globals.clone(), self.variables.clone(), left, read).await
    }

    /// Returns the target's transport.
    pub(crate) async fn transport(&self) -> Result<&Arc<dyn Transport>, Failure> {
        let opened = self.plain_transport().await?;
        match self.trail.get() {
            None => Ok(opened),
            Some(trail) => Ok(self.audited.get_or_init(async || trail.of_transport(opened)).await),
        }
    }

    async fn plain_transport(&self) -> Result<&Arc<dyn Transport>, Failure> {
        let target = self.target().await?;
        self.transport.get_or_try_init(async || self.open(target).await).await
    }

    /// Returns the sink of the audit trail, if one is configured.
    pub(crate) async fn audit_sink(&self) -> Result<Option<Arc<dyn AuditSink>>, Failure> {
        let Some(place) = self.target().await?.audit() else { return Ok(None) };
        Ok(Some(match place.expose().strip_prefix("topic:") {
            Some(topic) => Arc::new(TopicAudit::open(self.plain_transport().await?.as_ref(), topic).await?),
            None => self.connect.audit_sink(place.expose()).await?,
        }))
    }

    /// Returns the trail of an ops endpoint, which is read-only.
    pub(crate) async fn remote_audit(&self) -> Result<Option<Arc<dyn AuditSink>>, Failure> {
        let target = self.target().await?;
        Ok(if self.is_remote().await? { Some(self.endpoint(target).await?.audit()) } else { None })
    }

    /// Begins to record what is changed. An ops endpoint keeps the trail of its own changes.
    pub(crate) async fn begin_trail(&self, plan: &str) -> Result<(), Failure> {
        if self.is_remote().await? {
            return Ok(());
        }
        let sink = match self.audit_sink().await? {
            Some(sink) => sink,
            None => {
                self.console
                    .note("Warning: no audit trail is configured (--audit, TIDINGS_AUDIT); the records follow.");
                Arc::new(ConsoleAudit(Arc::clone(&self.console)))
            }
        };
        self.trail.get_or_init(async || Trail::new(sink, self.user(), plan)).await;
        Ok(())
    }

    /// Ends the trail, if there is one.
    pub(crate) async fn end_trail(&self) {
        if let Some(trail) = self.trail.get() {
            self.console.note(&trail.end().await);
        }
    }

    /// Returns the trail while a plan is applied.
    pub(crate) fn trail(&self) -> Option<&Trail> {
        self.trail.get()
    }

    /// Returns the name of the user, for the records of who did what.
    pub(crate) fn user(&self) -> &str {
        let named = ["TIDINGS_OPERATOR", "USER", "USERNAME"].into_iter().find_map(|name| self.variables.get(name));
        named.unwrap_or(DeadLetters::DEFAULT_OPERATOR)
    }

    /// Opens the transport of a target.
    pub(crate) async fn open(&self, target: &Target) -> Result<Arc<dyn Transport>, Failure> {
        let scheme = target.name().split_once("://").map_or("", |(scheme, _)| scheme);
        if scheme == "memory" || scheme.starts_with("sled") {
            let text = format!("{scheme}:// lives inside one process and cannot be reached from another");
            return Err(Failure::usage(text).with_hint("use the http:// address of that process's ops endpoint"));
        }
        if scheme == "http" || scheme == "https" {
            return Ok(Arc::new(self.endpoint(target).await?));
        }
        self.connect.transport(target.url().expose()).await.map_err(|error| match error.kind() {
            ErrorKind::Invalid => Failure::usage(error.report()),
            _ => error.into(),
        })
    }

    /// Returns the target's admin interface.
    pub(crate) async fn admin(&self) -> Result<&Arc<dyn Admin>, Failure> {
        let transport = self.transport().await?;
        let admin = if self.trail.get().is_some() { &self.audited_admin } else { &self.admin };
        admin.get_or_try_init(async || Ok(transport.admin().await?)).await
    }

    /// Connects to an ops endpoint.
    async fn endpoint(&self, target: &Target) -> Result<OpsTransport, Failure> {
        let mut config = OpsConfig::new(target.url().expose());
        config.token = target.token().cloned();
        config.roots = self.variables.get("TIDINGS_CA_FILE").map(Into::into);
        config.timeout = config.timeout.min(self.globals.timeout);
        OpsTransport::open(config).await.map_err(|error| match error.kind() {
            ErrorKind::Invalid => Failure::usage(error.report()),
            _ => error.into(),
        })
    }

    /// Returns the store of done events, if one is given: by its URL, or at an ops endpoint by its name.
    pub(crate) async fn store(&self) -> Result<Option<Store>, Failure> {
        let target = self.target().await?;
        let Some(store) = target.store() else { return Ok(None) };
        let is_name = !store.expose().contains(':');
        if is_name && target.name().starts_with("http") {
            return Ok(Some(Store::Remote(self.endpoint(target).await?, store.expose().to_owned())));
        }
        Ok(Some(Store::Local(self.connect.idempotency_store(store.expose()).await?)))
    }

    /// Returns a file for monitoring, if this program has it.
    pub(crate) fn generated(&self, what: Generated) -> Option<String> {
        self.connect.generated(what)
    }

    /// Returns the store of the dead letters; `None` if they are in topics.
    pub(crate) async fn letters(&self) -> Result<Option<Arc<dyn DeadLetterStore>>, Failure> {
        match self.target().await?.letters().map(Secret::expose) {
            // An endpoint that has none of this name still reaches the topics.
            None | Some("topics") if self.is_remote().await? => {
                match self.endpoint(self.target().await?).await?.letters("topics").await {
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                    letters => Ok(Some(letters?)),
                }
            }
            None | Some("topics") => Ok(None),
            Some(name) if !name.contains(':') && self.is_remote().await? => {
                Ok(Some(self.endpoint(self.target().await?).await?.letters(name).await?))
            }
            Some(url) => Ok(Some(self.connect.dead_letter_store(url).await?)),
        }
    }

    /// Returns whether the target is an ops endpoint.
    async fn is_remote(&self) -> Result<bool, Failure> {
        Ok(self.target().await?.name().starts_with("http"))
    }

    /// Returns whether a target is given, by arguments, variables or a current context.
    pub(crate) fn has_target(&self) -> Result<bool, Failure> {
        Target::is_given(&self.globals, &self.variables)
    }

    /// Connects to the ops endpoint of running services, which the target must be.
    pub(crate) async fn remote_services(&self) -> Result<RemoteServices, Failure> {
        let target = self.target().await?;
        if !self.is_remote().await? {
            let text = format!("{} knows no running services", target.name());
            return Err(Failure::usage(text).with_hint("use the http:// address of a service's ops endpoint as --url"));
        }
        Ok(self.endpoint(target).await?.services())
    }

    /// Returns the user's interrupts, for work that ends in order.
    pub(crate) fn interrupt(&self) -> watch::Receiver<bool> {
        self.interrupt.clone()
    }

    /// Returns the failure of a name that the broker does not know, with the most similar one that it knows.
    pub(crate) async fn unknown(&self, noun: &str, name: &str) -> Failure {
        let known = match (noun, self.admin().await) {
            ("group", Ok(admin)) => admin.list_groups().await,
            (_, Ok(admin)) => admin.list_topics().await,
            (_, Err(_)) => Ok(Vec::new()),
        };
        let known = known.unwrap_or_default();
        let hint = match closest(name, known.iter().map(Name::as_str)) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("see `tidings {noun} list`"),
        };
        Failure::failed(format!("{noun} {name} does not exist")).with_hint(hint)
    }
}

/// Returns the time after `duration`; a very long one is a century.
fn after(duration: Duration) -> Instant {
    let century = Duration::from_secs(3_155_760_000);
    Instant::now() + duration.min(century)
}
