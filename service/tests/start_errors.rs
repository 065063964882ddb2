//! The texts of errors of `start`.

use tidings_core::{Delivery, ErrorKind};
use tidings_memory::{MemoryConfig, MemoryTransport};
use tidings_service::{Router, Service};

#[tokio::test]
async fn a_missing_dead_letter_topic_is_the_cause_that_the_error_itself_names() {
    let transport = MemoryTransport::open(MemoryConfig::new().with_auto_create(false)).unwrap();
    let router = Router::new().on_topic("t", async |_: Delivery| {});
    let error = Service::new("s", router).start(&transport).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let text = error.to_string();
    assert!(text.starts_with("start s: ") && text.ends_with("there is no topic \"t-dlq\""), "{text}");
    assert_eq!(error.report(), text);
}
