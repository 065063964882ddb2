//! `version`.

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::{Context, Query};
use crate::exit::Failure;
use crate::output::{Table, View};

#[derive(Debug, Args)]
pub(crate) struct Version {}

/// The version of the program.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct VersionView {
    /// The version of tidings.
    version: String,
}

impl Query for Version {
    type View = VersionView;

    async fn run(&self, _: &Context) -> Result<VersionView, Failure> {
        Ok(VersionView { version: env!("CARGO_PKG_VERSION").to_owned() })
    }
}

impl View for VersionView {
    const ITEMS: Option<&'static str> = None;

    fn tables(&self) -> Vec<Table> {
        vec![Table::new(&["VERSION"]).with_rows([vec![self.version.clone()]])]
    }
}
