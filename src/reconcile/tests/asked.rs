//! What those hear who asked for a look, over the whole loop in paused time.

use super::Running;
use crate::{
    docker::scripted::{Engine, Script},
    driver::workbench::{Bench, down},
    events::{Listener, Wish},
    volume::VolumeName,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{sleep, timeout};

const CHECKED: Script =
    Script { checked: true, crashes: false, sick: false, restarted: false, auto_remove: false, exclusive: false };

impl Running {
    async fn ask(&self, name: &str, force: bool) -> Listener {
        let events = self.bench.driver.events();
        let request = events.request();
        let listener = events.listen(Wish::Request { volume: name.to_owned(), request }).unwrap();
        self.bench.driver.ask(name, force, request).await.unwrap();
        listener
    }

    /// Everything that is told until the look has ended; the end is the last.
    pub(super) async fn look(&self, name: &str, force: bool) -> Vec<Value> {
        let mut listener = self.ask(name, force).await;
        hear(&mut listener).await
    }

    async fn ended(&self, name: &str) -> (bool, String) {
        let last = self.look(name, false).await.pop().unwrap();
        assert_eq!((&last["event"], &last["volume"]), (&json!("refreshed"), &json!(name)));
        (last["ok"].as_bool().unwrap(), last["result"].as_str().unwrap().to_owned())
    }
}

async fn hear(listener: &mut Listener) -> Vec<Value> {
    let mut heard = Vec::new();
    let all = async {
        while let Some(line) = listener.next().await {
            heard.push(serde_json::from_str(&line).unwrap());
        }
    };
    timeout(Duration::from_secs(1800), all).await.expect("the look ends");
    heard
}

fn kinds(heard: &[Value]) -> Vec<&str> {
    heard.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

fn answer(ok: bool, result: &str) -> (bool, String) {
    (ok, result.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_look_ends_with_what_came_of_it_whatever_the_interval() {
    let running = Running::new().await;
    running.bench.provider.put("app", "1", b"old");
    running.bench.volume("v", &[("file.x", "p://app"), ("refresh", "0")]).await;
    running.bench.volume("w", &[("file.x", "p://app"), ("refresh", "1h")]).await;
    assert_eq!(running.ended("v").await, answer(true, "not mounted"));
    for (n, volumes) in [&["v"][..], &["w"], &["v", "w"]].into_iter().enumerate() {
        for name in volumes {
            running.bench.mount(name, "a").await.unwrap();
        }
        for name in volumes {
            assert_eq!(running.ended(name).await, answer(true, "unchanged"));
        }
        running.bench.provider.put("app", &format!("{n}-new"), format!("new {n}").as_bytes());
        for name in volumes {
            // Where both have it mounted, the look at the first may have served the second.
            assert!(["published", "unchanged"].contains(&&*running.ended(name).await.1));
            assert_eq!(running.bench.read(name, "x"), format!("new {n}"));
        }
        for name in volumes {
            running.bench.unmount(name, "a").await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_that_fails_says_why_and_so_does_one_at_what_goes_away() {
    let running = Running::new().await;
    running.bench.provider.put("app", "1", b"old");
    running.bench.volume("v", &[("file.x", "p://app")]).await;
    running.bench.mount("v", "a").await.unwrap();
    running.bench.provider.fail(down());
    let heard = running.look("v", false).await;
    let last = heard.last().unwrap();
    assert_eq!((&last["ok"], &last["result"]), (&json!(false), &json!("failed")));
    assert_eq!(last["reason"], "`p://app`: connection refused");
    assert_eq!(kinds(&heard), ["stale", "refreshed"]);
    running.bench.provider.fail(None);
    assert_eq!(kinds(&running.look("v", false).await), ["current", "refreshed"]);

    running.bench.provider.delay(Duration::from_secs(5));
    let mut listener = running.ask("v", false).await;
    sleep(Duration::from_secs(1)).await;
    running.bench.unmount("v", "a").await;
    running.bench.driver.remove("v", "engine").await.unwrap();
    let heard = hear(&mut listener).await;
    assert_eq!((kinds(&heard), &heard[1]["result"]), (vec!["unmounted", "refreshed"], &json!("removed")));
}

#[tokio::test(start_paused = true)]
async fn a_look_waits_for_a_change_of_which_a_check_that_had_begun_before_knows_nothing() {
    let running = Running::new().await;
    running.bench.provider.put("app", "1", b"old");
    running.bench.volume("v", &[("file.x", "p://app")]).await;
    running.bench.mount("v", "a").await.unwrap();
    running.pass(1).await;
    running.bench.provider.delay(Duration::from_secs(5));
    let mut first = running.ask("v", false).await;
    sleep(Duration::from_secs(3)).await;
    running.bench.provider.put("app", "2", b"new");
    let mut second = running.ask("v", false).await;
    running.bench.provider.put("app", "3", b"newest");
    hear(&mut first).await;
    let heard = hear(&mut second).await;
    assert_eq!(kinds(&heard).iter().filter(|kind| **kind == "refreshed").count(), 1, "the other's end is not told");
    assert_eq!(running.bench.read("v", "x"), "newest");
}

pub(super) async fn with_container(script: Script) -> Running {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"good 1");
    bench.volume("v", &[("file.x", "p://app"), ("refresh", "1h")]).await;
    bench.mount("v", "a").await.unwrap();
    let shown = bench.dir.path().join("v/x");
    let engine = Engine::new(move || std::fs::read_to_string(&shown).unwrap_or_default());
    engine.run("web", "restart", script);
    let running = Running::beside(bench, engine);
    running.pass(20).await;
    running
}

#[tokio::test(start_paused = true)]
async fn a_rollout_is_told_step_by_step_and_the_look_ends_with_its_end() {
    let running = with_container(CHECKED).await;
    running.bench.provider.put("app", "2", b"good 2");
    let heard = running.look("v", false).await;
    assert_eq!(kinds(&heard), ["rollout_started", "container", "decided", "refreshed"], "{heard:?}");
    let [started, container, decided, refreshed] = &heard[..] else { panic!() };
    assert_eq!((&started["from"], &started["to"], &started["containers"]), (&json!(1), &json!(2), &json!(["web"])));
    assert_eq!(started["cause"], "a person asked");
    assert_eq!((&container["container"], &container["action"]), (&json!("web"), &json!("restart")));
    assert_eq!((&container["result"], container.get("reason")), (&json!("verified"), None));
    assert_eq!((&decided["result"], &decided["to_versions"]), (&json!("verified"), &json!({"p://app": "2"})));
    assert_eq!((&refreshed["ok"], &refreshed["result"]), (&json!(true), &json!("verified")));

    running.bench.provider.put("app", "3", b"bad");
    let heard = running.look("v", false).await;
    let last = heard.last().unwrap();
    assert_eq!((&last["ok"], &last["result"]), (&json!(false), &json!("rolled back")));
    assert!(last["reason"].as_str().unwrap().contains("container `web`"), "{last}");
    let results: BTreeMap<_, _> = heard
        .iter()
        .filter(|event| event["event"] == "container")
        .map(|event| (event["result"].as_str().unwrap(), event["reason"].is_string()))
        .collect();
    assert_eq!(results, BTreeMap::from([("failed", true), ("told again", true)]));
    assert_eq!(running.ended("v").await, answer(false, "refused"), "it was taken back, and nobody forces it");
    let forced = running.look("v", true).await.pop().unwrap();
    assert_eq!((&forced["ok"], &forced["result"]), (&json!(false), &json!("deferred")), "its budget is spent by now");
    assert_eq!(running.bench.read("v", "x"), "bad", "it is tried again");
    running.pass(600).await;
    let forced = running.look("v", true).await;
    assert_eq!(forced.last().unwrap()["result"], "rolled back");
}

#[tokio::test(start_paused = true)]
async fn a_container_with_a_wrong_label_is_told_of_once() {
    let bench = Bench::new().await;
    bench.provider.put("app", "1", b"good 1");
    bench.volume("v", &[("file.x", "p://app")]).await;
    bench.mount("v", "a").await.unwrap();
    let engine = Engine::new(String::new);
    engine.run("web", "reboot", CHECKED);
    let running = Running::beside(bench, engine);
    running.pass(1300).await;
    let told = running.bench.driver.events().remembered();
    let faults: Vec<_> = told.iter().filter(|event| event.kind == "label_fault").collect();
    assert_eq!(faults.len(), 1);
    assert!(faults[0].line.contains(r#""container":"web""#) && faults[0].line.contains("dso.on-rotate"));
    assert_eq!(faults[0].volume.as_deref(), Some("v".parse::<VolumeName>().unwrap().as_str()));
}
