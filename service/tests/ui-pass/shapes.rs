//! Shapes of handlers that must compile: generic, capturing, boxed, associated, with eight extractors.

use serde::{Deserialize, Serialize};
use tidings_core::{Batch, BoxError, Delivery, Envelope, Event as _, RawBatch};
use tidings_macros::Event;
use tidings_service::{BoxFuture, FromRef, Handler, HandlerExt, Router, State};

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "a", key = "id")]
struct A {
    id: String,
}

#[derive(Clone)]
struct Mailer;

#[derive(Clone)]
struct App {
    mailer: Mailer,
}

impl FromRef<App> for Mailer {
    fn from_ref(app: &App) -> Self {
        app.mailer.clone()
    }
}

fn boxed(n: u32) -> impl Fn(A, State<Mailer>) -> BoxFuture + Clone {
    move |_, _| Box::pin(async move { Err(n.to_string().into()) })
}

fn returned(n: u32) -> impl Handler<(A,), Future: Future<Output = ()> + Send> {
    move |_: A| async move { drop(n) }
}

struct Api;

impl Api {
    async fn on_a(_: Batch<A>) -> Result<(), BoxError> {
        Ok(())
    }
}

async fn generic<E: tidings_core::Event>(_: Envelope<E>) {}

type D = Delivery;

async fn eight(_: A, _: D, _: D, _: D, _: D, _: D, _: D, _: D, _: State<Mailer>) -> (A, Option<A>) {
    (A { id: A::TYPE.into() }, None)
}

fn router<S: Clone + Send + Sync + 'static>() -> Router<S>
where
    Mailer: FromRef<S>,
{
    Router::new().on(boxed(1)).on(returned(2).named("two")).on(Api::on_a).on(generic::<A>).on(eight)
}

fn main() {
    let _: Router = router().on(async move |_: Envelope<A>| {}).with_state(App { mailer: Mailer });
    let _: Router = Router::new().on(|event: A| async move { Ok::<_, std::io::Error>(event) });
    let _: Router = Router::new().on_topic("t", async |_: RawBatch| {}).merge(Router::new().fallback(async |_: D| {}));
}
