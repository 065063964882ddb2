//! Plans as files.

use std::fs;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Step;
use crate::exit::{Failure, one_line};

/// The form of the file that this version writes and reads.
const FORM: u32 = 1;
/// The largest plan that is read.
const MAX_BYTES: u64 = 256 << 20;

/// The steps of a verb on a target, with a digest of all of it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan<S> {
    /// The form of the file.
    pub(crate) form: u32,
    /// The verb, such as `topic.create`.
    pub(crate) verb: String,
    /// The target, without secrets.
    pub(crate) target: String,
    /// The steps, with the values that they depend on and that they set.
    pub(crate) steps: Vec<S>,
    /// SHA-256 over verb, target and steps.
    pub(crate) digest: String,
}

impl<S: Step> Plan<S> {
    /// Creates the plan of a verb.
    pub(crate) fn new(verb: &str, target: &str, steps: Vec<S>) -> Result<Self, Failure> {
        let digest = digest(verb, target, &steps)?;
        Ok(Self { form: FORM, verb: verb.to_owned(), target: target.to_owned(), steps, digest })
    }

    /// Writes the plan to a file.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Failure> {
        let fail = |why: String| Failure::failed(format!("save the plan in {}: {why}", path.display()));
        let text = serde_json::to_string_pretty(self).map_err(|e| fail(e.to_string()))?;
        fs::write(path, format!("{text}\n")).map_err(|e| fail(e.to_string()))
    }

    /// Reads a plan, which must be one of this verb on this target, as it was saved.
    pub(crate) fn load(path: &Path, verb: &str, target: &str) -> Result<Self, Failure> {
        let fail = |why: String| Failure::usage(format!("plan {}: {why}", path.display()));
        let size = fs::metadata(path).map_err(|e| fail(e.to_string()))?.len();
        if size > MAX_BYTES {
            return Err(fail("larger than 256 MiB".into()));
        }
        let text = fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        let header: Header = serde_json::from_str(&text).map_err(|e| fail(one_line(&e.to_string())))?;
        if header.form != FORM {
            return Err(fail(format!("its form is {}, and this version reads {FORM}", header.form)));
        }
        if header.verb != verb {
            return Err(fail(format!("it is one of {}, not of {verb}", header.verb.replace('.', " "))));
        }
        if header.target != target {
            return Err(fail(format!("it was made for {}, not for {target}", header.target)));
        }
        let plan: Self = serde_json::from_str(&text).map_err(|e| fail(one_line(&e.to_string())))?;
        if digest(&plan.verb, &plan.target, &plan.steps)? != plan.digest {
            return Err(fail("it was changed since it was saved".into()).with_hint("make a new one by --plan"));
        }
        Ok(plan)
    }
}

/// The part of a plan that every verb's has.
#[derive(Deserialize)]
struct Header {
    form: u32,
    verb: String,
    target: String,
}

fn digest<S: Serialize>(verb: &str, target: &str, steps: &[S]) -> Result<String, Failure> {
    let bytes = serde_json::to_vec(&(FORM, verb, target, steps));
    let bytes = bytes.map_err(|e| Failure::failed(format!("write the plan: {e}")))?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}
