//! The faults of a run.

use std::time::Duration;

use tidings_core::{ErrorKind, TopicPartition};
use tidings_memory::PublishFault;

use super::history::Happened;
use super::world::{GROUP, TOPICS, World};

impl World {
    pub(super) fn excusable(&self, what: impl Into<String>, excuses: bool) {
        self.log.add(Happened::Fault { what: what.into(), excuses });
    }

    pub(super) fn group_trouble(&mut self) {
        let faults = self.transport.faults();
        if self.rng.bool() {
            // A member that is asked to release in time finishes its in-flight work: this is checked, and is no
            // excuse.
            faults.rebalance(GROUP);
            return;
        }
        self.excusable("lost", true);
        if self.rng.bool() {
            faults.lose_all(GROUP);
        } else {
            let partition = self.rng.u32(..self.setting.partitions);
            let topic = *self.rng.choice(&TOPICS).unwrap();
            faults.lose(GROUP, &TopicPartition::new(topic, partition));
        }
    }

    pub(super) async fn fault(&mut self) {
        match self.rng.u8(..4) {
            0 => self.broker_fault(),
            1 => self.record_fault(),
            2 => self.store_fault(),
            _ => self.time_fault().await,
        }
    }

    fn broker_fault(&mut self) {
        let faults = self.transport.faults();
        let times = self.rng.u32(1..6);
        let kind = *self.rng.choice(&[ErrorKind::Unavailable, ErrorKind::Indeterminate]).unwrap();
        match self.rng.u8(..4) {
            0 => {
                self.excusable("broker down", true);
                faults.down();
            }
            1 => {
                self.excusable("broker up", false);
                faults.up();
            }
            2 => {
                self.excusable(format!("{times} commits {kind}"), true);
                faults.fail_commits(times, kind);
            }
            _ => {
                self.excusable(format!("{times} fetches fail"), false);
                faults.fail_fetches(times, ErrorKind::Unavailable);
            }
        }
    }

    /// A fault of the records that the services publish and dead-letter.
    fn record_fault(&mut self) {
        let faults = self.transport.faults();
        let (times, stored) = (self.rng.u32(1..6), self.rng.bool());
        match self.rng.u8(..5) {
            0 => {
                self.excusable(format!("{times} publishes of returned events unavailable"), false);
                faults.publish(PublishFault::new(ErrorKind::Unavailable).with_topic("dones").with_times(times));
            }
            1 => {
                self.excusable(format!("{times} publishes of returned events unknown"), false);
                faults.publish(PublishFault::unknown(stored).with_topic("dones").with_times(times));
            }
            2 => {
                self.excusable(format!("{times} letters unknown"), false);
                let topic = *self.rng.choice(&["jobs-dlq", "parts-dlq"]).unwrap();
                faults.publish(PublishFault::unknown(stored).with_topic(topic).with_times(times));
            }
            3 => {
                self.excusable("sink down", false);
                faults.set_dead_letters_down(true);
            }
            _ => {
                self.excusable("sink up", false);
                faults.set_dead_letters_down(false);
            }
        }
    }

    fn store_fault(&mut self) {
        let times = self.rng.u32(1..6);
        match self.rng.u8(..5) {
            0 => {
                self.excusable("store down", true);
                self.store.faults().down();
            }
            1 => {
                self.excusable("store up", false);
                self.store.faults().up();
            }
            2 => {
                self.excusable(format!("{times} calls of the store unavailable"), true);
                self.store.faults().fail_calls(times, ErrorKind::Unavailable);
            }
            3 => {
                self.excusable(format!("{times} answers of the store lost"), true);
                self.store.faults().lose_answers(times);
            }
            _ => {
                self.excusable(format!("{times} completions unavailable"), true);
                self.store.faults().fail_completes(times, ErrorKind::Unavailable);
            }
        }
    }

    async fn time_fault(&mut self) {
        if self.rng.bool() {
            let jump = Duration::from_millis(self.rng.u64(..120_000));
            self.excusable(format!("the clock jumps by {jump:?}"), true);
            tokio::time::advance(jump).await;
            return;
        }
        let faults = self.transport.faults();
        let delay = Duration::from_millis(self.rng.u64(..2_000));
        self.excusable(format!("answers take {delay:?}"), true);
        match self.rng.u8(..3) {
            0 => faults.delay_commits(delay),
            1 => faults.delay_fetches(delay),
            _ => faults.delay_publishes(delay),
        }
    }
}
