//! `acl create` and `acl delete`.

use std::sync::Arc;

use clap::Args;
use tidings_core::{Acl, AclFilter, AclOperation, AclResource, Acls, Error, ErrorKind};

use super::entry::{AclView, COLUMNS, FilterArguments, ResourceArguments};
use crate::change::{Change, ChangeOptions, Draft, Step};
use crate::context::Context;
use crate::exit::Failure;

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The principal, such as User:alice; may be repeated
    #[arg(long = "principal", value_name = "PRINCIPAL", required_unless_present = "from_plan")]
    principals: Vec<String>,
    /// The operation, such as read; may be repeated
    #[arg(long = "operation", value_name = "OPERATION", required_unless_present = "from_plan")]
    operations: Vec<AclOperation>,
    #[command(flatten)]
    resource: ResourceArguments,
    /// The name is the beginning of names
    #[arg(long)]
    prefixed: bool,
    /// The address of the client; by default every address
    #[arg(long, value_name = "ADDRESS", default_value = "*")]
    host: String,
    /// Deny instead of allow
    #[arg(long)]
    deny: bool,
    #[command(flatten)]
    options: ChangeOptions,
}

impl Step for AclView {
    const COLUMNS: &'static [&'static str] = COLUMNS;

    fn cells(&self) -> Vec<String> {
        Self::cells(self)
    }
}

impl Create {
    fn wanted(&self) -> Result<Vec<Acl>, Failure> {
        let (kind, name) = self.resource.resource().ok_or_else(|| {
            Failure::usage("acl create: no resource").with_hint("use --topic, --group, --transactional-id or --cluster")
        })?;
        let resource = if self.prefixed { AclResource::prefixed(kind, name) } else { AclResource::literal(kind, name) };
        let mut all = Vec::new();
        for principal in &self.principals {
            if !principal.contains(':') {
                let text = format!("principal {principal:?}: expected a type and a name, such as User:{principal}");
                return Err(Failure::usage(text));
            }
            for operation in &self.operations {
                let acl = match self.deny {
                    true => Acl::deny(principal, *operation, resource.clone()),
                    false => Acl::allow(principal, *operation, resource.clone()),
                };
                all.push(acl.with_host(&self.host));
            }
        }
        Ok(all)
    }
}

impl Change for Create {
    const VERB: &'static str = "acl.create";
    type Step = AclView;

    fn options(&self) -> &ChangeOptions {
        &self.options
    }

    fn subjects(&self) -> Vec<String> {
        self.principals.clone()
    }

    async fn plan(&self, cx: &Context) -> Result<Draft<AclView>, Failure> {
        let wanted = self.wanted()?;
        let existing = acls(cx).await?.list(&AclFilter::default()).await?;
        let (known, new): (Vec<&Acl>, Vec<&Acl>) = wanted.iter().partition(|acl| existing.contains(acl));
        let draft = Draft::new(new.into_iter().map(AclView::from).collect());
        Ok(if known.is_empty() { draft } else { draft.with_note(format!("{} exist already.", known.len())) })
    }

    async fn stale(&self, cx: &Context, steps: &[AclView]) -> Result<Vec<String>, Failure> {
        let existing = acls(cx).await?.list(&AclFilter::default()).await?;
        let there = |step: &AclView| existing.iter().find(|acl| AclView::from(*acl) == *step);
        Ok(steps.iter().filter_map(there).map(|acl| format!("{acl} exists now")).collect())
    }

    async fn apply(&self, cx: &Context, steps: &[AclView]) -> Vec<tidings_core::Result<()>> {
        let create = async |acls: Arc<dyn Acls>, wanted: Vec<Acl>| acls.create(&wanted).await;
        all_at_once(cx, steps, create).await
    }
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    filter: FilterArguments,
    /// Every entry
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    options: ChangeOptions,
}

impl Change for Delete {
    const VERB: &'static str = "acl.delete";
    type Step = AclView;

    fn options(&self) -> &ChangeOptions {
        &self.options
    }

    fn subjects(&self) -> Vec<String> {
        if self.filter.is_empty() { Vec::new() } else { vec!["the filter".to_owned()] }
    }

    async fn plan(&self, cx: &Context) -> Result<Draft<AclView>, Failure> {
        if self.filter.is_empty() && !self.all {
            return Err(
                Failure::usage("acl delete: no filter").with_hint("name a resource or a principal, or use --all")
            );
        }
        let filter = self.filter.filter()?;
        let found = acls(cx).await?.list(&filter).await?;
        Ok(Draft::new(found.iter().map(AclView::from).collect()))
    }

    async fn stale(&self, cx: &Context, steps: &[AclView]) -> Result<Vec<String>, Failure> {
        let existing: Vec<_> = acls(cx).await?.list(&AclFilter::default()).await?.iter().map(AclView::from).collect();
        let gone = |step: &&AclView| !existing.contains(step);
        Ok(steps.iter().filter(gone).map(|step| format!("{} is gone", step.cells().join(" "))).collect())
    }

    async fn apply(&self, cx: &Context, steps: &[AclView]) -> Vec<tidings_core::Result<()>> {
        let delete = async |acls: Arc<dyn Acls>, wanted: Vec<Acl>| {
            let answers = acls.delete(&wanted).await?;
            // One that is gone already is what was wanted.
            Ok(answers.into_iter().map(|answer| answer.map(|_| ())).collect())
        };
        all_at_once(cx, steps, delete).await
    }
}

async fn acls(cx: &Context) -> Result<Arc<dyn Acls>, Failure> {
    Ok(cx.transport().await?.acls().await?)
}

/// Changes all entries in one call.
async fn all_at_once(
    cx: &Context,
    steps: &[AclView],
    call: impl AsyncFn(Arc<dyn Acls>, Vec<Acl>) -> tidings_core::Result<Vec<tidings_core::Result<()>>>,
) -> Vec<tidings_core::Result<()>> {
    let changed = async {
        let wanted: Vec<Acl> = steps.iter().map(AclView::acl).collect::<tidings_core::Result<_>>()?;
        let acls = acls(cx).await.map_err(|failure| Error::new(ErrorKind::Unavailable, failure.to_string()))?;
        call(acls, wanted).await
    };
    match changed.await {
        Ok(answers) => answers,
        Err(error) => crate::change::same_for_all(steps.len(), Err(error)),
    }
}
