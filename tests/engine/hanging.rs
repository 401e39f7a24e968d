//! A provider that takes calls and never answers keeps nobody waiting who needs another one.

use crate::{
    aws::world::World,
    support::{
        SOON,
        aws::gate,
        bao::Bao,
        local::LocalSecrets,
        proxy::{Fault, Proxy},
        wait_for,
    },
    vault::world::instance,
};
use serde_json::json;
use std::{thread, time::Duration};
use tokio::time::Instant;

const ROUNDS: usize = 15;
const ACTIONS: [&str; 4] = ["ListSecrets", "DescribeSecret", "GetSecretValue", "BatchGetSecretValue"];

/// How long a volume of the provider takes to be made, mounted, and taken away again: the median of many.
fn usual(world: &World, provider: &str, reference: &str) -> Duration {
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let (volume, began) = (world.plugin.named(provider), Instant::now());
            world.mount(&volume, json!({"file.value": reference}));
            let took = began.elapsed();
            world.unmount(&volume);
            world.plugin.call("/VolumeDriver.Remove", &json!({ "Name": volume }));
            took
        })
        .collect();
    times.sort();
    times[ROUNDS / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn while_one_provider_hangs_volumes_of_the_others_mount_in_their_usual_time() {
    let bao = Bao::start().await;
    let proxy = Proxy::before(&bao.address).await;
    let vault = instance("vault", proxy.address(), "");
    let world = World::with(&vault, |plugin| plugin.config("vault-token", &bao.root).set("DSO_REFRESH=1s")).await;
    LocalSecrets::in_dir(&world.plugin.config_dir()).set("app", "value");
    world.moto.create("app", "value").await;
    bao.put("secret", "app", json!({"value": "value"})).await;
    let references = [("local", "local://app"), ("vault", "vault://secret/app#value"), ("aws", "aws://app")];
    // A volume of each stays mounted, so that each is checked too while it hangs.
    for (provider, reference) in references {
        world.mount(&world.plugin.named(&format!("{provider}-mounted")), json!({"file.value": reference}));
    }
    for hanging in ["vault", "aws"] {
        let others = || references.iter().filter(|(provider, _)| *provider != hanging);
        let before: Vec<_> = others().map(|(provider, reference)| usual(&world, provider, reference)).collect();
        proxy.reset();
        world.gate.reset();
        match hanging {
            "vault" => proxy.fail("/", usize::MAX, Fault::Hang),
            _ => ACTIONS.iter().for_each(|action| world.gate.fail(action, usize::MAX, gate::Fault::Hang)),
        }
        thread::scope(|scope| {
            let volume = world.plugin.named("hangs");
            let (_, reference) = references.iter().find(|(provider, _)| *provider == hanging).unwrap();
            // Of a secret that was never read: there is nothing that could be shown in place of it.
            let create = json!({"Name": volume, "Opts": {"file.value": reference.replace("app", "other")}});
            assert_eq!(world.plugin.call("/VolumeDriver.Create", &create).1["Err"], "");
            let (plugin, mount) = (&world.plugin, json!({"Name": volume, "ID": "m"}));
            let held = scope.spawn(move || plugin.call("/VolumeDriver.Mount", &mount).1["Err"].clone());
            let calls = || if hanging == "vault" { proxy.requests().len() } else { world.gate.calls().len() };
            wait_for("the provider to be asked, by the mount and by a check", SOON, || calls() >= 2);
            let during: Vec<_> = others().map(|(provider, reference)| usual(&world, provider, reference)).collect();
            assert!(!held.is_finished(), "the mount of the one that hangs is still waiting");
            for (((other, _), before), during) in others().zip(&before).zip(&during) {
                println!("{hanging} hangs: {other} mounts in {during:?}, and in {before:?} before");
                assert!(
                    *during < *before * 3 + Duration::from_millis(20),
                    "{other}: {during:?}, and {before:?} before"
                );
            }
            // What is mounted is shown as it was.
            assert_eq!(world.status(&world.plugin.named(&format!("{hanging}-mounted")))["mounts"], 1);
            assert_ne!(held.join().unwrap(), "", "its mount fails in the end");
        });
        proxy.heal();
        world.gate.heal();
        world.plugin.call("/VolumeDriver.Remove", &json!({"Name": world.plugin.named("hangs")}));
    }
    for (provider, _) in references {
        world.unmount(&world.plugin.named(&format!("{provider}-mounted")));
    }
}
