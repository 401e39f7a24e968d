//! The ways in which people give a volume to a container, and what is in it before the container's first process.

use crate::support::{
    BUSYBOX, SCRATCH, SOON, compose::Compose, engine::Engine, local::LocalSecrets, plugin::Plugin, wait_for,
};

fn plugin_with(secrets: &[(&str, &str)]) -> (Plugin, LocalSecrets) {
    let plugin = Plugin::on(&Engine::system()).start();
    let store = LocalSecrets::in_dir(&plugin.config_dir());
    for (target, value) in secrets {
        store.set(target, value);
    }
    (plugin, store)
}

/// What a container prints, which is gone afterwards.
fn run(plugin: &Plugin, words: &[&str]) -> Result<String, String> {
    plugin.engine().try_docker(&[&["run", "--rm", "--network=none"], words].concat())
}

#[test]
fn the_first_thing_that_the_first_process_reads_is_the_value_however_the_volume_came_to_be() {
    let (plugin, store) = plugin_with(&[("app/db#password", "first"), ("app/db#user", "someone")]);
    let (one, create, old) = (plugin.named("one"), plugin.named("create"), plugin.named("old"));
    // The image has one program and no shell: the entrypoint itself reads, and that is all it does.
    let read = |mount: &str| run(&plugin, &["--mount", mount, SCRATCH, "cat", "/run/secrets/db_password"]);

    let option = "file.db_password=local://app/db#password";
    assert_eq!(read(&plugin.mount(&one, "/run/secrets", &[option])), Ok("first".into()));
    assert_eq!(read(&plugin.mount("", "/run/secrets", &[option])), Ok("first".into()));

    let engine = plugin.engine();
    engine.docker(&["volume", "create", "--driver", &plugin.driver(), "--opt", option, &create]);
    assert_eq!(read(&format!("type=volume,source={create},dst=/run/secrets")), Ok("first".into()));

    let (driver, from) = (plugin.driver(), "from=local://app/db");
    engine.docker(&[
        "volume",
        "create",
        "-d",
        &driver,
        "-o",
        from,
        "-o",
        "template.dir/env=U={{ secret('local://app/db#user') }}",
        &old,
    ]);
    let volume = format!("{old}:/s");
    let words = ["--volume", &volume, SCRATCH, "cat", "/s/password", "/s/user", "/s/dir/env"];
    assert_eq!(run(&plugin, &words), Ok("firstsomeoneU=someone".into()));

    // Nothing is kept from one container to the next.
    store.set("app/db#password", "second");
    assert_eq!(read(&plugin.mount(&one, "/run/secrets", &[])), Ok("second".into()));
    assert_eq!(plugin.status(&one)["mounts"], 0);
}

#[test]
fn an_image_that_has_the_directory_sees_the_volume_in_its_place() {
    // Docker mounts, unmounts and mounts again for such an image.
    let (plugin, _store) = plugin_with(&[("a", "value")]);
    let volume = plugin.named("volume");
    let mount = plugin.mount(&volume, "/mnt", &["file.x/y=local://a"]);
    let words = ["--detach", "--network=none", "--mount", &mount, BUSYBOX, "sleep", "1000"];
    let container = plugin.engine().docker(&[&["run"][..], &words].concat());
    assert_eq!(plugin.engine().docker(&["exec", &container, "cat", "/mnt/x/y"]), "value");
    assert_eq!(plugin.status(&volume)["mounts"], 1, "one container, counted once");
    // The volume was taken down and made again between the two mounts, so there is one generation in it.
    let listed = plugin.engine().docker(&["exec", &container, "ls", "-A", "/mnt"]);
    let generation = format!("..{}", plugin.status(&volume)["generation"]);
    assert_eq!(listed, format!("{generation}\n..data\nx"));
}

#[test]
fn a_user_who_is_not_root_reads_what_modes_and_owners_let_it() {
    let (plugin, _store) = plugin_with(&[("a", "value")]);
    let read = |user: &str, options: &[&str]| {
        let mount = plugin.mount("", "/s", &[&["file.f=local://a"], options].concat());
        run(&plugin, &["--user", user, "--mount", &mount, SCRATCH, "cat", "/s/f"])
    };
    assert_eq!(read("1000:1000", &[]), Ok("value".into()));
    assert_eq!(read("1000:1000", &["mode=0400", "uid=1000"]), Ok("value".into()));
    assert_eq!(read("1001:1000", &["mode.f=0440", "gid.f=1000"]), Ok("value".into()));
    for (user, options) in [("1001:1001", ["mode=0400", "uid=1000"]), ("1000:1001", ["mode.f=0440", "gid.f=1000"])] {
        let said = read(user, &options).unwrap_err();
        assert!(said.contains("/s/f: Permission denied"), "{said}");
    }
}

#[test]
fn a_compose_project_comes_up_twice_and_its_value_changes_under_it() {
    let (plugin, store) = plugin_with(&[("app#password", "first")]);
    let file = format!(
        "services:\n  app:\n    image: {SCRATCH}\n    command: [watch, /run/secrets/password, '600']\n    network_mode: none\n    \
         stop_grace_period: 0s\n    volumes: ['secrets:/run/secrets']\nvolumes:\n  secrets:\n    driver: {}\n    \
         driver_opts:\n      from: local://app\n",
        plugin.driver()
    );
    let compose = Compose::new(plugin.engine(), &file);
    compose.run(&["up", "--detach"]);
    let container = compose.run(&["ps", "--quiet", "app"]);
    wait_for("the first value", SOON, || plugin.engine().docker(&["logs", &container]) == "first");
    compose.run(&["up", "--detach"]);
    assert_eq!(compose.run(&["ps", "--quiet", "app"]), container, "the second `up` left it alone");
    store.set("app#password", "second");
    wait_for("the second value", SOON, || plugin.engine().docker(&["logs", &container]) == "first\nsecond");
    let volume = format!("{}_secrets", compose.project());
    assert_eq!(plugin.status(&volume)["versions"]["password"], "2");
    compose.run(&["down", "--volumes", "--timeout", "0"]);
    plugin.engine().docker_fails(&["volume", "inspect", &volume]);
    plugin.engine().docker(&["plugin", "disable", &plugin.driver()]);
}
