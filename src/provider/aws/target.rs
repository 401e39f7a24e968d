//! What a reference asks for, in the terms of Secrets Manager.

use crate::{faults, secret::SecretId};
use std::ops::RangeInclusive;

const PARAMETERS: [&str; 3] = ["stage", "version", "region"];
/// How long Secrets Manager's version ids are.
const VERSION_LENGTHS: RangeInclusive<usize> = 32..=64;

/// One secret: its name or ARN, the version that is wanted, and where it is, if the reference says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub id: String,
    pub region: Option<String>,
    pub want: Want,
}

/// Which version of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    Current,
    Stage(String),
    Version(String),
}

// === impl Target ===

impl Target {
    pub fn of(id: &SecretId) -> Result<Self, String> {
        if let Some(name) = id.params().keys().find(|name| !PARAMETERS.contains(&name.as_str())) {
            return Err(faults::unknown("parameter", name, PARAMETERS));
        }
        let want = match (id.param("stage"), id.param("version")) {
            (None, None) => Want::Current,
            (Some(stage), None) => Want::Stage(stage.into()),
            (None, Some(version)) if VERSION_LENGTHS.contains(&version.len()) => Want::Version(version.into()),
            (None, Some(_)) => {
                return Err("`version` must be a version's id, which has 32 to 64 characters; a stage such as \
                     AWSPREVIOUS is named by `stage`"
                    .into());
            }
            (Some(_), Some(_)) => return Err("`stage` and `version` are both given: keep one".into()),
        };
        let region = match (id.param("region"), region_of_arn(id.path())?) {
            (Some(named), _) if !is_region(named) => {
                return Err("`region` must be a region's name such as eu-central-1".into());
            }
            (Some(named), Some(own)) if named != own => {
                return Err(format!("the ARN is of region {own}, and `region` names another: leave `region` out"));
            }
            (named, own) => named.or(own).map(str::to_owned),
        };
        Ok(Self { id: id.path().into(), region, want })
    }

    /// Whether a listed secret is this one. An ARN may be written without the six characters that AWS adds to a name.
    pub fn is(&self, name: Option<&str>, arn: Option<&str>) -> bool {
        if !self.id.starts_with("arn:") {
            return name == Some(&self.id);
        }
        let added = |rest: &str| rest.is_empty() || (rest.len() == 7 && rest.starts_with('-'));
        arn.and_then(|arn| arn.strip_prefix(&self.id)).is_some_and(added)
    }
}

// === impl Want ===

impl Want {
    /// The stage that moves from version to version.
    pub fn stage(&self) -> &str {
        match self {
            Self::Stage(stage) => stage,
            _ => "AWSCURRENT",
        }
    }
}

pub fn is_region(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// `arn:<partition>:secretsmanager:<region>:<account>:secret:<name>`
fn region_of_arn(path: &str) -> Result<Option<&str>, String> {
    if !path.starts_with("arn:") {
        return Ok(None);
    }
    let parts: Vec<_> = path.splitn(7, ':').collect();
    match parts[..] {
        [_, _, "secretsmanager", region, _, "secret", name] if is_region(region) && !name.is_empty() => {
            Ok(Some(region))
        }
        _ => Err("the ARN is not a secret's: arn:aws:secretsmanager:<region>:<account>:secret:<name>".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:prod/app/db-AbCdEf";

    fn target(reference: &str) -> Result<Target, String> {
        Target::of(&reference.parse().unwrap())
    }

    #[test]
    fn names_and_arns_are_taken_with_a_stage_a_version_and_a_region() {
        let plain = target("aws://prod/app/db").unwrap();
        assert_eq!(plain, Target { id: "prod/app/db".into(), region: None, want: Want::Current });
        let arn = target(&format!("aws://{ARN}?stage=AWSPREVIOUS")).unwrap();
        assert_eq!((arn.id.as_str(), arn.region.as_deref()), (ARN, Some("eu-central-1")));
        assert_eq!(arn.want, Want::Stage("AWSPREVIOUS".into()));
        let version = "0".repeat(32);
        let pinned = target(&format!("aws://a?version={version}&region=us-gov-west-1")).unwrap();
        assert_eq!((pinned.want, pinned.region.as_deref()), (Want::Version(version), Some("us-gov-west-1")));
    }

    #[test]
    fn what_cannot_be_is_refused_without_a_server() {
        let fault = |reference: &str| target(reference).unwrap_err();
        assert_eq!(fault("aws://a?stagge=x"), "unknown parameter `stagge`: did you mean `stage`?");
        assert_eq!(fault("aws://a?stage=x&version=y"), "`stage` and `version` are both given: keep one");
        assert!(fault("aws://a?version=3").starts_with("`version` must be a version's id"));
        assert!(fault("aws://a?region=EU").starts_with("`region` must be a region's name"));
        assert!(fault(&format!("aws://{ARN}?region=us-east-1")).starts_with("the ARN is of region eu-central-1"));
        assert!(fault("aws://arn:aws:s3:::bucket").starts_with("the ARN is not a secret's"));
    }

    #[test]
    fn a_listed_secret_is_known_by_its_name_or_by_its_arn_with_or_without_what_aws_added() {
        let is = |reference: &str| target(reference).unwrap().is(Some("prod/app/db"), Some(ARN));
        assert!(is("aws://prod/app/db") && is(&format!("aws://{ARN}")));
        assert!(is(&format!("aws://{}", ARN.strip_suffix("-AbCdEf").unwrap())));
        assert!(!is("aws://prod/app") && !is("aws://prod/app/db2"));
        assert!(!is(&format!("aws://{}", ARN.strip_suffix("/db-AbCdEf").unwrap())));
    }
}
