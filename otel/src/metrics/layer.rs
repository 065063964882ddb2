//! The layer that measures handlers.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use opentelemetry::KeyValue;
use pin_project_lite::pin_project;
use tidings_core::{BoxError, Delivery, Name, Outcome};
use tower_layer::Layer;
use tower_service::Service;

use super::Instruments;
use crate::conventions::{DESTINATION, ERROR_TYPE, GROUP, OPERATION_NAME, PROCESS, SERVICE, SYSTEM};
use crate::errors::{error_type, unfinished};

/// A layer that measures handlers: `messaging.process.duration`, once per attempt at a delivery of one or more records.
///
/// Created by [`Metrics::layer`](crate::Metrics::layer). It reads the clock twice per attempt, and allocates nothing
/// for one that succeeds.
#[derive(Debug, Clone)]
pub struct MetricsLayer {
    instruments: Arc<Instruments>,
    system: &'static str,
}

impl MetricsLayer {
    pub(super) fn new(instruments: Arc<Instruments>, system: &'static str) -> Self {
        Self { instruments, system }
    }
}

impl<S> Layer<S> for MetricsLayer {
    type Service = MetricsService<S>;

    fn layer(&self, inner: S) -> MetricsService<S> {
        MetricsService { inner, layer: self.clone(), known: None }
    }
}

/// A handler within a [`MetricsLayer`].
#[derive(Debug, Clone)]
pub struct MetricsService<S> {
    inner: S,
    layer: MetricsLayer,
    /// The attributes of the last delivery's topic: those of the next one, as a rule.
    known: Option<(Name, Arc<[KeyValue]>)>,
}

impl<S> MetricsService<S> {
    fn attributes(&mut self, delivery: &Delivery) -> Arc<[KeyValue]> {
        match &self.known {
            Some((topic, attributes)) if topic == delivery.topic() => attributes.clone(),
            _ => {
                let attributes: Arc<[KeyValue]> = Arc::new([
                    KeyValue::new(SYSTEM, self.layer.system),
                    KeyValue::new(OPERATION_NAME, PROCESS.name),
                    KeyValue::new(DESTINATION, delivery.topic().to_string()),
                    KeyValue::new(GROUP, delivery.context().group.to_string()),
                    KeyValue::new(SERVICE, delivery.context().service.to_string()),
                ]);
                self.known = Some((delivery.topic().clone(), attributes.clone()));
                attributes
            }
        }
    }
}

impl<S> Service<Delivery> for MetricsService<S>
where
    S: Service<Delivery, Response = Outcome>,
    S::Error: Into<BoxError>,
{
    type Response = Outcome;
    type Error = BoxError;
    type Future = MetricsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let attributes = self.attributes(&delivery);
        let timing = Timing { instruments: self.layer.instruments.clone(), attributes, started: Some(Instant::now()) };
        MetricsFuture { inner: self.inner.call(delivery), timing: Some(timing) }
    }
}

pin_project! {
    /// The future of a measured delivery.
    pub struct MetricsFuture<F> {
        #[pin]
        inner: F,
        timing: Option<Timing>,
    }
}

impl<F> fmt::Debug for MetricsFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsFuture").field("timing", &self.timing).finish_non_exhaustive()
    }
}

impl<F: Future<Output = Result<Outcome, E>>, E: Into<BoxError>> Future for MetricsFuture<F> {
    type Output = Result<Outcome, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // Out of its place while the handler is polled: a panic ends the attempt as such.
        let Some(timing) = this.timing.take() else { return this.inner.poll(cx).map_err(Into::into) };
        let polled = this.inner.poll(cx).map_err(Into::into);
        match &polled {
            Poll::Pending => *this.timing = Some(timing),
            Poll::Ready(result) => timing.end(result.as_ref().err().map(|error| error_type(error.as_ref()))),
        }
        polled
    }
}

/// An attempt in progress. Dropped, it ends as cancelled.
#[derive(Debug)]
struct Timing {
    instruments: Arc<Instruments>,
    attributes: Arc<[KeyValue]>,
    /// `None` if it has ended.
    started: Option<Instant>,
}

impl Timing {
    fn end(mut self, error: Option<&'static str>) {
        self.record(error);
    }

    fn record(&mut self, error: Option<&'static str>) {
        let Some(started) = self.started.take() else { return };
        let seconds = started.elapsed().as_secs_f64();
        match error {
            None => self.instruments.processing.record(seconds, &self.attributes),
            Some(error) => {
                let mut attributes = self.attributes.to_vec();
                attributes.push(KeyValue::new(ERROR_TYPE, error));
                self.instruments.processing.record(seconds, &attributes);
            }
        }
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        self.record(Some(unfinished()));
    }
}
