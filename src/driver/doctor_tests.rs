use super::{
    super::{
        rotation::User,
        workbench::{Bench, down},
    },
    *,
};

/// What is found of a check, but for what is well.
async fn found(bench: &Bench, check: &str) -> Vec<(Level, String, String)> {
    let findings = bench.driver.examine().await.into_iter();
    let of_check = findings.filter(|finding| finding.check == check && finding.level != Level::Ok);
    let told = of_check.inspect(|finding| assert!(!finding.advice.is_empty(), "{finding:?}"));
    told.map(|finding| (finding.level, finding.subject, finding.message)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_plugin_in_order_has_nothing_wrong_but_what_a_test_lacks() {
    let bench = Bench::new().await;
    bench.provider.put("app", "7", b"canary");
    bench.volume("v", &[("file.x", "p://app")]).await;
    bench.mount("v", "a").await.unwrap();
    bench.driver.note_engine(Ok(()));
    bench.driver.note_turn();
    for check in ["engine", "settings", "provider", "policy", "reference", "volume", "ledger", "kernel"] {
        assert_eq!(found(&bench, check).await, [], "{check}");
    }
    let all = serde_json::to_string(&bench.driver.examine().await).unwrap();
    assert!(!all.contains("canary") && all.contains(r#""message":"version 7""#), "{all}");
}

#[tokio::test(start_paused = true)]
async fn secrets_that_are_gone_forbidden_or_without_versions() {
    let bench =
        Bench::over(tempfile::tempdir_in("/dev/shm").unwrap(), crate::provider::scripted::Scripted::unversioned())
            .await;
    bench.volume("v", &[("file.x", "p://app")]).await;
    let policy = found(&bench, "policy").await;
    assert!(policy[0].0 == Level::Warning && policy[0].2.contains("its version is not told"), "{policy:?}");
    let bench = Bench::new().await;
    bench.volume("v", &[("file.x", "p://app")]).await;
    bench.volume("w", &[("file.x", "p://app")]).await;
    let policy = found(&bench, "policy").await;
    assert_eq!(policy, [(Level::Error, "p://app".into(), "there is no `p://app` (used by volumes `v`, `w`)".into())]);
    bench.provider.fail(down());
    assert!(found(&bench, "policy").await[0].2.contains("connection refused"));
    bench.provider.fail(None);
    bench.provider.delay(Duration::from_secs(3600));
    assert!(found(&bench, "provider").await[0].2.contains("no answer within 20 s"));
}

#[tokio::test(start_paused = true)]
async fn secrets_are_asked_for_unless_their_provider_does_not_answer() {
    let bench = Bench::new().await;
    bench.volume("v", &[("file.x", "p://app")]).await;
    let about_app =
        async || found(&bench, "policy").await.iter().filter(|(_, subject, _)| subject == "p://app").count();
    bench.provider.finds(Finding::error("policy", "", "one of them may not be read", "let it"));
    assert_eq!(about_app().await, 1, "others may be");
    bench.provider.finds(Finding::error("identity", "", "no token", "give it one"));
    assert_eq!(about_app().await, 0, "it would say the same again");
}

#[tokio::test(start_paused = true)]
async fn of_many_secrets_it_is_told_how_many_were_not_asked_for_and_what_came_in_time() {
    let bench = Bench::new().await;
    for number in 0..PROBES + 3 {
        bench.volume(&format!("v{number}"), &[("file.x", &format!("p://none{number}"))]).await;
    }
    let policy = found(&bench, "policy").await;
    let told = |findings: &[(Level, String, String)], text: &str| {
        findings.iter().filter(|(_, _, message)| message.contains(text)).count()
    };
    assert_eq!(told(&policy, "there is no `p://none"), PROBES);
    assert_eq!(told(&policy, "3 more of its secrets were not asked for"), 1, "{policy:?}");
    // Three times four of them.
    bench.provider.delay(Duration::from_secs(6));
    let all = bench.driver.examine().await;
    let of =
        |check: &str, text: &str| all.iter().filter(|one| one.check == check && one.message.contains(text)).count();
    assert_eq!((of("policy", "there is no"), of("provider", "no answer within 20 s")), (3 * AT_A_TIME, 1));
}

#[tokio::test(start_paused = true)]
async fn volumes_that_failed_are_stale_or_orphaned_and_labels_that_mean_nothing() {
    let bench = Bench::new().await;
    bench.volume("failed", &[("file.x", "p://none")]).await;
    bench.mount("failed", "a").await.unwrap_err();
    bench.provider.put("app", "1", b"x");
    bench.volume("stale", &[("file.x", "p://app")]).await;
    bench.mount("stale", "a").await.unwrap();
    bench.provider.fail(down());
    bench.check_and_refresh("stale").await;
    let volumes = found(&bench, "volume").await;
    assert_eq!(
        volumes.iter().map(|(level, name, _)| (*level, name.as_str())).collect::<Vec<_>>(),
        [(Level::Error, "failed"), (Level::Warning, "stale")]
    );
    let user = User {
        name: "web".into(),
        id: "1".into(),
        state: "running".into(),
        destination: "/s".into(),
        on_rotate: "none".into(),
        fault: Some("label `dso.on-rotate`: unknown".into()),
    };
    bench.driver.set_users(&"stale".parse().unwrap(), vec![user]);
    let labels = found(&bench, "label").await;
    assert_eq!(labels, [(Level::Error, "stale".into(), "container web: label `dso.on-rotate`: unknown".into())]);
}

#[tokio::test(start_paused = true)]
async fn mounts_that_nobody_counts_and_counts_without_a_mount() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"x");
    bench.volume("v", &[("file.x", "p://app")]).await;
    bench.mount("v", "a").await.unwrap();
    std::fs::create_dir(bench.dir.path().join("stray")).unwrap();
    std::fs::rename(bench.dir.path().join("v"), bench.dir.path().join("state/v")).unwrap();
    let ledger = found(&bench, "ledger").await;
    assert_eq!(ledger[0].1, "stray");
    assert!(
        ledger[1].0 == Level::Error && ledger[1].2 == "is counted as mounted 1 times, and has no mount",
        "{ledger:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_not_heard_and_a_loop_that_stands_still() {
    let bench = Bench::new().await;
    assert_eq!(found(&bench, "engine").await[0].0, Level::Warning);
    bench.driver.note_engine(Err("no such file".into()));
    assert!(found(&bench, "engine").await.last().unwrap().2.contains("cannot follow the engine: no such file"));
    bench.driver.note_engine(Ok(()));
    assert!(found(&bench, "engine").await[0].2.contains("stands still"));
    bench.driver.note_turn();
    assert_eq!(found(&bench, "engine").await, []);
    tokio::time::advance(STILL).await;
    assert!(found(&bench, "engine").await[0].2.contains("stands still"));
    bench.driver.note_engine(Err("no such file".into()));
    let both = found(&bench, "engine").await;
    assert!(both[0].2.contains("stands still") && both[1].2.contains("cannot follow the engine"), "{both:?}");
}

#[tokio::test(start_paused = true)]
async fn settings_that_are_not_in_use_and_providers_that_are_left_out() {
    let bench = Bench::new().await;
    bench.volume("v", &[("file.x", "p://app")]).await;
    bench.driver.parts.cache.registry().refuse(Some("unknown key `x`".into()));
    assert_eq!(found(&bench, "settings").await[0].2, "not in use: unknown key `x`");
    let tables = [("eu".to_owned(), "type = 'vualt'".parse().unwrap())].into();
    bench.driver.parts.cache.replace(Registry::build(tables, &crate::host::HostFiles::on_host("/nowhere")));
    assert!(found(&bench, "settings").await[0].2.contains("did you mean `vault`?"));
    let references = found(&bench, "reference").await;
    assert!(references[0].2.starts_with("volume `v`: unknown provider `p`"), "{references:?}");
    bench.driver.parts.cache.replace(Registry::unknown("invalid (line 3)".into()));
    assert_eq!(found(&bench, "settings").await[0].2, "not in use: invalid (line 3)");
}
