//! The errors of `start`, which are complete, and say how to mend the mistake.

use tidings_core::{BoxError, Delivery, Error, ErrorKind, Topic, Transport};
use tidings_memory::{MemoryConfig, MemoryStore, MemoryTransport};
use tidings_service::{FromDelivery, HandlerExt, Requirement, Router, Service, TopicPolicy};

async fn raw(_: Delivery) {}

async fn refused(service: Service, transport: &MemoryTransport) -> Error {
    let error = service.start(transport).await.expect_err("it must not start");
    assert_eq!(error.report(), error.to_string(), "its own text names the cause");
    error
}

#[tokio::test]
async fn all_missing_topics_and_dead_letter_topics_are_listed_at_once() {
    let transport = MemoryTransport::open(MemoryConfig::new().with_auto_create(false)).unwrap();
    let admin = transport.admin().await.unwrap();
    for topic in ["b", "c-dlq"] {
        admin.create_topics(&[Topic::new(topic)]).await.unwrap().pop().unwrap().unwrap();
    }
    let router = Router::new().on_topic("a", raw).on_topic("b", raw).on_topic("c", raw);
    let error = refused(Service::new("s", router), &transport).await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let text = error.to_string();
    assert!(
        text.starts_with("start \"s\": missing topics: a, c; missing dead-letter topics: a-dlq, b-dlq; create them"),
        "{text}"
    );
    assert!(text.contains("TopicPolicy::Create"), "{text}");
}

#[tokio::test]
async fn a_missing_topic_is_named_where_its_dead_letter_topic_exists() {
    let transport = MemoryTransport::open(MemoryConfig::new().with_auto_create(false)).unwrap();
    let admin = transport.admin().await.unwrap();
    admin.create_topics(&[Topic::new("t-dlq"), Topic::new("u-dlq")]).await.unwrap();
    let error = refused(Service::new("s", Router::new().on_topic("t", raw).on_topic("u", raw)), &transport).await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let text = error.to_string();
    assert!(text.starts_with("start \"s\": missing topics: t, u; create them"), "{text}");
}

#[tokio::test]
async fn a_topic_that_the_policy_does_not_create_is_added_to_it() {
    let transport = MemoryTransport::open(MemoryConfig::new().with_auto_create(false)).unwrap();
    let router = Router::new().on_topic("a", raw).on_topic("b", raw);
    let service = Service::new("s", router).with_topics(TopicPolicy::Create(vec![Topic::new("a")]));
    let text = refused(service, &transport).await.to_string();
    let rest = "missing topics: b; missing dead-letter topics: b-dlq; add them to the topics of `TopicPolicy::Create`";
    assert!(text.contains(rest), "{text}");
}

/// A layer that provides something, and needs an idempotency store for it.
#[derive(Clone)]
struct Provides;

impl<S> tower_layer::Layer<S> for Provides {
    type Service = S;

    fn layer(&self, inner: S) -> S {
        Requirement::provide("it");
        Requirement::idempotency_store("the layer needs a store").declare();
        inner
    }
}

struct It;

impl<S: Sync> FromDelivery<S> for It {
    async fn from_delivery(_: &Delivery, _: &S) -> Result<Self, BoxError> {
        Ok(Self)
    }

    fn requirement() -> Option<Requirement> {
        Some(Requirement::layer("it", "`It` needs the layer `Provides`"))
    }
}

async fn takes_it(_: Delivery, _: It) {}

#[tokio::test]
async fn an_extractor_without_its_layer_is_refused() {
    let router = Router::new().on_topic("t", raw).layer(Provides).on_topic("u", takes_it.named("late"));
    let service = Service::new("s", router).with_idempotency(MemoryStore::new());
    let error = refused(service, &MemoryTransport::new()).await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(error.to_string(), "start \"s\": the handler \"late\": `It` needs the layer `Provides`");
}

#[tokio::test]
async fn a_layer_without_the_store_that_it_needs_is_refused() {
    let router = Router::new().on_topic("t", takes_it.named("first")).on_topic("u", raw.named("second"));
    // A layer within a stack declares as well.
    let stack = tower_layer::Stack::new(tower::timeout::TimeoutLayer::new(std::time::Duration::from_secs(1)), Provides);
    let error = refused(Service::new("s", router.layer(stack)), &MemoryTransport::new()).await;
    assert_eq!(
        error.to_string(),
        "start \"s\": the handler \"first\": the layer needs a store; the handler \"second\": the layer needs a store"
    );
}

#[tokio::test]
async fn an_extractor_behind_its_layer_is_accepted() {
    let router = Router::new().on_topic("t", takes_it).layer(Provides);
    let service = Service::new("s", router).with_idempotency(MemoryStore::new());
    drop(service.start(&MemoryTransport::new()).await.unwrap());
}
