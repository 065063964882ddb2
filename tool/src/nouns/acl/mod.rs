//! `acl`.

mod change;
mod entry;
mod list;

use clap::Subcommand;

use crate::context::Context;
use crate::exit::{Exit, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List entries of access control
    List(list::List),
    /// Create entries
    Create(Box<change::Create>),
    /// Delete the entries that match
    Delete(change::Delete),
}

impl Verb {
    pub(crate) async fn run(&self, cx: &Context) -> Result<Exit, Failure> {
        match self {
            Self::List(verb) => cx.show(verb).await,
            Self::Create(verb) => cx.change(verb.as_ref()).await,
            Self::Delete(verb) => cx.change(verb).await,
        }
    }
}
