//! What services are given, in paused time.

use super::{super::workbench::Bench, *};
use crate::volume::service::VERSIONS;

fn asked(labels: &[(&str, &str)]) -> Asked {
    let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    Asked { secret: "db".into(), labels: pairs(labels), service: "app".into(), ..Asked::default() }
}

async fn serve(bench: &Bench, labels: &[(&str, &str)]) -> Result<(String, bool), String> {
    let served = bench.driver.serve(asked(labels)).await?;
    Ok((String::from_utf8(served.value.expose().to_vec()).unwrap(), served.reusable))
}

const PIN: [(&str, &str); 1] = [("dso.ref", "p://app#pin")];

#[tokio::test(start_paused = true)]
async fn a_task_gets_the_value_of_its_time_with_one_read_for_all() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", br#"{"pin":"one","user":"u"}"#);
    for _ in 0..100 {
        assert_eq!(serve(&bench, &PIN).await.unwrap(), ("one".into(), false));
    }
    assert_eq!(bench.provider.calls(), (1, 0));
    bench.provider.put("app", "2", br#"{"pin":"two","user":"u"}"#);
    tokio::time::advance(FRESH * 2).await;
    assert_eq!(serve(&bench, &PIN).await.unwrap().0, "two");
    let template =
        [("dso.template", "[[ secret('p://app#user') ]]:[[ secret('p://app#pin') ]]"), ("dso.delimiters", "[[ ]]")];
    assert_eq!(serve(&bench, &template).await.unwrap().0, "u:two");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_bridged_for_as_long_as_the_label_says_and_told_within_two_seconds() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", br#"{"pin":"one"}"#);
    let labels = [PIN[0], ("dso.max-stale", "1m")];
    serve(&bench, &labels).await.unwrap();
    for how in ["refused", "hangs"] {
        match how {
            "refused" => bench.provider.fail(Some(ProviderError::new(ErrorKind::Unreachable, "refused"))),
            _ => bench.provider.delay(Duration::from_secs(60)),
        }
        tokio::time::advance(FRESH * 2).await;
        let began = Instant::now();
        assert_eq!(serve(&bench, &labels).await.unwrap().0, "one", "{how}");
        assert!(began.elapsed() <= LIMIT, "{how}: {:?}", began.elapsed());
    }
    bench.provider.delay(Duration::ZERO);
    bench.provider.fail(Some(ProviderError::new(ErrorKind::Unreachable, "refused")));
    tokio::time::advance(Duration::from_secs(61)).await;
    bench.driver.evict();
    assert_eq!(serve(&bench, &labels).await.unwrap_err(), "secret `db` of service `app`: `p://app`: refused");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_too_late_is_there_for_the_next_call() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", br#"{"pin":"one"}"#);
    bench.provider.delay(Duration::from_secs(9));
    let began = Instant::now();
    assert_eq!(
        serve(&bench, &PIN).await.unwrap_err(),
        "secret `db` of service `app`: `p://app`: no answer from provider `p` within 2 s"
    );
    assert_eq!(began.elapsed(), LIMIT);
    let again = Instant::now();
    serve(&bench, &PIN).await.unwrap_err();
    assert_eq!(again.elapsed(), LIMIT_AGAIN, "others are not held up as long for what was late a moment ago");
    while bench.driver.parts.cache.fresh(&Arc::new("p://app".parse().unwrap()), FRESH).is_none() {
        tokio::time::sleep(FRESH / 2).await;
    }
    assert_eq!(serve(&bench, &PIN).await.unwrap().0, "one");
    assert_eq!(bench.provider.calls(), (1, 0));
}

/// For a service that is on this version of `p://app`, though there may be a newer one.
async fn serve_on(bench: &Bench, version: &str) -> Result<String, String> {
    let mut asked = asked(&[PIN[0], ("dso.max-stale", "1m")]);
    asked.service_labels.insert(VERSIONS.into(), format!("{{\"p://app\":\"{version}\"}}"));
    let served = bench.driver.serve(asked).await?;
    Ok(String::from_utf8(served.value.expose().to_vec()).unwrap())
}

/// Another process, whose provider has two versions.
async fn with_two_versions() -> Bench {
    let bench = Bench::new().await;
    bench.provider.keep_versions();
    bench.provider.put("app", "1", br#"{"pin":"one"}"#);
    bench.provider.put("app", "2", br#"{"pin":"two"}"#);
    bench
}

#[tokio::test(start_paused = true)]
async fn a_version_of_before_that_was_late_once_is_given_at_the_next_try() {
    for latency in [Duration::from_secs(1), Duration::from_secs(60)] {
        let bench = with_two_versions().await;
        bench.provider.delay(Duration::from_secs(3));
        serve_on(&bench, "1").await.unwrap_err();
        // The newest and the older one are two calls.
        tokio::time::sleep(Duration::from_secs(8)).await;
        bench.provider.delay(latency);
        assert_eq!(serve_on(&bench, "1").await.unwrap(), "one", "{latency:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_there_in_time_is_waited_for_as_long_as_ever() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", br#"{"pin":"one"}"#);
    bench.provider.delay(Duration::from_secs(3));
    serve(&bench, &PIN).await.unwrap_err();
    tokio::time::sleep(Duration::from_secs(8)).await;
    bench.provider.put("app", "2", br#"{"pin":"two"}"#);
    bench.provider.delay(Duration::from_millis(900));
    assert_eq!(serve(&bench, &PIN).await.unwrap().0, "two");
}

#[tokio::test(start_paused = true)]
async fn what_the_provider_refuses_is_not_given_from_memory_to_a_service_that_is_on_a_version() {
    let bench = with_two_versions().await;
    assert_eq!(
        (serve_on(&bench, "1").await.unwrap(), serve_on(&bench, "2").await.unwrap()),
        ("one".into(), "two".into())
    );
    bench.provider.fail(Some(ProviderError::new(ErrorKind::Forbidden, "not any more")));
    tokio::time::advance(Duration::from_secs(31)).await;
    for version in ["1", "2"] {
        assert!(serve_on(&bench, version).await.unwrap_err().ends_with("not any more"), "{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_bridged_for_a_service_that_is_on_a_version_no_longer_than_for_others() {
    let bench = with_two_versions().await;
    serve_on(&bench, "1").await.unwrap();
    bench.provider.fail(Some(ProviderError::new(ErrorKind::Unreachable, "refused")));
    for _ in 0..2 {
        tokio::time::advance(Duration::from_secs(25)).await;
        assert_eq!(serve_on(&bench, "1").await.unwrap(), "one");
    }
    tokio::time::advance(Duration::from_secs(25)).await;
    assert!(serve_on(&bench, "1").await.unwrap_err().ends_with("refused"));
}

#[tokio::test]
async fn swarms_limits_and_the_encoding_are_faults_with_their_reason() {
    let bench = Bench::new().await;
    bench.provider.put("empty", "1", b"");
    bench.provider.put("large", "1", &vec![b'x'; SIZE_MAX + 1]);
    bench.provider.put("most", "1", &vec![b'x'; SIZE_MAX]);
    bench.provider.put("binary", "1", b"\xff");
    let fault = async |reference: &str, more: &[(&str, &str)]| {
        serve(&bench, &[&[("dso.ref", reference)], more].concat()).await.unwrap_err()
    };
    assert!(fault("p://empty", &[]).await.ends_with("a Swarm secret has at least 1 byte"));
    assert!(
        fault("p://large", &[]).await.contains("the value has 512000 bytes, and a Swarm secret has at most 511999")
    );
    assert!(fault("p://binary", &[("dso.encoding", "text")]).await.contains("not UTF-8"));
    assert!(fault("q://x", &[]).await.contains("unknown provider `q`"));
    assert_eq!(serve(&bench, &[("dso.ref", "p://most")]).await.unwrap().0.len(), SIZE_MAX);
    assert_eq!(bench.driver.serve(asked(&[("dso.ref", "p://binary")])).await.unwrap().value.expose(), b"\xff");
}

#[tokio::test]
async fn a_service_that_may_not_have_it_is_refused_without_a_read() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", br#"{"pin":"one"}"#);
    let mut asked = asked(&PIN);
    asked.service_labels.insert("dso.allow".into(), "p://other/*".into());
    let fault = bench.driver.serve(asked).await.unwrap_err();
    assert_eq!(fault, "secret `db` of service `app`: the service's label `dso.allow` does not name `p://app`");
    assert_eq!(bench.provider.calls(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_given_and_what_was_not_is_recorded() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", br#"{"pin":"canary"}"#);
    let lines = Arc::new(std::sync::Mutex::new(Vec::<serde_json::Value>::new()));
    let kept = lines.clone();
    bench.driver.audit().record_to(Box::new(move |line| {
        assert!(!line.contains("canary"), "a value is recorded");
        kept.lock().unwrap().push(serde_json::from_str(line).unwrap());
        Ok(())
    }));
    serve(&bench, &PIN).await.unwrap();
    serve(&bench, &[("dso.ref", "p://none")]).await.unwrap_err();
    serve(&bench, &[("dso.ref", "p://app#nothing")]).await.unwrap_err();
    serve(&bench, &[("dso.ref", "q://app")]).await.unwrap_err();
    let fields = ["cause", "swarm_secret", "service", "secret", "version", "result", "class"];
    let lines: Vec<_> = lines.lock().unwrap().iter().map(|line| fields.map(|field| line[field].clone())).collect();
    let wanted = serde_json::json!([
        ["swarm", "db", "app", "p://app", "1", "delivered", null],
        ["swarm", "db", "app", "p://none", null, "failed", "not_found"],
        ["swarm", "db", "app", "p://app", null, "failed", "render"],
        ["swarm", "db", "app", "q://app", null, "failed", "options"],
    ]);
    assert_eq!(serde_json::json!(lines), wanted);
}

#[tokio::test]
async fn only_a_pinned_version_may_be_reused() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", br#"{"pin":"one"}"#);
    assert!(serve(&bench, &[("dso.ref", "p://app?version=1#pin")]).await.unwrap().1);
    assert!(!serve(&bench, &[("dso.ref", "p://app?stage=x#pin")]).await.unwrap().1);
}
