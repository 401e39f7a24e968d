//! The lists of Key Vault, page by page.

use super::{
    attributes::Marks,
    failure::{self, Asked, Fault},
    target::{self, Target},
    vaults::Vaults,
};
use crate::provider::ProviderError;
use azure_core::http::{Pager, headers::Headers, pager::PagerContinuation};
use azure_security_keyvault_secrets::{
    SecretClient,
    models::{ListSecretPropertiesResult, SecretAttributes, SecretProperties},
};
use futures_util::TryStreamExt;
use std::sync::Arc;

/// What was read of a list.
pub struct Lines {
    pub found: Vec<Entry>,
    pub end: End,
}

pub enum End {
    /// There is no more to be found.
    Whole,
    /// There are more pages than may be asked for.
    More,
    /// The vault let no more through: this page failed.
    Cut(Fault, Option<PagerContinuation>),
}

/// One line of a list.
pub struct Entry {
    pub name: String,
    pub version: Option<String>,
    pub attributes: Option<SecretAttributes>,
    pub marks: Option<Marks>,
    pub settled: bool,
}

// === impl Vaults ===

impl Vaults {
    /// The lines of a list, of no more than `most` pages and no more than `enough` asks for. One that begins at `start` goes on with
    /// the first page after the last.
    pub async fn pages(
        &self,
        target: &Target,
        most: usize,
        start: Option<PagerContinuation>,
        open: impl Fn(&SecretClient, Option<PagerContinuation>) -> azure_core::Result<Pager<ListSecretPropertiesResult>>,
        enough: impl Fn(&[Entry]) -> bool,
    ) -> Result<Lines, ProviderError> {
        let asked = Asked { permission: "list", target };
        let (open, enough, start) = (&open, &enough, &start);
        let read = |client: Arc<SecretClient>| async move {
            let mut pages = open(&client, start.clone())?.into_pages();
            let (mut found, mut next, mut wraps) = (Vec::new(), start.clone(), start.is_some());
            // The empty page after the last is none.
            for n in 0..most + usize::from(wraps) {
                let page = match pages.try_next().await {
                    Ok(page) => page,
                    Err(error) => {
                        let fault = failure::of_call(&error, asked);
                        let is_cut = fault.kind.is_transient() && (n > 0 || wraps);
                        return if is_cut { Ok(Lines { found, end: End::Cut(fault, next) }) } else { Err(error) };
                    }
                };
                match page {
                    Some(page) => {
                        let headers = page.headers().clone();
                        let lines = page.into_model()?.value;
                        found.extend(lines.into_iter().filter_map(|line| Entry::of(line, &headers)));
                        next = pages.continuation().cloned();
                    }
                    None if wraps => {
                        (next, wraps) = (None, false);
                        pages = open(&client, None)?.into_pages();
                    }
                    None => return Ok(Lines { found, end: End::Whole }),
                }
                if enough(&found) {
                    return Ok(Lines { found, end: End::Whole });
                }
            }
            let is_whole = next.is_none() || start.is_some();
            Ok(Lines { found, end: if is_whole { End::Whole } else { End::More } })
        };
        self.call(asked, read).await
    }
}

// === impl Entry ===

impl Entry {
    fn of(properties: SecretProperties, headers: &Headers) -> Option<Self> {
        let (name, version) = target::parts(properties.id.as_deref()?)?;
        let marks = Marks::of(properties.attributes.as_ref());
        let (name, version) = (name.to_ascii_lowercase(), version.map(str::to_owned));
        let settled = marks.is_some_and(|marks| marks.settled(headers));
        Some(Self { name, version, attributes: properties.attributes, marks, settled })
    }
}
