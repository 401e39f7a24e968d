//! Services of a Compose file, of which Compose must not see that they were rotated.

use super::{
    load::{Load, get_by_name},
    stage::Stage,
};
use crate::support::{BUSYBOX, NGINX, SOON, compose::Compose, wait_for};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::PathBuf,
    process::Child,
    time::Duration,
};

const REPLICAS: usize = 20;
/// As in `[rotation]` below.
const PARALLEL: usize = 4;
const SETTLE: Duration = Duration::from_secs(1);

/// Containers of a project: name → ID, and when it was started.
type Services = BTreeMap<String, [String; 2]>;

fn services(stage: &Stage, compose: &Compose) -> Services {
    let filter = format!("label=com.docker.compose.project={}", compose.project());
    let ids = stage.engine().docker(&["ps", "--all", "--quiet", "--filter", &filter]);
    let format = "{{.Name}} {{.Id}} {{.State.StartedAt}}";
    if ids.is_empty() {
        return Services::new();
    }
    let words: Vec<&str> = ["inspect", "--format", format].into_iter().chain(ids.lines()).collect();
    let listed = stage.engine().docker(&words);
    let services = listed.lines().map(|line| {
        let mut words = line.split(' ').map(str::to_owned);
        let name = words.next().unwrap().trim_start_matches('/').to_owned();
        (name, [(); 2].map(|()| words.next().unwrap()))
    });
    services.collect()
}

/// A web service that is replaced, one that is restarted and one that gets a signal, all on one volume.
fn file(stage: &Stage) -> String {
    let (driver, site) = (stage.plugin.driver(), stage.site_dir().display().to_string());
    format!(
        r#"
services:
  web: &site
    image: {NGINX}
    pull_policy: never
    command: [sh, /site/start]
    stop_signal: SIGQUIT
    environment: {{ DELAY: "1" }}
    labels: {{ dso.on-rotate: rolling }}
    volumes: ["app:/secrets", "{site}:/site:ro"]
    networks: {{ default: {{ aliases: [site] }} }}
    healthcheck: {{ test: wget -q -O /dev/null http://127.0.0.1/, interval: 500ms, retries: 3 }}
  api:
    <<: *site
    labels: {{ dso.on-rotate: restart }}
    networks: [default]
  worker:
    image: {BUSYBOX}
    pull_policy: never
    labels: {{ dso.on-rotate: "signal:USR1" }}
    volumes: ["app:/secrets"]
    command: [sh, -c, "trap 'cat /secrets/token; echo' USR1; while :; do sleep 0.1; done"]
    stop_grace_period: 1s
    depends_on: [web]
  client:
    image: {BUSYBOX}
    pull_policy: never
    init: true
    command: [sleep, "1000"]
volumes:
  app:
    driver: {driver}
    driver_opts: {{ from: "vault://secret/app", refresh: 1s }}
"#
    )
}

#[test]
fn compose_sees_nothing_of_a_rotation_of_its_services() {
    let stage = Stage::start("settle = '1s'");
    stage.put("first");
    stage.engine().import(NGINX);
    let compose = Compose::new(stage.engine(), &file(&stage));
    compose.run(&["up", "--detach", "--wait"]);
    let [web, api, worker, client] =
        ["web", "api", "worker", "client"].map(|name| format!("{}-{name}-1", compose.project()));
    let volume = format!("{}_app", compose.project());
    let before = services(&stage, &compose);
    let (pid, generation) = (stage.pid(&client), stage.plugin.status(&volume)["generation"].as_u64().unwrap());
    let load = Load::none().add(2, Some(pid), || || get_by_name("web")).add(1, Some(pid), || || get_by_name("site"));
    wait_for("the load to see the first token", SOON, || load.seen().count("first") > 50);

    stage.put("second");
    stage.status_of(&volume, "verified", generation);
    wait_for("the load to see the second token", SOON, || load.seen().count("second") > 50);
    load.end().assert_faultless(100);
    assert_eq!(stage.engine().docker(&["logs", &worker]), "second", "the signal");
    let after = services(&stage, &compose);
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    let (old, new) = (|name: &String| &before[name], |name: &String| &after[name]);
    assert_ne!(new(&web)[0], old(&web)[0], "replaced");
    assert_eq!(new(&api)[0], old(&api)[0]);
    assert_ne!(new(&api)[1], old(&api)[1], "restarted");
    assert_eq!([new(&worker), new(&client)], [old(&worker), old(&client)]);

    for words in [&["up", "--detach", "--wait"][..], &["up", "--detach", "--remove-orphans"]] {
        let said = compose.try_run(words).expect("docker compose up");
        assert!(!said.to_lowercase().contains("recreate"), "{said}");
        assert_eq!(services(&stage, &compose), after, "Compose takes them for what it has made itself");
    }
    compose.run(&["down", "--timeout", "2"]);
    assert_eq!(services(&stage, &compose), Services::new(), "also when they are to go");
}

/// What an engine tells of a project's containers, as it happens: it keeps no more than the last 256 events of all.
struct Events(Child, PathBuf);

// === impl Events ===

impl Events {
    fn follow(stage: &Stage, compose: &Compose) -> Self {
        let file = stage.plugin.folder().join("events");
        let filter = format!("label=com.docker.compose.project={}", compose.project());
        let now = stage.engine().docker(&["info", "--format", "{{.SystemTime}}"]);
        let words = ["events", "--since", &now, "--filter", &filter, "--format", "{{.TimeNano}} {{.ID}} {{.Action}}"];
        let into = File::create(&file).unwrap();
        Self(stage.engine().command().args(words).stdout(into).spawn().unwrap(), file)
    }

    /// The time in nanoseconds, the container's ID, and what happened.
    fn so_far(&self) -> Vec<(u128, String, String)> {
        let told = fs::read_to_string(&self.1).unwrap();
        let events = told.lines().map(|line| {
            let words: Vec<&str> = line.splitn(3, ' ').collect();
            (words[0].parse().expect(line), words[1].to_owned(), words[2].to_owned())
        });
        events.collect()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn twenty_replicas_of_a_service_are_all_reached_one_first_and_four_at_a_time_after_it() {
    let stage = Stage::start(&format!("settle = '1s'\nparallel = {PARALLEL}"));
    stage.put("first");
    let driver = stage.plugin.driver();
    let compose = Compose::new(
        stage.engine(),
        &format!(
            r#"
services:
  web:
    image: {BUSYBOX}
    pull_policy: never
    init: true
    network_mode: none
    command: [sh, -c, "cat /secrets/token; echo; exec sleep 1000"]
    labels: {{ dso.on-rotate: restart }}
    volumes: ["app:/secrets"]
volumes:
  app:
    driver: {driver}
    driver_opts: {{ from: "vault://secret/app", refresh: 1s }}
"#
        ),
    );
    compose.run(&["up", "--detach", "--scale", &format!("web={REPLICAS}")]);
    let volume = format!("{}_app", compose.project());
    let (before, generation) =
        (services(&stage, &compose), stage.plugin.status(&volume)["generation"].as_u64().unwrap());
    assert_eq!(before.len(), REPLICAS);
    let events = Events::follow(&stage, &compose);
    stage.put("second");
    stage.status_of(&volume, "verified", generation);
    for (name, [id, started]) in services(&stage, &compose) {
        let [old_id, old_started] = &before[&name];
        assert!(id == *old_id && started != *old_started, "{name} was restarted once: {started}");
        assert_eq!(stage.engine().docker(&["logs", &name]), "first\nsecond");
    }

    let starts = |events: &[(u128, String, String)]| events.iter().filter(|(_, _, what)| what == "start").count();
    wait_for("the engine to have told of each start", SOON, || starts(&events.so_far()) >= REPLICAS);
    let events = events.so_far();
    let mut worked_on: BTreeMap<String, (u128, u128)> = BTreeMap::new();
    for (at, id, what) in &events {
        let (_, until) = worked_on.entry(id.clone()).or_insert((*at, *at));
        if what == "start" {
            // Less a little: the engine tells of it when it has.
            *until = at + SETTLE.as_nanos() * 9 / 10;
        }
    }
    assert_eq!(worked_on.len(), REPLICAS, "{events:#?}");
    assert_eq!(starts(&events), REPLICAS, "each of them once");
    let mut spans: Vec<_> = worked_on.into_values().collect();
    spans.sort();
    let at_once = |at: u128| spans.iter().filter(|(from, until)| (*from..*until).contains(&at)).count();
    let most = spans.iter().map(|(from, _)| at_once(*from)).max();
    assert!(spans[0].1 <= spans[1].0, "the canary is alone until it has settled: {spans:?}");
    assert!(most <= Some(PARALLEL), "{most:?} at a time: {spans:?}");
    assert!(most > Some(1), "not one after the other: {spans:?}");
}
