//! What cannot be done is told with what to do.

use super::world::Desk;
use crate::support::{engine::Engine, own_engine::OwnEngine, plugin::Plugin};

/// What `docker dso …` says when it fails.
#[track_caller]
fn fails(engine: &Engine, words: &[&str], code: i32) -> String {
    let output = engine.command().arg("dso").args(words).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{err}");
    assert_eq!(output.stdout, b"", "{err}");
    err.trim_end().to_owned()
}

#[test]
fn an_engine_without_the_plugin_or_with_a_disabled_one() {
    let own = OwnEngine::start();
    let at = format!("at unix://{}", own.socket().display());
    assert_eq!(
        fails(&own, &["ls"], 1),
        format!(
            "Error: the engine {at} has no dso plugin: install it (`docker plugin install`, or `make plugin` in its work tree)"
        )
    );
    let plugin = Plugin::on(&own).create();
    let name = plugin.driver();
    let disabled = format!("Error: the plugin `{name}` is disabled: `docker plugin enable {name}`");
    for words in [&["ls"][..], &["events"], &["check", "-o", "from=local://a"]] {
        assert_eq!(fails(&own, words, 1), disabled, "{words:?}");
    }
    plugin.enable();
    let short = name.trim_end_matches(":latest");
    for words in [&["ls", "-q"][..], &["--plugin", &name, "ls", "-q"], &["--plugin", short, "ls", "-q"]] {
        assert_eq!(own.docker(&[&["dso"], words].concat()), "");
    }
    assert_eq!(
        fails(&own, &["--plugin", "other", "ls"], 1),
        format!("Error: there is no dso plugin `other`: there is `{name}`")
    );
    // With a second one, whatever no volume tells has to be said.
    let second = Plugin::on(&own).start();
    let mut names = [name.clone(), second.driver()];
    names.sort();
    let several =
        format!("Error: there are several dso plugins, `{}`, `{}`: say which by --plugin", names[0], names[1]);
    assert_eq!(fails(&own, &["events"], 2), several);
    assert_eq!(own.docker(&["dso", "--plugin", &name, "events"]), "");
    own.docker(&["volume", "create", "--driver", &second.driver(), "--opt", "from=local://a", "v"]);
    let fields = ["dso", "ls", "--format", "{{.Name}} {{.Driver}}"];
    assert_eq!(own.docker(&fields), format!("v {}", second.driver()));
    assert_eq!(own.docker(&["dso", "--plugin", &name, "ls", "-q"]), "");
    assert_eq!(own.docker(&["dso", "refresh", "v"]), "v");
}

#[test]
fn no_engine_no_such_volume_and_one_of_another_driver() {
    let desk = Desk::start("");
    desk.create("app-secrets", &["from=local://app"]);
    let other = desk.plugin.named("local");
    desk.engine().docker(&["volume", "create", &other]);
    let fails = |words: &[&str]| {
        let ran = desk.dso(words);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        ran.err
    };
    for command in ["inspect", "refresh"] {
        assert_eq!(
            fails(&[command, &desk.plugin.named("app-secret")]),
            "Error: there is no volume `T-app-secret`: did you mean `T-app-secrets`?"
        );
        assert_eq!(
            fails(&[command, "zzz/.."]),
            "Error: there is no volume `zzz/..`: `docker dso ls` lists those of dso"
        );
        assert_eq!(
            fails(&[command, &other]),
            "Error: volume `T-local` is of driver `local`, and not of dso (`T:latest`): `docker volume inspect T-local` shows it"
        );
    }
    let mut command = desk.engine().command();
    let output = command.env("DOCKER_HOST", "unix:///nowhere.sock").args(["dso", "ls"]).output().unwrap();
    let ran = desk.ran(output);
    let fault = "Error: no engine answers at unix:///nowhere.sock (No such file or directory (os error 2)): start it, or name another by \
                 `docker --context`, `docker --host` or DOCKER_HOST";
    assert_eq!((ran.code, &*ran.err), (Some(1), fault));
}
