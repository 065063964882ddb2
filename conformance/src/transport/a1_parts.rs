//! A1, the parts of a transport: each promises what the transport does, and shows itself in a log.

use tidings_core::{Clause, ConsumerOptions, Guarantees, TransactorOptions, Transport};

use super::fixture::Fixture;
use crate::case::{Case, Checked, cases, holds, same};

pub(super) const CASES: &[Case<dyn Transport>] =
    cases![a1_each_part_promises_what_its_transport_does, a1_each_part_shows_itself];

/// Checks the clauses of one letter, and what holds for all of them.
fn promises(what: &str, id: char, whole: &Guarantees, part: &Guarantees) -> Checked {
    for clause in Clause::ALL.iter().copied() {
        if clause.id().starts_with(id) || clause == Clause::Restart {
            same(&format!("whether the {what} keeps {clause}"), whole.keeps(clause), part.keeps(clause))?;
        }
    }
    same(&format!("whether the {what} is shared by processes"), whole.is_shared(), part.is_shared())
}

/// A service decides by the part that it has in its hands.
async fn a1_each_part_promises_what_its_transport_does(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let transport = fixture.transport()?;
    let whole = transport.guarantees();
    promises("publisher", 'p', &whole, &fixture.publisher().await?.guarantees())?;
    promises("admin", 'a', &whole, &fixture.admin().await?.guarantees())?;
    let sink = fixture.within("a sink", transport.dead_letters()).await??;
    promises("dead-letter sink", 'd', &whole, &sink.guarantees())?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]);
    let consumer = fixture.within("a consumer", transport.consumer(options)).await??;
    promises("consumer", 'c', &whole, &consumer.guarantees())?;
    if !whole.keeps(Clause::X1) {
        return Ok(());
    }
    let options = TransactorOptions::new(fixture.fresh("transactor"));
    let transactor = fixture.within("a transactor", transport.transactor(options)).await??;
    promises("transactor", 'x', &whole, &transactor.guarantees())
}

/// An empty text in a log names nothing.
async fn a1_each_part_shows_itself(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let transport = fixture.transport()?;
    let system = transport.system();
    holds(!system.is_empty() && system.chars().all(|c| !c.is_whitespace()), "the name of a system", system)?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]);
    let consumer = fixture.within("a consumer", transport.consumer(options)).await??;
    let sink = fixture.within("a sink", transport.dead_letters()).await??;
    let shown = [
        ("transport", format!("{transport:?}")),
        ("publisher", format!("{:?}", fixture.publisher().await?)),
        ("admin", format!("{:?}", fixture.admin().await?)),
        ("dead-letter sink", format!("{sink:?}")),
        ("consumer", format!("{consumer:?}")),
    ];
    shown.iter().try_for_each(|(what, text)| holds(!text.is_empty(), &format!("a text that shows the {what}"), text))
}
