//! Settings that change, and tokens that end, while containers run.

use super::world::{World, instance};
use crate::support::{SOON, bao::Bao, wait_for};
use serde_json::json;
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// A container that reads a file of the volume ten times a second, and prints a line for each time that it could not.
fn reader(world: &World, volume: &str) -> String {
    let name = world.plugin.named(&format!("{volume}-reader"));
    let mount = format!("type=volume,source={},target=/secrets", world.plugin.named(volume));
    let words = ["run", "--detach", "--init", "--network=none", "--name", &name, "--mount", &mount];
    let script =
        "while :; do [ -s /secrets/password ] && cat /secrets/password >/dev/null || echo failed; sleep 0.1; done";
    let program = [crate::support::BUSYBOX, "sh", "-c", script];
    world.plugin.engine().docker(&[&words[..], &program].concat());
    name
}

/// What an operator is told of the settings.
fn settings(world: &World) -> String {
    let mut socket = UnixStream::connect(world.plugin.socket()).unwrap();
    socket.write_all(b"GET /dso/v1/settings HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_interval_and_another_action_hold_for_containers_that_run() {
    let world = World::with("", |plugin| plugin).await;
    let settings = |refresh: &str, rotation: &str| {
        let vault = instance("vault", world.proxy.address(), "");
        format!("refresh = '{refresh}'\n{vault}[rotation]\n{rotation}\n")
    };
    world.bao.put("secret", "app", json!({"password": "first"})).await;
    // The file goes before DSO_REFRESH.
    world.write("dso.toml", settings("0", ""));
    let ticks = || world.proxy.count("*", "metadata/clock");
    wait_for("the settings", SOON, || world.plugin.log().contains("`refresh` or [rotation]"));
    world.volume("v", &["from=vault://secret/app"]);
    let container = world.keep("v");
    let pid = || world.plugin.engine().json(&["inspect", &container], ".State.Pid");
    let first = (pid(), world.plugin.pid());
    world.bao.put("secret", "app", json!({"password": "second"})).await;
    // One that says by itself how often it wants to be looked at is the clock.
    world.bao.put("secret", "clock/app", json!({"password": "x"})).await;
    world.volume("clock", &["from=vault://secret/clock/app", "refresh=1s"]);
    world.keep("clock");
    let before = ticks();
    wait_for("three intervals", SOON, || ticks() >= before + 3);
    assert_eq!(world.proxy.count("*", "metadata/app"), 0, "nobody looks");
    assert_eq!(world.read("v", "password"), "first");

    world.write("dso.toml", settings("1s", "on_rotate = 'none'"));
    world.wait_for_file("v", "password", "second");
    assert_eq!(pid(), first.0, "and nothing is done to it");

    world.write("dso.toml", settings("1s", "on_rotate = 'restart'"));
    wait_for("the settings", SOON, || world.plugin.log().matches("`refresh` or [rotation]").count() >= 3);
    world.bao.put("secret", "app", json!({"password": "third"})).await;
    wait_for("the container's new process", SOON, || pid() != first.0 && pid() != 0);
    world.wait_for_file("v", "password", "third");
    assert_eq!(world.plugin.pid(), first.1, "in one process");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_and_another_token_are_used_while_containers_run() {
    let world = World::start().await;
    let other = Bao::start().await;
    let (here, there) = (world.canary(), world.canary());
    // Of the same name and version number: it is the server that makes the difference.
    world.bao.put("secret", "app", json!({"password": here})).await;
    other.put("secret", "app", json!({"password": there})).await;
    world.volume("v", &["from=vault://secret/app"]);
    world.keep("v");
    let reading = reader(&world, "v");
    assert_eq!(world.read("v", "password"), here);
    let pid = world.plugin.pid();

    world.write("other-token", world.guard(&other.root));
    let moved = instance("vault", &other.address, "auth.token_file = '/etc/dso/other-token'");
    world.write("dso.toml", &moved);
    world.wait_for_file("v", "password", &there);
    world.status_when("v", "current");

    // A file that is broken in any way keeps what is in use, and says so where it is missed.
    let eu = instance("eu", &other.address, "auth.token_file = '/etc/dso/other-token'");
    world.write("dso.toml", format!("{moved}{eu}adress = 'x'\n"));
    wait_for("the fault", SOON, || world.plugin.log().contains("has changed and is not in use"));
    assert_eq!(settings(&world), r#"{"fault":"[provider.eu]: unknown key `adress`: did you mean `address`?"}"#);
    let told = world.no_volume("new", &["from=eu://secret/app"]);
    assert_eq!(
        told,
        "dso: volume `new`: option `from`: `eu://secret/app`: unknown provider `eu`: known are `azure`, `local`, `vault`; the newer \
         /etc/dso/dso.toml is not in use: [provider.eu]: unknown key `adress`: did you mean `address`?"
    );
    let later = world.canary();
    other.put("secret", "app", json!({"password": later})).await;
    world.wait_for_file("v", "password", &later);

    // A new instance serves a new volume.
    world.write("dso.toml", format!("{moved}{eu}"));
    wait_for("the new instance", SOON, || {
        let words = ["volume", "create", "--driver", &world.plugin.driver(), "--opt", "from=eu://secret/app"];
        let name = world.plugin.named("new");
        world.plugin.engine().try_docker(&[&words[..], &[name.as_str()]].concat()).is_ok()
    });
    assert_eq!(world.run("new", &["cat", "/secrets/password"]), later);
    assert_eq!(settings(&world), r#"{"fault":null}"#);

    // What is not in the file any more is not served any more; what is mounted stays as it is.
    world.write("dso.toml", &eu);
    assert_eq!(
        world.error_when("v", "stale"),
        "`vault://secret/app`: provider `vault` is not set up: write [provider.vault] in /etc/dso/dso.toml, or disable the \
         plugin and set VAULT_ADDR with `docker plugin set`"
    );
    assert_eq!(world.read("v", "password"), later);
    assert_eq!(world.plugin.engine().docker(&["logs", &reading]), "", "no read failed");
    assert_eq!(world.plugin.pid(), pid, "in one process");
    world.nothing_leaked();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tokens_of_5_s_containers_read_on_and_logins_are_bounded() {
    // `DSO_TEST_SECONDS=600` for the long run.
    let seconds = std::env::var("DSO_TEST_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    let time = Duration::from_secs(seconds);
    let login =
        "auth.method = 'approle'\nauth.role_id_file = '/etc/dso/role-id'\nauth.secret_id_file = '/etc/dso/secret-id'";
    let world = World::with(&instance("role", "PROXY", login), |plugin| plugin).await;
    world.bao.policy("dso", r#"path "secret/data/*" { capabilities = ["read"] }"#).await;
    let role = json!({"token_policies": "dso", "token_ttl": "5s", "token_max_ttl": "5s"});
    let role = world.bao.approle("approle", "dso", role).await;
    world.write("role-id", &role.role_id);
    world.write("secret-id", world.guard(&role.secret_id));
    let names: Vec<_> = (0..4).map(|n| format!("v{n}")).collect();
    for name in &names {
        world.bao.put("secret", name, json!({"password": world.canary()})).await;
        world.volume(name, &[&format!("from=role://secret/{name}")]);
    }
    let readers: Vec<_> = names.iter().map(|name| reader(&world, name)).collect();
    let logins = || world.proxy.count("POST", "/auth/approle/login");
    let (before, end, mut rounds) = (logins(), Instant::now() + time, 0);
    while Instant::now() < end {
        for name in &names {
            world.bao.put("secret", name, json!({"password": format!("{rounds}-{}", world.canary())})).await;
            assert_eq!(world.status(name)["state"], "current", "round {rounds}: {}", world.status(name)["error"]);
        }
        world.run(&names[rounds % names.len()], &["cat", "/secrets/password"]);
        rounds += 1;
        sleep(Duration::from_millis(500)).await;
    }
    let logins = logins() - before;
    // One login for every 3 s at the most: two thirds of a token's life.
    println!("{rounds} rounds, {logins} logins in {time:?}");
    assert!(rounds > 5 && (3..=seconds as usize * 3 / 10 + 1).contains(&logins), "{logins} logins");
    for reader in &readers {
        assert_eq!(world.plugin.engine().docker(&["logs", reader]), "", "no read failed");
    }
    for name in &names {
        let status = world.status(name);
        assert!(status["generation"].as_u64() > Some(3), "{status}");
    }
    world.nothing_leaked();
}
