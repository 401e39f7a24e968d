use super::*;
use crate::provider::{Provider, scripted::Scripted};

const FRESH: Duration = Duration::from_millis(500);

fn cache(provider: &Arc<Scripted>) -> Arc<Cache> {
    let provider: Arc<dyn Provider> = provider.clone();
    Arc::new(Cache::new(Registry::of([("p".to_owned(), provider)])))
}

fn id(text: &str) -> Arc<SecretId> {
    Arc::new(text.parse().unwrap())
}

fn down() -> Option<ProviderError> {
    Some(ProviderError::new(ErrorKind::Unreachable, "down"))
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_at_once_make_one_read_and_share_its_outcome() {
    let provider = Scripted::versioned();
    provider.put("a", "1", b"x");
    provider.delay(Duration::from_secs(1));
    let cache = cache(&provider);
    let ask = |fresh| {
        let cache = cache.clone();
        tokio::spawn(async move { cache.get(&id("p://a"), fresh).await.map(|secret| secret.value.len()) })
    };
    let asked: Vec<_> = (0..20).map(|_| ask(FRESH)).collect();
    for task in asked {
        assert_eq!(task.await.unwrap().unwrap(), 1);
    }
    assert_eq!(provider.calls(), (1, 0));
    provider.fail(down());
    tokio::time::advance(Duration::from_secs(10)).await;
    let asked: Vec<_> = (0..20).map(|_| ask(FRESH)).collect();
    for task in asked {
        assert_eq!(task.await.unwrap().unwrap_err().to_string(), "down");
    }
    assert_eq!(provider.calls(), (0, 1), "a failure is shared as well");
}

#[tokio::test(start_paused = true)]
async fn a_value_is_read_again_only_when_its_version_changed() {
    let provider = Scripted::versioned();
    provider.put("a", "1", b"x");
    let cache = cache(&provider);
    cache.get(&id("p://a"), FRESH).await.unwrap();
    cache.get(&id("p://a"), FRESH).await.unwrap();
    assert_eq!(provider.calls(), (1, 0), "what was just confirmed is taken as it is");
    tokio::time::advance(FRESH * 2).await;
    cache.get(&id("p://a"), FRESH).await.unwrap();
    assert_eq!(provider.calls(), (0, 1), "later its version is checked");
    provider.put("a", "2", b"yy");
    tokio::time::advance(FRESH * 2).await;
    assert_eq!(cache.get(&id("p://a"), FRESH).await.unwrap().value.expose(), b"yy");
    assert_eq!(provider.calls(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn after_a_check_that_found_a_change_one_read_serves_all() {
    let provider = Scripted::versioned();
    provider.put("a", "1", b"x");
    let cache = cache(&provider);
    cache.get(&id("p://a"), FRESH).await.unwrap();
    provider.put("a", "2", b"y");
    provider.calls();
    assert_eq!(cache.check(&[id("p://a")]).await, Round::Answered);
    assert_eq!(cache.known(&id("p://a")).latest.unwrap().label(), "2");
    for _ in 0..3 {
        assert_eq!(cache.current(&id("p://a")).await.unwrap().value.expose(), b"y");
    }
    assert_eq!(provider.calls(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn without_versions_a_change_is_found_by_content() {
    let provider = Scripted::unversioned();
    provider.put("a", "", b"x");
    let cache = cache(&provider);
    let first = cache.get(&id("p://a"), FRESH).await.unwrap().version.clone();
    assert!(first.label().starts_with("content-"), "{first}");
    cache.check(&[id("p://a")]).await;
    assert_eq!(cache.known(&id("p://a")).latest.as_ref(), Some(&first));
    provider.put("a", "", b"y");
    cache.check(&[id("p://a")]).await;
    assert_ne!(cache.known(&id("p://a")).latest.as_ref(), Some(&first));
    assert_eq!(provider.calls(), (3, 0));
    assert_eq!(cache.current(&id("p://a")).await.unwrap().value.expose(), b"y");
    assert_eq!(provider.calls(), (0, 0), "the check has read it already");
}

#[tokio::test(start_paused = true)]
async fn an_outage_leaves_the_last_known_value_until_max_stale() {
    let provider = Scripted::versioned();
    provider.put("a", "1", b"x");
    let cache = cache(&provider);
    cache.get(&id("p://a"), FRESH).await.unwrap();
    provider.fail(down());
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(cache.get(&id("p://a"), FRESH).await.is_err());
    assert_eq!(cache.check(&[id("p://a")]).await, Round::Unreachable { failures: 2, delay: None });
    assert!(cache.last_known(&id("p://a"), Duration::from_secs(61)).is_some());
    assert!(cache.last_known(&id("p://a"), Duration::from_secs(59)).is_none());
    provider.fail(None);
    assert!(cache.get(&id("p://a"), FRESH).await.is_ok());
    assert!(cache.known(&id("p://a")).error.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_new_version_that_cannot_be_read_leaves_the_old_one_as_last_known() {
    let provider = Scripted::versioned();
    provider.put("a", "1", b"x");
    let cache = cache(&provider);
    cache.get(&id("p://a"), FRESH).await.unwrap();
    provider.put("a", "2", b"y");
    cache.check(&[id("p://a")]).await;
    provider.fail(down());
    assert!(cache.current(&id("p://a")).await.is_err());
    assert_eq!(cache.last_known(&id("p://a"), FRESH).unwrap().value.expose(), b"x");
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_the_server_asked_for_is_kept() {
    let provider = Scripted::versioned();
    provider.put("a", "1", b"x");
    let throttled = ProviderError::new(ErrorKind::Throttled, "slow down").retry_after(Some(Duration::from_secs(30)));
    provider.fail(Some(throttled));
    let cache = cache(&provider);
    assert!(cache.get(&id("p://a"), FRESH).await.is_err());
    provider.fail(None);
    tokio::time::advance(Duration::from_secs(29)).await;
    assert_eq!(cache.get(&id("p://a"), FRESH).await.unwrap_err().to_string(), "slow down");
    assert_eq!(provider.calls(), (1, 0));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(cache.get(&id("p://a"), FRESH).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_missing_secret_of_a_batch_leaves_the_others_answered() {
    let provider = Scripted::versioned();
    provider.put("a", "1", b"x");
    let cache = cache(&provider);
    assert_eq!(cache.check(&[id("p://a"), id("p://gone")]).await, Round::Answered);
    assert_eq!(provider.calls(), (0, 1));
    assert!(cache.known(&id("p://a")).error.is_none());
    assert_eq!(cache.known(&id("p://gone")).error.unwrap().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_value_is_dropped_when_nobody_may_need_it_any_more() {
    let provider = Scripted::versioned();
    provider.put("a", "1", b"x");
    let cache = cache(&provider);
    cache.get(&id("p://a"), FRESH).await.unwrap();
    tokio::time::advance(Duration::from_secs(10)).await;
    cache.evict(|_| Some(Duration::MAX));
    cache.evict(|_| Some(Duration::from_secs(11)));
    assert!(cache.holds(&id("p://a")));
    cache.evict(|_| Some(Duration::from_secs(9)));
    assert!(!cache.holds(&id("p://a")));
}

#[tokio::test(start_paused = true)]
async fn a_check_without_a_provider_is_noted_at_the_secret() {
    let cache = Cache::new(Registry::unknown("/etc/dso/dso.toml: invalid".into()));
    let id: Arc<SecretId> = Arc::new("p://app".parse().unwrap());
    assert_eq!(cache.check(std::slice::from_ref(&id)).await, Round::Answered);
    assert!(cache.known(&id).error.unwrap().to_string().starts_with("/etc/dso/dso.toml: invalid"));
}

#[tokio::test(start_paused = true)]
async fn many_volumes_that_need_a_new_version_share_the_failure_of_one_read() {
    let provider = Scripted::versioned();
    provider.put("a", "1", b"x");
    let cache = cache(&provider);
    cache.get(&id("p://a"), FRESH).await.unwrap();
    provider.put("a", "2", b"y");
    cache.check(&[id("p://a")]).await;
    provider.calls();
    provider.delay(Duration::from_secs(1));
    provider.fail_reads(Some(ProviderError::new(ErrorKind::Forbidden, "403")));
    let asked: Vec<_> = (0..20)
        .map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.current(&id("p://a")).await.map(|secret| secret.value.len()) })
        })
        .collect();
    for task in asked {
        assert_eq!(task.await.unwrap().unwrap_err().to_string(), "403");
    }
    assert_eq!(provider.calls(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asked_for_a_pause_is_not_checked_before_its_end_whoever_wants_it() {
    let provider = Scripted::versioned();
    provider.put("a", "1", b"x");
    let cache = cache(&provider);
    let minute = Duration::from_secs(60);
    provider.fail(Some(ProviderError::new(ErrorKind::Throttled, "429").retry_after(Some(minute))));
    assert_eq!(cache.check(&[id("p://a")]).await, Round::Unreachable { failures: 1, delay: Some(minute) });
    tokio::time::advance(minute / 4).await;
    let rest = Some(minute / 4 * 3);
    assert_eq!(cache.check(&[id("p://a")]).await, Round::Unreachable { failures: 1, delay: rest });
    assert_eq!(provider.calls(), (0, 1));
    tokio::time::advance(minute).await;
    provider.fail(None);
    assert_eq!(cache.check(&[id("p://a")]).await, Round::Answered);
}

#[tokio::test(start_paused = true)]
async fn another_instance_is_asked_at_once_and_those_that_stay_are_not() {
    let [old, new, stays] = [(); 3].map(|()| Scripted::versioned());
    for provider in [&old, &new, &stays] {
        provider.put("a", "1", b"x");
    }
    new.put("a", "2", b"y");
    let registry = |p: &Arc<Scripted>| {
        let both = [("p", p), ("q", &stays)].map(|(name, provider)| {
            let provider: Arc<dyn Provider> = provider.clone();
            (name.to_owned(), provider)
        });
        Registry::of(both)
    };
    let (cache, long) = (Cache::new(registry(&old)), Duration::from_secs(3600));
    for id in [id("p://a"), id("q://a")] {
        cache.get(&id, long).await.unwrap();
    }
    let pause = ProviderError::new(ErrorKind::Throttled, "429").retry_after(Some(long));
    old.fail(Some(pause));
    cache.check(&[id("p://a")]).await;
    stays.calls();
    cache.replace(registry(&new));
    assert_eq!(cache.get(&id("p://a"), long).await.unwrap().value.expose(), b"y");
    assert_eq!(cache.get(&id("q://a"), long).await.unwrap().value.expose(), b"x");
    assert_eq!((new.calls(), stays.calls()), ((1, 1), (0, 0)));
}

fn ids<const N: usize>(names: [&str; N]) -> Vec<Arc<SecretId>> {
    names.iter().map(|name| id(&format!("p://{name}"))).collect()
}

/// A provider that reads many at once, and has `a` to `d`.
fn grouped() -> (Arc<Scripted>, Arc<Cache>) {
    let provider = Scripted::versioned();
    provider.group_all();
    for name in ["a", "b", "c", "d"] {
        provider.put(name, "1", name.as_bytes());
    }
    let cache = cache(&provider);
    (provider, cache)
}

#[tokio::test(start_paused = true)]
async fn secrets_that_are_needed_together_are_one_call_and_the_fault_of_one_is_its_own() {
    let (provider, cache) = grouped();
    let found = cache.get_all(ids(["a", "b", "gone"]), FRESH).await;
    assert_eq!((provider.lots(), provider.calls()), (vec![3], (0, 0)));
    assert_eq!(found.found[&id("p://b")].value.expose(), b"b");
    assert_eq!((found.failed.len(), found.failed[0].1.kind()), (1, ErrorKind::NotFound));
    cache.get_all(ids(["a", "b"]), FRESH).await;
    assert_eq!((provider.lots(), provider.calls()), (vec![], (0, 0)), "what was just confirmed is taken as it is");
    tokio::time::advance(FRESH * 2).await;
    provider.put("a", "2", b"aa");
    provider.put("b", "2", b"bb");
    let found = cache.get_all(ids(["a", "b", "c"]), FRESH).await;
    assert_eq!((provider.lots(), provider.calls()), (vec![3], (0, 2)), "two checks, and one call for what is new");
    assert_eq!(found.found[&id("p://a")].value.expose(), b"aa");
    assert_eq!(found.found[&id("p://c")].value.expose(), b"c");
    cache.get_all(ids(["d"]), FRESH).await;
    assert_eq!((provider.lots(), provider.calls()), (vec![], (1, 0)), "one alone is read alone");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_asks_for_already_is_not_asked_for_again_and_its_outcome_is_shared() {
    let (provider, cache) = grouped();
    provider.delay(Duration::from_secs(1));
    let ask = |names: Vec<Arc<SecretId>>| {
        let cache = cache.clone();
        tokio::spawn(async move { cache.get_all(names, FRESH).await.found.len() })
    };
    let asked = [ask(ids(["a", "b"])), ask(ids(["a", "b", "c", "d"])), ask(ids(["c", "b"])), ask(ids(["a", "b"]))];
    for (task, expected) in asked.into_iter().zip([2, 4, 2, 2]) {
        assert_eq!(task.await.unwrap(), expected);
    }
    assert_eq!((provider.lots(), provider.calls()), (vec![2, 2], (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn what_a_check_found_to_be_new_is_read_together_once() {
    let (provider, cache) = grouped();
    let all = ids(["a", "b", "c", "d"]);
    cache.get_all(all[..3].to_vec(), FRESH).await;
    provider.lots();
    for name in ["a", "c", "d"] {
        provider.put(name, "2", b"new");
    }
    cache.check(&all).await;
    assert_eq!(provider.lots(), [2], "`d` is not held, so nobody may need it");
    let found = cache.current_all(ids(["a", "b", "c"])).await.found;
    assert_eq!(found[&id("p://c")].value.expose(), b"new");
    assert_eq!((provider.lots(), provider.calls().0), (vec![], 0), "the check has read them already");
    provider.put("a", "3", b"newer");
    cache.check(&all).await;
    assert_eq!((provider.lots(), provider.calls().0), (vec![], 0), "a lone one is left to who needs it");
}

#[tokio::test(start_paused = true)]
async fn secrets_without_versions_are_checked_by_one_read_of_all() {
    let provider = Scripted::unversioned();
    provider.group_all();
    for name in ["a", "b"] {
        provider.put(name, "", b"x");
    }
    let (cache, both) = (cache(&provider), ids(["a", "b"]));
    cache.check(&both).await;
    let before = cache.known(&both[1]).latest;
    provider.put("b", "", b"y");
    cache.check(&both).await;
    assert_eq!((provider.lots(), provider.calls()), (vec![2, 2], (0, 0)));
    assert_ne!(cache.known(&both[1]).latest, before);
    provider.fail(down());
    assert_eq!(cache.check(&both).await, Round::Unreachable { failures: 1, delay: None });
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_a_server_asked_for_is_kept_by_a_call_for_many() {
    let (provider, cache) = grouped();
    let throttled = ProviderError::new(ErrorKind::Throttled, "slow down").retry_after(Some(Duration::from_secs(30)));
    provider.fail(Some(throttled));
    assert_eq!(cache.get_all(ids(["a", "b"]), FRESH).await.failed.len(), 2);
    provider.fail(None);
    assert_eq!(provider.lots(), [2]);
    let found = cache.get_all(ids(["a", "b", "c", "d"]), FRESH).await;
    assert_eq!((found.found.len(), found.failed.len(), provider.lots()), (2, 2, vec![2]));
}

#[tokio::test(start_paused = true)]
async fn how_values_are_had_is_counted() {
    let provider = Scripted::versioned();
    provider.put("app", "1", b"x");
    let (cache, id, long) = (cache(&provider), id("p://app"), Duration::from_secs(3600));
    let counts = || {
        let text = cache.metrics().exposition(Vec::new(), 0);
        ["hit", "miss", "shared", "last_known"].map(|result| {
            let line = format!("dso_cache_requests_total{{result=\"{result}\"}} ");
            text.lines().find_map(|there| there.strip_prefix(&line)?.parse::<u64>().ok()).unwrap()
        })
    };
    cache.get(&id, Duration::ZERO).await.unwrap();
    assert_eq!(counts(), [0, 1, 0, 0]);
    cache.get(&id, long).await.unwrap();
    cache.current(&id).await.unwrap();
    assert!(cache.fresh(&id, long).is_some() && cache.is_fresh(&id, long));
    assert_eq!(counts(), [3, 1, 0, 0], "to ask whether it is fresh serves nobody");
    tokio::time::advance(Duration::from_secs(1)).await;
    provider.delay(Duration::from_secs(1));
    let (one, other) = tokio::join!(cache.get(&id, Duration::ZERO), cache.get(&id, Duration::ZERO));
    one.and(other).unwrap();
    assert_eq!(counts(), [3, 2, 1, 0]);
    assert!(cache.last_known(&id, long).is_some());
    assert_eq!(counts(), [3, 2, 1, 1]);
}
