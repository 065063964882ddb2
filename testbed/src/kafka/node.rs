//! A broker of a cluster.

use super::{
    install::Install,
    options::{Listener, START_TIMEOUT},
    properties::Addresses,
};
use crate::{
    blocking::blocking,
    error::{Error, Result},
    ports::Port,
    process::{EndBy, Supervised, tail, wait_until},
    proxy::Proxy,
    wire,
};
use rustix::process::Signal;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How long a running broker may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1_500);

/// How long a stopped broker may take to move its leaders elsewhere.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A node of a [`Kafka`](crate::Kafka) cluster, broker and controller in one process. Its ports stay the same across
/// restarts.
#[derive(Debug, Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: i32,
    addresses: Addresses,
    command: Vec<String>,
    log: PathBuf,
    process: Mutex<Option<Supervised>>,
    proxy: Option<Proxy>,
    _ports: Vec<Port>,
}

/// State of a node.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) id: i32,
    pub(crate) addresses: Addresses,
    pub(crate) properties: PathBuf,
    pub(crate) heap: Vec<String>,
    pub(crate) log: PathBuf,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) ports: Vec<Port>,
}

impl Node {
    pub(crate) fn new(install: &Install, parts: Parts) -> Self {
        let command = install.java(&parts.heap, "kafka.Kafka", &[parts.properties.display().to_string()]);
        let Parts { id, addresses, log, proxy, ports, .. } = parts;
        Self { inner: Arc::new(Inner { id, addresses, command, log, process: Mutex::new(None), proxy, _ports: ports }) }
    }

    /// Returns the node's id in the cluster: 1 for the first.
    pub fn id(&self) -> i32 {
        self.inner.id
    }

    /// Returns `host:port` of a listener, as advertised to clients; `None` if the cluster has no such listener.
    pub fn address(&self, listener: Listener) -> Option<&str> {
        self.inner.addresses.advertised.get(&listener).map(String::as_str)
    }

    /// Returns the proxy in front of this node, with
    /// [`KafkaOptions::with_proxies`](crate::KafkaOptions::with_proxies).
    pub fn proxy(&self) -> Option<&Proxy> {
        self.inner.proxy.as_ref()
    }

    /// Returns the path of the broker's log file: warnings and errors.
    pub fn log(&self) -> &std::path::Path {
        &self.inner.log
    }

    /// Kills the process with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// If the process does not end.
    pub fn kill(&self) -> Result<()> {
        let mut process = self.process();
        let ended = process.as_mut().map_or(Ok(()), Supervised::end);
        *process = None;
        ended
    }

    /// Stops the process with SIGTERM, which moves its leaders to other brokers first, as a rolling restart does.
    ///
    /// # Errors
    /// If it has not ended within half a minute.
    pub async fn stop(&self) -> Result<()> {
        let node = self.clone();
        blocking(move || {
            let mut process = node.process();
            if let Some(running) = process.as_mut() {
                running.signal(Signal::TERM)?;
                running.wait(STOP_TIMEOUT)?;
            }
            *process = None;
            Ok(())
        })
        .await
    }

    /// Freezes the process (SIGSTOP): its sockets stay open, but it does not answer.
    ///
    /// # Errors
    /// If the node is not running.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Resumes a paused process (SIGCONT).
    ///
    /// # Errors
    /// If the node is not running.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Starts the node again, after a SIGKILL if it is running, and waits until it is a member of its cluster.
    ///
    /// # Errors
    /// If it does not answer within [`START_TIMEOUT`].
    pub async fn restart(&self) -> Result<()> {
        self.kill()?;
        self.start().await
    }

    /// Starts the node after [`kill`](Self::kill) or [`stop`](Self::stop) and waits until it is a member of its
    /// cluster. It has no effect on a running node.
    ///
    /// # Errors
    /// If it does not answer within [`START_TIMEOUT`].
    pub async fn start(&self) -> Result<()> {
        let node = self.clone();
        blocking(move || {
            node.spawn()?;
            node.wait_until(|view| view.controller >= 0 && view.brokers.contains(&node.id()))
        })
        .await
    }

    /// Returns whether the broker answers a metadata request now.
    pub async fn is_up(&self) -> bool {
        let node = self.clone();
        blocking(move || Ok(node.view().is_some())).await.unwrap_or(false)
    }

    /// Returns whether the process has not ended; a paused process is running.
    pub fn is_running(&self) -> bool {
        self.process().as_mut().is_some_and(Supervised::is_running)
    }

    /// Returns the ids of the brokers that this node considers up; none if it does not answer.
    pub async fn sees(&self) -> Vec<i32> {
        let node = self.clone();
        blocking(move || Ok(node.view().map(|view| view.brokers).unwrap_or_default())).await.unwrap_or_default()
    }

    pub(crate) fn view(&self) -> Option<wire::ClusterView> {
        let address = self.inner.addresses.bind.get(&Listener::Plain)?;
        wire::cluster_view(address, ANSWER_TIMEOUT).ok()
    }

    pub(crate) fn spawn(&self) -> Result<()> {
        let mut process = self.process();
        if process.as_mut().is_some_and(Supervised::is_running) {
            return Ok(());
        }
        *process = Some(Supervised::spawn(&self.inner.command, &self.inner.log, EndBy::Kill)?);
        Ok(())
    }

    /// Waits until the broker's view of its cluster is as wanted.
    pub(crate) fn wait_until(&self, wanted: impl Fn(&wire::ClusterView) -> bool) -> Result<()> {
        let mut died = false;
        let up = wait_until(START_TIMEOUT, || {
            died = !self.is_running();
            died || self.view().is_some_and(|view| wanted(&view))
        });
        if up && !died {
            return Ok(());
        }
        let how = if died { "ended" } else { "did not answer in time" };
        Err(Error::failed(format!("kafka node {} {how}; its log ends with:\n{}", self.id(), tail(self.log(), 20))))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        match self.process().as_ref() {
            Some(process) => process.signal(signal),
            None => Err(Error::failed(format!("kafka node {} is not running", self.id()))),
        }
    }

    fn process(&self) -> MutexGuard<'_, Option<Supervised>> {
        self.inner.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
