//! A call for each secret, or for each of several lots: some at a time, and no more of them once the server fails.

use super::{ErrorKind, ProviderError};
use std::sync::{Arc, OnceLock};
use tokio::{sync::Semaphore, task::JoinSet};

/// How many calls are made at a time.
const AT_ONCE: usize = 8;

/// Asks for each of `items`; the answers are in their order. `cut_short` is the answer of one whose question never ended.
pub async fn of<I, T, F>(
    items: &[I],
    ask: impl Fn(I) -> F,
    cut_short: impl Fn() -> ProviderError,
) -> Vec<Result<T, ProviderError>>
where
    I: Clone,
    T: Send + 'static,
    F: Future<Output = Result<T, ProviderError>> + Send + 'static,
{
    let (turns, mut tasks) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    let lost = Arc::new(OnceLock::new());
    for (n, item) in items.iter().enumerate() {
        let (work, turns, lost) = (ask(item.clone()), Arc::clone(&turns), Arc::clone(&lost));
        tasks.spawn(async move {
            let _turn = turns.acquire().await;
            if let Some(error) = lost.get() {
                return (n, Err(ProviderError::clone(error)));
            }
            let result = work.await;
            if let Err(error) = &result
                && concerns_all(error)
            {
                let _ = lost.set(error.clone());
            }
            (n, result)
        });
    }
    let mut results: Vec<_> = items.iter().map(|_| Err(cut_short())).collect();
    while let Some(done) = tasks.join_next().await {
        if let Ok((n, result)) = done {
            results[n] = result;
        }
    }
    results
}

/// Whether the server fails, not the secret: then the others are not tried, so that a check ends in time.
fn concerns_all(error: &ProviderError) -> bool {
    matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unreachable | ErrorKind::Throttled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        provider::Observed,
        secret::{SecretId, SecretVersion},
    };
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn cut_short() -> ProviderError {
        ProviderError::new(ErrorKind::Unavailable, "the check was cut short")
    }

    fn ids() -> Vec<Arc<SecretId>> {
        (0..50).map(|n| Arc::new(format!("p://{n}").parse().unwrap())).collect()
    }

    #[tokio::test]
    async fn the_answers_are_in_the_order_of_the_questions_and_one_secrets_fault_is_its_own() {
        let ids = ids();
        let ask = |id: Arc<SecretId>| async move {
            match id.path() {
                "7" => Err(ProviderError::new(ErrorKind::NotFound, "gone")),
                path => Ok(Observed::Version(SecretVersion::new(path, ""))),
            }
        };
        let answers = of(&ids, ask, cut_short);
        for (n, answer) in answers.await.into_iter().enumerate() {
            match answer {
                Ok(found) => assert_eq!(found, Observed::Version(SecretVersion::new(n.to_string(), ""))),
                Err(error) => assert_eq!((n, error.kind()), (7, ErrorKind::NotFound)),
            }
        }
    }

    #[tokio::test]
    async fn a_server_that_fails_is_not_asked_for_all_the_others() {
        let asked = Arc::new(AtomicUsize::new(0));
        let ids = ids();
        let ask = |_| {
            let asked = Arc::clone(&asked);
            async move {
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Err::<Observed, _>(ProviderError::new(ErrorKind::Throttled, "too many"))
            }
        };
        let answers = of(&ids, ask, cut_short);
        assert!(answers.await.iter().all(|answer| answer.as_ref().unwrap_err().kind() == ErrorKind::Throttled));
        assert!(asked.load(Ordering::Relaxed) <= AT_ONCE, "{asked:?}");
    }
}
