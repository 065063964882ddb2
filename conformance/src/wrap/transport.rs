//! The wrappers as transports, and the sink that goes with one.

use std::sync::Arc;

use async_trait::async_trait;
use tidings_core::{
    Acls, Admin, Cluster, Consumer, ConsumerOptions, DeadLetter, DeadLetterSink, Guarantees, LogReader, Name,
    Publisher, Result, Transactor, TransactorOptions, Transport,
};

use super::capabilities::{TappedAcls, TappedCluster, TappedLogReader};
use super::consumer::TappedConsumer;
use super::faulty::Faulty;
use super::operate::TappedAdmin;
use super::publisher::TappedPublisher;
use super::recording::Recording;
use super::tap::{Call, Tap};
use super::transactor::TappedTransactor;

#[derive(Debug)]
struct TappedSink {
    inner: Arc<dyn DeadLetterSink>,
    tap: Tap,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DeadLetterSink for TappedSink {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        let asked = letters.clone();
        self.tap.each(Call::Bury, asked.len(), asked, self.inner.bury(letters)).await
    }

    async fn check(&self, topics: &[Name]) -> Result<()> {
        self.tap.one(Call::Check, topics, self.inner.check(topics)).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

macro_rules! wraps_transports {
    ($($wrapper:ident),+) => { $(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: Transport> Transport for $wrapper<T> {
            fn system(&self) -> &'static str {
                self.inner.system()
            }

            async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
                let inner = self.tap.one(Call::Open, "publisher", self.inner.publisher()).await?;
                Ok(Arc::new(TappedPublisher { inner, tap: self.tap.clone() }))
            }

            async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
                let asked = options.clone();
                let inner = self.tap.one(Call::Open, asked, self.inner.consumer(options)).await?;
                Ok(Arc::new(TappedConsumer { inner, tap: self.tap.clone() }))
            }

            async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
                let inner = self.tap.one(Call::Open, "dead letters", self.inner.dead_letters()).await?;
                Ok(Arc::new(TappedSink { inner, tap: self.tap.clone() }))
            }

            async fn admin(&self) -> Result<Arc<dyn Admin>> {
                let inner = self.tap.one(Call::Open, "admin", self.inner.admin()).await?;
                Ok(Arc::new(TappedAdmin { inner, tap: self.tap.clone() }))
            }

            async fn log_reader(&self) -> Result<Arc<dyn LogReader>> {
                let inner = self.tap.one(Call::Open, "log reader", self.inner.log_reader()).await?;
                Ok(Arc::new(TappedLogReader { inner, tap: self.tap.clone() }))
            }

            async fn acls(&self) -> Result<Arc<dyn Acls>> {
                let inner = self.tap.one(Call::Open, "acls", self.inner.acls()).await?;
                Ok(Arc::new(TappedAcls { inner, tap: self.tap.clone() }))
            }

            async fn cluster(&self) -> Result<Arc<dyn Cluster>> {
                let inner = self.tap.one(Call::Open, "cluster", self.inner.cluster()).await?;
                Ok(Arc::new(TappedCluster { inner, tap: self.tap.clone() }))
            }

            async fn transactor(&self, options: TransactorOptions) -> Result<Arc<dyn Transactor>> {
                let asked = options.clone();
                let inner = self.tap.one(Call::Open, asked, self.inner.transactor(options)).await?;
                Ok(Arc::new(TappedTransactor::new(inner, self.tap.clone())))
            }

            fn writes_trace_context(&self) -> bool {
                self.inner.writes_trace_context()
            }

            fn guarantees(&self) -> Guarantees {
                self.inner.guarantees()
            }
        }
    )+ };
}

wraps_transports!(Recording, Faulty);
