//! Who the host is at AWS, said so that somebody else can ask AWS for it: a signed request for `GetCallerIdentity`, which
//! gives away no credential and does nothing else.

use super::{account::Account, settings::AwsSettings};
use crate::{
    faults::Faults,
    host::HostFiles,
    provider::{ErrorKind, ProviderError},
};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningParams, SigningSettings, sign},
    sign::v4,
};
use std::{path::PathBuf, time::SystemTime};
use url::Url;
use zeroize::Zeroizing;

/// What everyone's endpoint is in, who names no region.
const GLOBAL: &str = "us-east-1";
const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8");

/// The host's identity at AWS, by the same keys as a provider's.
pub struct Caller {
    account: Account,
    sts: Url,
    region: String,
}

/// A `POST` that anyone can send, for the next minutes.
pub struct SignedRequest {
    pub url: String,
    pub body: &'static str,
    pub headers: Vec<(String, Zeroizing<String>)>,
}

// === impl Caller ===

impl Caller {
    /// `name` is how messages name the table: `vault.auth.aws`.
    pub fn build(name: &str, table: toml::Table, host: &HostFiles) -> Result<Self, Faults> {
        if table.contains_key("endpoint") {
            return Err(format!("[provider.{name}]: `endpoint` is of Secrets Manager: set `sts_endpoint`").into());
        }
        let settings = AwsSettings::parse(name, table, host)?;
        let sts = match (&settings.sts_endpoint, &settings.region) {
            (Some(endpoint), _) => Ok(endpoint.clone()),
            (None, None) => Url::parse("https://sts.amazonaws.com/"),
            (None, Some(region)) => {
                let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
                Url::parse(&format!("https://sts.{region}.{domain}/"))
            }
        };
        let sts = sts.map_err(|_| format!("[provider.{name}]: `region` makes no host name"))?;
        let region = settings.region.clone().unwrap_or_else(|| GLOBAL.into());
        Ok(Self { account: Account::new(settings, host.clone()), sts, region })
    }

    /// The profiles that the host has, where they are from here.
    pub fn files(&self) -> Vec<PathBuf> {
        self.account.files()
    }

    /// Signs with these headers beside AWS's own.
    pub async fn sign(&self, headers: &[(&str, &str)]) -> Result<SignedRequest, ProviderError> {
        let identity = self.account.identity().await?.into();
        let fault = || self.account.error(ErrorKind::Misconfigured, Some(&self.region), "the request cannot be signed");
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("sts")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|_| fault())?;
        let given: Vec<_> = [FORM].into_iter().chain(headers.iter().copied()).collect();
        let body = SignableBody::Bytes(BODY.as_bytes());
        let request = SignableRequest::new("POST", self.sts.as_str(), given.iter().copied(), body);
        let signed = sign(request.map_err(|_| fault())?, &SigningParams::V4(parameters)).map_err(|_| fault())?;
        let (instructions, _) = signed.into_parts();
        let all = given.into_iter().chain(instructions.headers());
        let headers = all.map(|(name, value)| (name.to_owned(), Zeroizing::new(value.to_owned()))).collect();
        Ok(SignedRequest { url: self.sts.to_string(), body: BODY, headers })
    }
}
