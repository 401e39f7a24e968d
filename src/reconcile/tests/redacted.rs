//! At the finest level of the log, through every way to fail that the driver, the loop and the socket have: no value in the log, an
//! error, a status, an event, a metric or a record.

use super::{Running, asked::with_container};
use crate::{
    docker::scripted::Script,
    driver::workbench::{Bench, down},
    provider::{ErrorKind, ProviderError},
    volume::MountId,
};
use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};
use tracing::level_filters::LevelFilter;

const CHECKED: Script =
    Script { checked: true, crashes: false, sick: false, restarted: false, auto_remove: false, exclusive: false };

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    fn note(&self, text: impl std::fmt::Display) {
        self.0.lock().unwrap().extend_from_slice(format!("{text}\n").as_bytes());
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// Everything that can be seen from outside.
    fn look(&self, bench: &Bench) {
        for name in bench.driver.names() {
            self.note(serde_json::to_string(&bench.status(name.as_str())).unwrap());
        }
        bench.driver.events().remembered().iter().for_each(|event| self.note(&event.line));
        self.note(bench.driver.exposition());
    }
}

fn random(prefix: &str) -> String {
    format!("{prefix}{:08x}{:08x}", getrandom::u32().unwrap(), getrandom::u32().unwrap())
}

/// Options that fail at create, or at a mount when it is rendered or written; each after a value was read.
const FAILING: [&[(&str, &str)]; 12] = [
    &[("file.x", "p://app#none")],
    &[("file.x", "p://app#/a/b")],
    &[("file.x", "p://text#field")],
    &[("from", "p://text")],
    &[("from", "p://odd")],
    &[("from", "p://app"), ("file.user", "p://app#user")],
    &[("from", "p://app"), ("mode.none", "0400")],
    &[("template.x", "{{ secret('p://app#user')|int + 1 }}")],
    &[("template.x", "{{ secret('p://app#user').a.b }}")],
    &[("template.x", "{{ secret('p://binary') }}")],
    &[("template.x", "{% for a in range(99999) %}{{ secret('p://app#user') }}{% endfor %}")],
    &[("file.x", "p://big"), ("size", "8k")],
];

async fn failures(seen: &Captured, canary: &str) {
    let running = Running::new().await;
    let bench = &running.bench;
    let record = seen.clone();
    bench.driver.audit().record_to(Box::new(move |line| {
        record.note(line);
        Ok(())
    }));
    bench.provider.put("app", "1", format!(r#"{{"user":"{canary}","n":{{"a":"{canary}"}}}}"#).as_bytes());
    bench.provider.put("text", "1", canary.as_bytes());
    bench.provider.put("odd", "1", format!(r#"{{"a/b":"{canary}"}}"#).as_bytes());
    bench.provider.put("binary", "1", &[canary.as_bytes(), &[0xff]].concat());
    bench.provider.put("big", "1", canary.repeat(2000).as_bytes());
    for (n, options) in FAILING.iter().enumerate() {
        let options: crate::volume::Options =
            options.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        seen.note(serde_json::to_string(&bench.driver.preview("w", options.clone()).await).unwrap());
        let name = format!("v{n}");
        let failed = match bench.driver.create(&name, options).await {
            Ok(()) => bench.mount(&name, "m").await.map(drop),
            failed => failed,
        };
        let error = failed.expect_err(&format!("{n} fails"));
        seen.note(format!("{error} {error:?}"));
    }
    bench.volume("good", &[("from", "p://app"), ("template.t", "{{ secret('p://text') }}")]).await;
    bench.mount("good", "m").await.unwrap();
    let again = [("file.x".to_owned(), "p://app".to_owned())].into();
    seen.note(bench.driver.create("good", again).await.unwrap_err());
    seen.note(bench.driver.remove("good", "engine").await.unwrap_err());
    seen.note(bench.driver.unmount("none", &MountId::new("m")).await.unwrap_err());
    // What was good is not any more; and the provider fails in each way.
    bench.provider.put("app", "2", canary.as_bytes());
    seen.note(running.look("good", true).await.pop().unwrap());
    bench.provider.put("app", "3", format!(r#"{{"user":"{canary} new"}}"#).as_bytes());
    for kind in [ErrorKind::Forbidden, ErrorKind::NotFound, ErrorKind::Malformed, ErrorKind::Throttled, ErrorKind::Tls]
    {
        bench.provider.fail_reads(Some(ProviderError::new(kind, "as it was asked for")));
        seen.note(running.look("good", false).await.pop().unwrap());
    }
    bench.provider.fail_reads(None);
    bench.provider.fail(down());
    running.pass(40).await;
    bench.provider.fail(None);
    bench.provider.panic_once();
    running.pass(60).await;
    seen.look(bench);
}

async fn rollbacks(seen: &Captured, canary: &str) {
    for action in ["restart", "signal", "exec:reload", "rolling"] {
        let running = with_container(CHECKED).await;
        running.engine.edit("web", |web| drop(web.labels.insert("dso.on-rotate".into(), action.into())));
        running.pass(700).await;
        running.bench.provider.put("app", "2", format!("bad {canary}").as_bytes());
        seen.note(running.look("v", false).await.pop().unwrap());
        running.engine.set_down(true);
        running.bench.provider.put("app", "3", format!("good {canary}").as_bytes());
        seen.note(running.look("v", true).await.pop().unwrap());
        seen.look(&running.bench);
    }
}

#[tokio::test(start_paused = true)]
async fn no_failure_tells_a_value_at_any_level() {
    let (seen, canary, planted) = (Captured::default(), random("canary"), random("planted"));
    let writer = seen.clone();
    let lines = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_ansi(false);
    let _capturing = tracing::subscriber::set_default(lines.with_writer(move || writer.clone()).finish());
    tracing::trace!(planted, "what is logged is captured");
    failures(&seen, &canary).await;
    rollbacks(&seen, &canary).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let text = seen.text();
    assert!(text.contains(&planted), "the log is not captured");
    for part in [
        " ERROR dso::driver",
        " INFO dso::",
        "rolled back",
        "\"audit\":\"delivery\"",
        "dso_mounts_total{result=\"failed\"}",
    ] {
        assert!(text.contains(part), "nothing of `{part}` was seen");
    }
    let told: Vec<_> =
        text.lines().filter(|line| line.contains(&canary)).map(|line| line.replace(&canary, "…")).collect();
    assert!(told.is_empty(), "a value is told: {told:#?}");
}
