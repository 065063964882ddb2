//! Admin operations (A1), and dead letters (D1, D2).

use std::time::Duration;

use bytes::Bytes;
use tidings_core::{
    CreatePartitionsOptions, DeadLetter, ErrorKind, GroupState, Name, Record, ResetOffsetsOptions, ResetTo, SeekTo,
    StoredRecord, Timestamp, Topic, Transport, dead_letter_headers, inspect,
};
use tidings_memory::{MemoryConfig, MemoryTransport};

use crate::common::{admin, assigned, commit, commit_of, join, publish, publish_values, records, topic, tp};

#[tokio::test(start_paused = true)]
async fn a1_topics_are_created_described_listed_and_deleted() {
    let transport = MemoryTransport::new();
    let admin = admin(&transport).await;
    let wanted = [Topic::new("b").with_partitions(2), Topic::new("a").with_retention(Duration::from_secs(5))];
    assert!(admin.create_topics(&wanted).await.unwrap().iter().all(Result::is_ok));
    let again = admin.create_topics(&[Topic::new("a"), Topic::new("c").with_partitions(0)]).await.unwrap();
    let kinds: Vec<_> = again.into_iter().map(|a| a.unwrap_err().kind()).collect();
    assert_eq!(kinds, [ErrorKind::AlreadyExists, ErrorKind::Invalid]);
    assert_eq!(admin.list_topics().await.unwrap(), [Name::from("a"), Name::from("b")]);
    let found = admin.describe_topics(&["a".into(), "none".into()]).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap().settings["retention.ms"], "5000");
    let missing = found[1].as_ref().unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("\"none\""));
    assert!(admin.delete_topics(&["a".into()]).await.unwrap()[0].is_ok());
    assert_eq!(admin.list_topics().await.unwrap(), [Name::from("b")]);
}

#[tokio::test(start_paused = true)]
async fn a1_grow_needs_leave_to_send_keys_elsewhere() {
    let transport = MemoryTransport::new();
    let admin = admin(&transport).await;
    publish(&transport, vec![Record::new("keyed", "x").with_key("k"), Record::new("keyless", "x")]).await;
    admin.create_partitions(&"keyless".into(), 3, CreatePartitionsOptions::default()).await.unwrap();
    let refused = admin.create_partitions(&"keyed".into(), 3, CreatePartitionsOptions::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    admin.create_partitions(&"keyed".into(), 3, CreatePartitionsOptions::default().with_rekeying()).await.unwrap();
    assert_eq!(
        admin
            .create_partitions(&"keyed".into(), 2, CreatePartitionsOptions::default().with_rekeying())
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Invalid
    );
    assert_eq!(
        admin
            .create_partitions(&"none".into(), 2, CreatePartitionsOptions::default().with_rekeying())
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test(start_paused = true)]
async fn a1_a_group_is_described_with_its_lag() {
    let transport = MemoryTransport::new();
    topic(&transport, "t", 2).await;
    let admin = admin(&transport).await;
    assert_eq!(admin.group_lag(&"g".into()).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(admin.describe_group(&"g".into()).await.unwrap_err().kind(), ErrorKind::NotFound);
    publish(&transport, (0..5).map(|_| Record::new("t", "x").with_partition(1)).collect()).await;
    let consumer = join(&transport, "g", "t").await;
    let mine = assigned(&consumer).await;
    records(&consumer).await;
    commit(&consumer, commit_of(&mine[1], 3)).await.unwrap();
    let lag = admin.group_lag(&"g".into()).await.unwrap();
    assert_eq!(
        lag.iter().map(|l| (l.committed, l.end, l.lag())).collect::<Vec<_>>(),
        [(None, 0, Some(0)), (Some(3), 5, Some(2))]
    );
    let group = admin.describe_group(&"g".into()).await.unwrap();
    assert_eq!((group.state, group.members[0].partitions.len()), (GroupState::Stable, 2));
    drop(consumer);
    assert_eq!(admin.describe_group(&"g".into()).await.unwrap().state, GroupState::Empty);
    assert_eq!(admin.group_lag(&"g".into()).await.unwrap().len(), 1);
    admin.delete_group(&"g".into()).await.unwrap();
    assert!(admin.list_groups().await.unwrap().is_empty());
    assert_eq!(admin.delete_group(&"g".into()).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a1_reset_is_refused_while_there_are_members_and_a_dry_run_moves_nothing() {
    let transport = MemoryTransport::new();
    let publisher = transport.publisher().await.unwrap();
    publish_values(&publisher, "t", 0..10).await;
    let admin = admin(&transport).await;
    let (group, topics) = (Name::from("g"), [Name::from("t")]);
    let consumer = join(&transport, "g", "t").await;
    let mine = assigned(&consumer).await.remove(0);
    commit(&consumer, commit_of(&mine, 6)).await.unwrap();
    let to = ResetTo::Position(SeekTo::Offset(2));
    assert_eq!(
        admin.reset_offsets(&group, &topics, to, ResetOffsetsOptions::default()).await.unwrap_err().kind(),
        ErrorKind::Conflict
    );
    assert_eq!(admin.delete_group(&group).await.unwrap_err().kind(), ErrorKind::Conflict);
    drop(consumer);
    let planned = admin
        .reset_offsets(&group, &topics, to, ResetOffsetsOptions::default().with_dry_run())
        .await
        .unwrap()
        .remove(0);
    assert_eq!((planned.partition.clone(), planned.from, planned.to), (tp("t", 0), Some(6), 2));
    assert_eq!(admin.group_lag(&group).await.unwrap()[0].committed, Some(6));
    for (to, next) in [
        (to, 2),
        (ResetTo::Shift(3), 5),
        (ResetTo::Shift(-99), 0),
        (ResetTo::Position(SeekTo::Latest), 10),
        (ResetTo::Position(SeekTo::Earliest), 0),
    ] {
        admin.reset_offsets(&group, &topics, to, ResetOffsetsOptions::default()).await.unwrap();
        assert_eq!(admin.group_lag(&group).await.unwrap()[0].committed, Some(next));
    }
    let missing = admin.reset_offsets(&group, &["none".into()], to, ResetOffsetsOptions::default()).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn d2_a_letter_keeps_the_original_and_says_why() {
    let transport = MemoryTransport::new();
    let sink = transport.dead_letters().await.unwrap();
    sink.check(&["t".into()]).await.unwrap();
    let record = StoredRecord::new(7, Timestamp::from_millis(5)).with_key("k").with_value(Bytes::from_static(b"\xff"));
    let letter =
        DeadLetter::new("svc", tp("t", 2), record, ErrorKind::Undecodable).with_error("no JSON").with_attempts(3);
    sink.bury(vec![letter]).await.remove(0).unwrap();
    let reader = join(&transport, "ops", "t-dlq").await;
    assigned(&reader).await;
    let fetched = records(&reader).await;
    let buried = &fetched.batch.records()[0];
    assert_eq!((buried.key.as_deref(), buried.value.as_deref()), (Some(&b"k"[..]), Some(&b"\xff"[..])));
    assert_eq!(buried.headers.get_str(dead_letter_headers::OFFSET), Some("7"));
    assert_eq!(buried.headers.get_str(dead_letter_headers::ERROR), Some("no JSON"));
}

#[tokio::test(start_paused = true)]
async fn a_missing_dead_letter_topic_is_told_before_the_first_letter() {
    let transport = MemoryTransport::open(MemoryConfig::new().with_auto_create(false)).unwrap();
    let sink = transport.dead_letters().await.unwrap();
    let error = sink.check(&["t".into()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("t-dlq"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_broker_is_healthy() {
    let transport = MemoryTransport::new();
    let health = admin(&transport).await.health().await.unwrap();
    assert!(health.is_healthy());
    assert_eq!(health.controller, Some(0));
}

#[tokio::test(start_paused = true)]
async fn an_inspection_tells_what_is_missing_and_whom_nobody_works_for() {
    let transport = MemoryTransport::open(MemoryConfig::new().with_auto_create(false)).unwrap();
    let admin = admin(&transport).await;
    admin.create_topics(&[Topic::new("t"), Topic::new("t-dlq"), Topic::new("u")]).await.unwrap();
    publish_values(&transport.publisher().await.unwrap(), "t", 0..10).await;
    let consumer = join(&transport, "g", "t").await;
    let mine = assigned(&consumer).await.remove(0);
    commit(&consumer, commit_of(&mine, 6)).await.unwrap();
    let topics = ["t", "u", "v"].map(Name::from);
    let at_work = inspect(&*admin, &topics, &[]).await.unwrap();
    let group = &at_work.groups[0];
    assert_eq!((group.name.as_str(), group.state, group.members, group.lag), ("g", GroupState::Stable, 1, 4));
    assert_eq!(at_work.missing, ["u-dlq", "v", "v-dlq"].map(Name::from));
    assert_eq!(at_work.health.problems.len(), 3, "{:?}", at_work.health.problems);
    drop(consumer);
    let left = inspect(&*admin, &["t".into()], &["g".into(), "never-ran".into()]).await.unwrap();
    assert_eq!(left.health.problems, ["group \"g\" has no members and a lag of 4"]);
    assert_eq!((left.groups[1].state, left.groups[1].lag), (GroupState::Empty, 0));
}
