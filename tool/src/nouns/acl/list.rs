//! `acl list`.

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::entry::{AclView, COLUMNS, FilterArguments};
use crate::context::{Context, Query};
use crate::exit::Failure;
use crate::output::{Table, View};

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    filter: FilterArguments,
}

/// Entries of access control.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AclsView {
    /// The entries.
    acls: Vec<AclView>,
}

impl Query for List {
    type View = AclsView;

    async fn run(&self, cx: &Context) -> Result<AclsView, Failure> {
        let filter = self.filter.filter()?;
        let found = cx.transport().await?.acls().await?.list(&filter).await?;
        Ok(AclsView { acls: found.iter().map(AclView::from).collect() })
    }
}

impl View for AclsView {
    const ITEMS: Option<&'static str> = Some("acls");

    fn tables(&self) -> Vec<Table> {
        vec![Table::new(COLUMNS).with_rows(self.acls.iter().map(AclView::cells))]
    }
}
