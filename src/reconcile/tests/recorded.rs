//! Deliveries are recorded with their containers, over the whole loop.

use super::Running;
use crate::{
    audit::WORD,
    docker::scripted::{Engine, Script},
    driver::workbench::Bench,
};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

type Lines = Arc<Mutex<Vec<Value>>>;

fn record(bench: &Bench) -> Lines {
    let lines = Lines::default();
    let kept = lines.clone();
    bench.driver.audit().record_to(Box::new(move |line| {
        assert!(!line.contains("canary"), "a value is recorded");
        kept.lock().unwrap().push(serde_json::from_str(line).unwrap());
        Ok(())
    }));
    lines
}

/// Cause, secret, version, files, result, container and whether there is a reason.
fn taken(lines: &Lines) -> Vec<[Value; 6]> {
    let lines = std::mem::take(&mut *lines.lock().unwrap());
    let fields = |line: Value| {
        ["cause", "secret", "version", "files", "result"]
            .map(|field| line[field].clone())
            .into_iter()
            .chain([line["container"]["name"].clone()])
            .collect::<Vec<_>>()
            .try_into()
            .unwrap()
    };
    lines.into_iter().map(fields).collect()
}

#[tokio::test(start_paused = true)]
async fn each_secret_is_recorded_at_the_mount_and_at_its_change_with_its_container() {
    let bench = Bench::new().await;
    let lines = record(&bench);
    bench.provider.put("app", "1", br#"{"user":"canary","pass":"canary"}"#);
    bench.provider.put("tls", "7", b"canary");
    let options = [
        ("from", "p://app"),
        ("file.tls", "p://tls"),
        ("template.env", "{{ secret('p://app#user') }}"),
        ("refresh", "1h"),
    ];
    bench.volume("v", &options).await;
    bench.volume("none", &[("file.x", "p://none")]).await;
    bench.mount("v", "m1").await.unwrap();
    bench.mount("none", "m2").await.unwrap_err();
    let failed = json!(["mount", "p://none", null, [], "failed", null]);
    assert_eq!(json!(taken(&lines)), json!([failed]), "the other waits for the engine's word");

    let engine = Engine::new(String::new);
    engine.run("web", "none", Script::default());
    engine.edit("web", |web| drop(web.labels.insert("com.docker.compose.project".into(), "shop".into())));
    let running = Running::beside(bench, engine);
    running.pass(1).await;
    assert_eq!(lines.lock().unwrap()[0]["container"]["compose_project"], "shop");
    assert_eq!(lines.lock().unwrap()[0]["mount"], "m1");
    let app = json!(["mount", "p://app", "1", ["env", "pass", "user"], "delivered", "web"]);
    let tls = json!(["mount", "p://tls", "7", ["tls"], "delivered", "web"]);
    assert_eq!(json!(taken(&lines)), json!([app, tls]));

    running.bench.provider.put("tls", "8", b"canary 2");
    running.look("v", false).await;
    let changed = json!(["rotation", "p://tls", "8", ["tls"], "delivered", "web"]);
    assert_eq!(json!(taken(&lines)), json!([changed]), "what did not change is not delivered again");

    // `docker cp`: nobody begins to run.
    running.bench.mount("v", "m3").await.unwrap();
    running.bench.unmount("v", "m3").await;
    running.pass(WORD.as_secs() * 2 + Duration::from_secs(1).as_secs()).await;
    let nobody = taken(&lines);
    assert_eq!((nobody.len(), &nobody[0][5]), (2, &Value::Null));
}
