//! `event`.

mod count;
mod export;
mod filter;
mod get;
mod import;
mod publish;
mod tail;
mod view;

use clap::Subcommand;

use crate::context::Context;
use crate::exit::{Exit, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Publish an event
    Publish(Box<publish::Publish>),
    /// Print events as they come
    Tail(Box<tail::Tail>),
    /// Print the events at an offset
    Get(get::Get),
    /// Count events
    Count(Box<count::Count>),
    /// Write events to a file, one JSON document per line
    Export(Box<export::Export>),
    /// Publish the events of such a file
    Import(import::Import),
}

impl Verb {
    pub(crate) async fn run(&self, cx: &Context) -> Result<Exit, Failure> {
        match self {
            Self::Publish(verb) => cx.change(verb.as_ref()).await,
            Self::Tail(verb) => verb.run(cx).await,
            Self::Get(verb) => cx.show(verb).await,
            Self::Count(verb) => cx.show(verb.as_ref()).await,
            Self::Export(verb) => verb.run(cx).await,
            Self::Import(verb) => cx.change(verb).await,
        }
    }
}
