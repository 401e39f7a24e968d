//! That no container alters what it and its neighbours read, and what kind of mount it reads from.

use crate::support::{BUSYBOX, engine::Engine, local::LocalSecrets, plugin::Plugin};
use std::{collections::BTreeSet, fs, path::Path};

/// What root in a container tries, and what it is told.
const ATTEMPTS: [(&str, &str); 16] = [
    ("echo x >/s/f", "Read-only file system"),
    ("echo x >>/s/..data/f", "Read-only file system"),
    ("echo x >/s/new", "Read-only file system"),
    ("touch /s/..data/f", "Read-only file system"),
    ("mkdir /s/new", "Read-only file system"),
    ("rm -f /s/f", "Read-only file system"),
    ("rm -rf /s/..data/", "Read-only file system"),
    ("mv /s/f /s/g", "Read-only file system"),
    ("mv -T /s/..data /s/..old", "Read-only file system"),
    ("ln -s /tmp /s/link", "Read-only file system"),
    ("chmod 0777 /s/..data/f", "Read-only file system"),
    ("chown 1000 /s/..data/f", "Read-only file system"),
    ("truncate -s 0 /s/..data/f", "Read-only file system"),
    ("mount -o remount,rw /s", "Operation not permitted"),
    ("mount -o remount,bind,rw /s", "Operation not permitted"),
    ("umount /s", "Operation not permitted"),
];

#[test]
fn root_in_a_container_that_mounted_the_volume_writable_alters_nothing() {
    let plugin = Plugin::on(&Engine::system()).start();
    LocalSecrets::in_dir(&plugin.config_dir()).set("a", "value");
    let (engine, volume) = (plugin.engine(), plugin.named("volume"));
    let mount = plugin.mount(&volume, "/s", &["file.f=local://a", "mode=0666"]);
    let words = ["run", "--detach", "--network=none", "--user=0", "--mount", &mount, BUSYBOX, "sleep", "1000"];
    let container = engine.docker(&words);
    assert_eq!(engine.json(&["inspect", &container], "(index .Mounts 0).RW"), true, "as Docker sees it");
    let before = tree(&plugin.shown(&volume));

    // All in one process, and each to the end: the fault of one must not hide that another succeeds.
    let script: String = ATTEMPTS.map(|(attempt, _)| format!("( {attempt} ) 2>&1 && echo SUCCEEDED; echo; ")).concat();
    let said = engine.docker(&["exec", &container, "sh", "-c", &script]);
    let answers: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(answers.len(), ATTEMPTS.len(), "{said}");
    for ((attempt, told), answer) in ATTEMPTS.into_iter().zip(&answers) {
        let refused = answer.to_lowercase().contains(&told.to_lowercase())
            || (told == "Operation not permitted" && answer.contains("ermission denied"));
        assert!(refused, "`{attempt}` was answered with: {answer}");
    }
    assert_eq!(tree(&plugin.shown(&volume)), before);

    // Docker itself is root on the host, and writes through the same mount.
    let file = plugin.folder().join("file");
    fs::write(&file, "from outside").unwrap();
    let said = engine.docker_fails(&["cp", file.to_str().unwrap(), &format!("{container}:/s/new")]);
    assert!(said.contains("read-only"), "{said}");
    assert_eq!(tree(&plugin.shown(&volume)), before);
    assert!(fs::write(plugin.shown(&volume).join("f"), "from the host").is_err());
    assert_eq!(plugin.status(&volume)["mounts"], 1);
}

/// Names, kinds, modes, owners, sizes, times and contents.
fn tree(dir: &Path) -> Vec<String> {
    let output = std::process::Command::new("find")
        .arg(dir)
        .args(["-printf", "%P %y %m %U %G %s %T@ %C@ %l\n", "-type", "f", "-exec", "cat", "{}", ";", "-printf", "\n"])
        .output()
        .unwrap();
    let mut lines: Vec<_> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    assert!(lines.contains(&"value".to_owned()), "{lines:?}");
    lines
}

#[test]
fn the_mount_is_a_bounded_tmpfs_that_is_never_swapped_and_runs_nothing() {
    let plugin = Plugin::on(&Engine::system()).start();
    LocalSecrets::in_dir(&plugin.config_dir()).set("a", "value");
    let volume = plugin.named("volume");
    let shown = |options: &[&str]| {
        let mount = plugin.mount(&volume, "/s", &[&["file.f=local://a"], options].concat());
        let words = ["run", "--rm", "--network=none", "--mount", &mount, BUSYBOX, "cat", "/proc/self/mountinfo"];
        let mounts = plugin.engine().docker(&words);
        plugin.engine().docker(&["volume", "rm", &volume]);
        let line = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/s")).unwrap().to_owned();
        let (mount, file_system) = line.split_once(" - ").unwrap();
        let mut mount: Vec<_> = mount.split(' ').nth(5).unwrap().split(',').map(str::to_owned).collect();
        mount.retain(|option| !option.ends_with("atime"));
        let options = file_system.split(' ').nth(2).unwrap().split(',').map(str::to_owned);
        (mount, file_system.split(' ').next().unwrap().to_owned(), options.collect::<Vec<_>>())
    };
    for (options, size) in [(&[][..], "size=1024k"), (&["size=3m"], "size=3072k")] {
        let (mount, kind, file_system) = shown(options);
        assert_eq!(mount, ["ro", "nosuid", "nodev", "noexec"]);
        assert_eq!(kind, "tmpfs");
        for expected in [size, "noswap", "mode=755"] {
            assert!(file_system.iter().any(|option| option == expected), "{expected} in {file_system:?}");
        }
    }
}

/// The writable mount stays with the plugin: on the host there is the one that containers copy, and it is read-only.
#[test]
fn the_host_sees_one_read_only_mount_as_long_as_a_container_has_it() {
    let plugin = Plugin::on(&Engine::system()).start();
    LocalSecrets::in_dir(&plugin.config_dir()).set("a", "value");
    let (engine, volume) = (plugin.engine(), plugin.named("volume"));
    let on_host = || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let lines = mounts.lines().filter(|line| line.contains(&volume)).map(|line| {
            let mut fields = line.split(' ').skip(4);
            (fields.next().unwrap().to_owned(), fields.next().unwrap().split(',').next().unwrap().to_owned())
        });
        // Where the data root itself is a shared mount, the kernel lists the same place twice.
        lines.collect::<BTreeSet<_>>()
    };
    let mount = plugin.mount(&volume, "/s", &["file.f=local://a"]);
    let words = ["run", "--detach", "--network=none", "--mount", &mount, BUSYBOX, "sleep", "1000"];
    let container = engine.docker(&words);
    assert_eq!(on_host(), [(plugin.shown(&volume).to_str().unwrap().to_owned(), "ro".to_owned())].into());
    engine.docker(&["rm", "--force", &container]);
    assert_eq!(on_host(), [].into());
}
