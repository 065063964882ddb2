//! The operations endpoint of the platform.

use tidings::{BoxError, EventPublisher, ServiceHandle};

#[cfg(feature = "ops")]
pub(crate) use tidings::ops::OpsHandle as Endpoint;

/// There is no endpoint without the feature.
#[cfg(not(feature = "ops"))]
#[derive(Debug)]
pub(crate) struct Endpoint;

/// Serves probes, metrics and the status of all services and publishers.
#[cfg(feature = "ops")]
pub(crate) fn serve(
    address: &str,
    services: &[ServiceHandle],
    publishers: impl Iterator<Item = EventPublisher>,
) -> Result<Endpoint, BoxError> {
    use tidings::ops::{Ops, Tokens};

    let ops = services.iter().fold(Ops::new(), Ops::with_service);
    let ops = publishers.fold(ops, |ops, publisher| ops.with_publisher(&publisher));
    // The sample's metrics are no secret: Prometheus may read them on any address.
    let ops = ops.with_tokens(Tokens::from_env()?).with_open_metrics().serve(address)?;
    eprintln!("--ops: http://{0}/livez /readyz /metrics /status", ops.local_addr());
    Ok(ops)
}

#[cfg(not(feature = "ops"))]
pub(crate) fn serve(
    address: &str,
    _: &[ServiceHandle],
    _: impl Iterator<Item = EventPublisher>,
) -> Result<Endpoint, BoxError> {
    Err(crate::options::needs_feature("--ops", address, "ops").into())
}

#[cfg(not(feature = "ops"))]
impl Endpoint {
    pub(crate) async fn shutdown(self, _: std::time::Duration) -> Result<(), BoxError> {
        Ok(())
    }
}
