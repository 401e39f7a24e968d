//! The rotation of services over a scripted Swarm: what dies at any step is taken up, by this process or another.

use super::*;
use crate::{
    docker::{UpdateState, scripted::swarm::ScriptedSwarm},
    driver::{Asked, workbench::Bench, workbench::down},
    volume::service::{NEXT, REFUSED},
};

const SECRET: [(&str, &str); 1] = [("dso.ref", "p://app#pin")];

struct World {
    bench: Bench,
    swarm: Arc<ScriptedSwarm>,
    services: Services,
}

impl World {
    /// One service on version 1.
    async fn new() -> Self {
        let (bench, swarm) = (Bench::new().await, Arc::new(ScriptedSwarm::leading()));
        swarm.secret("pin", &SECRET);
        swarm.service("app", &["pin"], &[]);
        let services = Services::new(bench.driver.clone(), swarm.clone(), Arc::<Policy>::default);
        let world = Self { bench, swarm, services };
        world.put("1");
        world.settle().await;
        world
    }

    fn put(&self, version: &str) {
        self.bench.provider.put("app", version, format!("{{\"pin\":\"{version}\"}}").as_bytes());
    }

    /// Another process, here or on the node that leads from now on: it has served nothing and remembers nothing.
    async fn successor(self) -> Self {
        let bench = self.bench.restart().await;
        self.swarm.lose(None);
        let services = Services::new(bench.driver.clone(), self.swarm.clone(), Arc::<Policy>::default);
        Self { bench, swarm: self.swarm, services }
    }

    /// Looks until there is nothing to do for now.
    async fn settle(&self) {
        self.services.hurry("p");
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..10 {
            if self.services.reconcile().await != Some(Duration::ZERO) {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// To which versions tasks were replaced, in order.
    fn rotations(&self) -> Vec<String> {
        self.swarm.replaced("app").iter().map(|labels| Versions::of(labels, VERSIONS).0["p://app"].clone()).collect()
    }

    async fn serve(&self) -> Result<String, String> {
        let asked = Asked {
            secret: "pin".into(),
            labels: self.swarm.labels_of_secret("pin"),
            service: "app".into(),
            service_labels: self.swarm.look("app").labels,
            ..Asked::default()
        };
        let served = self.bench.driver.serve(asked).await?;
        Ok(String::from_utf8(served.value.expose().to_vec()).unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_seen_first_is_adopted_and_noted_without_touching_the_service() {
    let world = World::new().await;
    assert_eq!(world.swarm.look("app").index, 1);
    assert_eq!(Versions::of(&world.swarm.labels_of_secret("pin"), VERSIONS).0["p://app"], "1");
    assert_eq!(world.swarm.writes(), 1);
    for _ in 0..10 {
        world.settle().await;
    }
    assert_eq!(world.swarm.writes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_change_is_one_update_and_its_rollback_gives_the_old_value_and_is_not_tried_again() {
    let world = World::new().await;
    assert_eq!(world.serve().await.unwrap(), "1");
    world.put("2");
    world.settle().await;
    assert_eq!((world.rotations(), world.serve().await.unwrap().as_str()), (vec!["2".to_owned()], "2"));
    world.settle().await;
    world.swarm.end("app", true);
    world.put("3");
    world.settle().await;
    assert_eq!(world.serve().await.unwrap(), "3");
    world.swarm.end("app", false);
    assert_eq!(world.serve().await.unwrap(), "2", "its provider has it no more, and it is kept");
    world.settle().await;
    // Scaled, say: Swarm has forgotten of the rollback.
    world.swarm.edit("app", |_| {});
    world.settle().await;
    assert_eq!(world.rotations(), ["2", "3"]);
    assert_eq!(world.serve().await.unwrap(), "2");
    world.put("4");
    world.settle().await;
    world.swarm.end("app", true);
    world.settle().await;
    assert_eq!(world.rotations(), ["2", "3", "4"]);
    let labels = world.swarm.look("app").labels;
    assert_eq!((labels.get(REFUSED), &labels[VERSIONS]), (None, &labels[NEXT]));
    assert_eq!(Versions::of(&world.swarm.labels_of_secret("pin"), VERSIONS).0["p://app"], "4");
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_over_at_any_step_finishes_and_nobody_rotates_twice() {
    // Writes: announced, updated; ended; the secret's label.
    for (step, after) in (0..3).flat_map(|step| [(step, false), (step, true)]) {
        let world = World::new().await;
        world.put("2");
        world.swarm.lose(Some((step, after)));
        world.settle().await;
        let mut world = world.successor().await;
        world.settle().await;
        if world.swarm.look("app").update == Some(UpdateState::Updating) {
            world = world.successor().await;
            world.settle().await;
            world.swarm.end("app", true);
        }
        world.settle().await;
        world.successor().await.settle_and_check(step, after).await;
    }
}

impl World {
    async fn settle_and_check(self, step: usize, after: bool) {
        self.settle().await;
        assert_eq!(self.rotations(), ["2"], "step {step}, after its effect: {after}");
        assert_eq!(Versions::of(&self.swarm.labels_of_secret("pin"), VERSIONS).0["p://app"], "2");
    }
}

#[tokio::test(start_paused = true)]
async fn a_successor_knows_what_was_refused_and_gives_nobody_a_value_that_was() {
    let world = World::new().await;
    world.put("2");
    world.settle().await;
    world.swarm.end("app", false);
    let world = world.successor().await;
    world.settle().await;
    assert_eq!(world.rotations(), ["2"]);
    // Its predecessor kept version 1, and this provider does not.
    assert!(world.serve().await.unwrap_err().contains("version 1 is gone, and the newest was rolled back"));
}

#[tokio::test(start_paused = true)]
async fn somebody_who_writes_meanwhile_is_not_overwritten_and_the_update_waits() {
    let world = World::new().await;
    world.put("2");
    world.swarm.contend(true);
    for _ in 0..3 {
        world.services.hurry("p");
        tokio::time::advance(Duration::from_secs(1)).await;
        world.services.reconcile().await;
    }
    assert_eq!(world.rotations(), Vec::<String>::new());
    world.swarm.contend(false);
    world.settle().await;
    assert_eq!(world.rotations(), ["2"]);
}

#[tokio::test(start_paused = true)]
async fn changes_during_an_update_wait_for_its_end_and_are_then_one() {
    let world = World::new().await;
    world.put("2");
    world.settle().await;
    for version in ["3", "4", "5"] {
        world.put(version);
        world.settle().await;
    }
    world.swarm.end("app", true);
    world.settle().await;
    assert_eq!(world.rotations(), ["2", "5"]);
}

#[tokio::test(start_paused = true)]
async fn a_service_or_a_secret_that_opts_out_is_left_alone_and_a_follower_leaves_all_alone() {
    let world = World::new().await;
    world.swarm.service("none", &["pin"], &[("dso.on-rotate", "none")]);
    world.swarm.service("faulty", &["pin"], &[("dso.on-rotate", "rolling")]);
    world.swarm.secret("still", &[SECRET[0], ("dso.on-rotate", "none")]);
    world.swarm.service("still", &["still"], &[]);
    world.swarm.service("theirs", &["of another driver"], &[]);
    world.swarm.lead(false);
    world.put("2");
    world.settle().await;
    assert_eq!(world.rotations(), Vec::<String>::new());
    world.swarm.lead(true);
    world.settle().await;
    assert_eq!(world.rotations(), ["2"]);
    for service in ["none", "faulty", "still", "theirs"] {
        assert_eq!(world.swarm.look(service).index, 1, "{service}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_is_updated_no_oftener_than_its_budget() {
    let world = World::new().await;
    for version in 2..10 {
        world.put(&version.to_string());
        world.settle().await;
        if world.swarm.look("app").update == Some(UpdateState::Updating) {
            world.swarm.end("app", true);
        }
        world.settle().await;
    }
    assert_eq!(world.rotations(), ["2", "3", "4"], "the budget is 3 in 10 minutes");
}

#[tokio::test(start_paused = true)]
async fn a_value_that_swarm_would_not_take_or_that_cannot_be_read_replaces_no_task() {
    let world = World::new().await;
    world.bench.provider.put("app", "2", br#"{"other":"field"}"#);
    world.settle().await;
    world.bench.provider.put("app", "3", br#"{"pin":""}"#);
    world.settle().await;
    world.put("4");
    world.bench.provider.fail_reads(down());
    world.settle().await;
    assert_eq!((world.rotations(), world.swarm.look("app").index), (Vec::new(), 1));
    world.bench.provider.fail_reads(None);
    world.settle().await;
    assert_eq!(world.rotations(), ["4"]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_rotates_nothing_and_serves_what_is_known() {
    let world = World::new().await;
    world.put("2");
    world.bench.provider.fail(down());
    world.settle().await;
    assert_eq!((world.rotations(), world.serve().await.unwrap().as_str()), (Vec::new(), "1"));
    world.bench.provider.fail(None);
    world.settle().await;
    assert_eq!(world.rotations(), ["2"]);
}

#[tokio::test(start_paused = true)]
async fn secrets_are_checked_once_an_interval_for_all_services_and_read_once_for_each_change() {
    let world = World::new().await;
    for service in 0..20 {
        world.swarm.service(&format!("s{service}"), &["pin"], &[]);
    }
    world.bench.provider.calls();
    for _ in 0..10 {
        tokio::time::advance(Duration::from_secs(30)).await;
        world.services.reconcile().await;
        world.services.reconcile().await;
    }
    assert_eq!(world.bench.provider.calls(), (0, 10));
    world.put("2");
    world.settle().await;
    assert_eq!(world.bench.provider.calls().0, 1);
}

#[tokio::test(start_paused = true)]
async fn labels_that_a_deployment_has_wiped_are_no_change_and_the_next_one_is_found() {
    let world = World::new().await;
    world.put("2");
    world.settle().await;
    assert_eq!(world.serve().await.unwrap(), "2");
    world.swarm.end("app", true);
    world.settle().await;
    world.swarm.edit("app", |service| service.labels.clear());
    world.swarm.secret("pin", &SECRET);
    world.put("3");
    world.settle().await;
    assert_eq!(world.rotations(), ["2", "3"]);
    world.swarm.end("app", false);
    assert_eq!(Versions::of(&world.swarm.look("app").labels, VERSIONS).0["p://app"], "2", "the way back is known");
}

#[tokio::test(start_paused = true)]
async fn what_swarm_refuses_to_write_holds_up_nothing_else_and_is_tried_again() {
    let world = World::new().await;
    // Looked at before the other, by its name.
    world.swarm.secret("a pin", &SECRET);
    world.swarm.service("a service", &["a pin", "pin"], &[]);
    world.settle().await;
    for refused in ["a service", "a pin"] {
        world.swarm.refuse(refused, true);
    }
    world.put("2");
    world.settle().await;
    world.swarm.end("app", true);
    world.swarm.service("a service", &[], &[]);
    world.settle().await;
    assert_eq!(world.rotations(), ["2"]);
    let noted = |name: &str| Versions::of(&world.swarm.labels_of_secret(name), VERSIONS).0["p://app"].clone();
    assert_eq!((noted("a pin"), noted("pin")), ("1".to_owned(), "2".to_owned()));
    world.swarm.service("a service", &["a pin"], &[]);
    for refused in ["a service", "a pin"] {
        world.swarm.refuse(refused, false);
    }
    world.settle().await;
    assert_eq!(world.swarm.look("a service").update, Some(UpdateState::Updating));
}

#[tokio::test(start_paused = true)]
async fn a_job_and_an_update_of_somebody_elses_that_stands_still_are_not_written_to() {
    let world = World::new().await;
    world.swarm.service("job", &["pin"], &[]);
    world.swarm.service("paused", &["pin"], &[]);
    world.swarm.edit("job", |service| service.is_job = true);
    world.swarm.edit("paused", |service| service.update = Some(UpdateState::Paused));
    world.put("2");
    world.settle().await;
    assert_eq!(world.rotations(), ["2"]);
    for service in ["job", "paused"] {
        assert_eq!(world.swarm.look(service).index, 2, "{service}");
    }
    world.swarm.edit("paused", |service| service.update = Some(UpdateState::Completed));
    world.settle().await;
    assert_eq!(world.swarm.replaced("paused").len(), 1, "a person has ended it");
}

#[tokio::test(start_paused = true)]
async fn another_refresh_holds_for_services_too() {
    let world = World::new().await;
    assert_eq!(world.services.reconcile().await, Some(Duration::from_secs(30)));
    world.bench.driver.set_refresh(Duration::from_secs(5));
    assert_eq!(world.services.reconcile().await, Some(Duration::from_secs(5)));
    world.put("2");
    tokio::time::advance(Duration::from_secs(5)).await;
    world.services.reconcile().await;
    world.services.reconcile().await;
    assert_eq!(world.rotations(), ["2"]);
    world.bench.driver.set_refresh(Duration::ZERO);
    assert_eq!(world.services.reconcile().await, None);
}

#[tokio::test(start_paused = true)]
async fn what_was_given_to_a_service_that_is_gone_is_forgotten_and_a_lost_race_is_not_run_at_once() {
    let world = World::new().await;
    world.serve().await.unwrap();
    assert_eq!(world.bench.driver.versions_served("app").0["p://app"], "1");
    world.swarm.contend(true);
    world.put("2");
    world.services.hurry("p");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(world.services.reconcile().await, Some(SOON));
    world.swarm.remove("app");
    world.settle().await;
    assert_eq!(world.bench.driver.versions_served("app"), Versions::default());
    assert!(!world.services.state().told.contains_key("app"));
}
