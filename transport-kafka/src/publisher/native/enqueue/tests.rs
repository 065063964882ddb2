//! Closing a publisher while a call queues its records.

use std::pin::pin;

use tidings_core::Publisher;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::dedicated_runtime::DedicatedRuntime;
use crate::publisher::native::NativePublisher;
use crate::wire::cluster::Cluster;

async fn publisher() -> NativePublisher {
    of_brokers(&[]).await
}

async fn of_brokers(brokers: &[String]) -> NativePublisher {
    let runtime = DedicatedRuntime::new("test").expect("a thread");
    let (cluster, kept) = (Cluster::new(&KafkaConfig::new(brokers)), runtime.clone());
    runtime.run(async move { Ok(NativePublisher::start(cluster, None, kept)) }).await.expect("a publisher")
}

#[tokio::test]
async fn close_waits_for_the_call_that_queues_records() {
    let publisher = publisher().await;
    let turn = publisher.shared.state.lock().await;
    let mut close = pin!(publisher.close(Duration::ZERO));
    assert!(timeout(Duration::from_millis(50), &mut close).await.is_err(), "the call may have more records");
    drop(turn);
    close.await.expect("all records are answered");
}

#[tokio::test]
async fn close_ends_before_the_call_that_queues_records() {
    let publisher = publisher().await;
    let _turn = publisher.shared.state.lock().await;
    let closed = publisher.close(Duration::ZERO).await;
    assert_eq!(closed.map_err(|error| error.kind()), Err(ErrorKind::Indeterminate));
}

#[tokio::test]
async fn close_does_not_wait_for_a_broker_that_does_not_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let publisher = of_brokers(&[listener.local_addr().expect("an address").to_string()]).await;
    let mut publish = pin!(publisher.publish(vec![Record::new("t", "v")]));
    assert!(publish.as_mut().now_or_never().is_none());
    let _asked = listener.accept().await.expect("the topic is looked up");
    publisher.close(Duration::ZERO).await.expect("all records are answered");
    let answer = publish.await.remove(0);
    assert_eq!(answer.map_err(|error| error.kind()), Err(ErrorKind::Closed));
}
