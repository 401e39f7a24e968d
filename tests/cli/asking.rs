//! What asks no engine, or finds none: completion, pages, formats, and who is to blame.

use super::{Host, words};
use std::{
    fs,
    process::{Command, Stdio},
};

/// As a person runs it who has no engine.
fn run(line: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_docker-dso"));
    command.env("DOCKER_HOST", "unix:///nowhere.sock").args(words(line)).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn shells_are_given_scripts_that_they_understand() {
    for (shell, check) in [("bash", "bash"), ("zsh", "zsh"), ("fish", "fish")] {
        let (code, script, _) = run(&format!("completion {shell}"));
        assert!(code == Some(0) && script.contains("docker-dso") && script.contains("refresh"), "{script}");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("script");
        fs::write(&file, &script).unwrap();
        // Where the shell is not installed, nobody can say.
        if let Ok(output) = Command::new(check).arg("-n").arg(&file).output() {
            assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    assert_eq!(run("completion tcsh").0, Some(2));
}

#[test]
fn bash_completes_the_programs_own_name() {
    let script = "source <(\"$DSO\" completion bash); COMP_WORDS=(docker-dso insp); COMP_CWORD=1; _docker__dso docker-dso insp docker-dso; \
                  echo \"${COMPREPLY[@]}\"";
    let output =
        Command::new("bash").env("DSO", env!("CARGO_BIN_EXE_docker-dso")).args(["-c", script]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "inspect",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn docker_completes_commands_options_and_values() {
    for (line, offered) in [
        ("__complete dso insp", "inspect\tShow all that is known of volumes\n:4\n"),
        ("__completeNoDesc dso insp", "inspect\n:4\n"),
        ("__completeNoDesc dso ls --q", "--quiet\n:4\n"),
        ("__completeNoDesc dso completion z", "zsh\n:4\n"),
        // Without an engine there are no names, and no error in the middle of a line.
        ("__completeNoDesc dso inspect x", ":4\n"),
        ("__completeNoDesc dso check -f x", ":0\n"),
    ] {
        assert_eq!(run(line), (Some(0), offered.into(), String::new()), "{line}");
    }
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("man1");
    assert_eq!(run(&format!("man {}", folder.display())).0, Some(0));
    let mut pages: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|page| page.unwrap().file_name().into_string().unwrap()).collect();
    pages.sort();
    for page in ["docker-dso.1", "docker-dso-ls.1", "docker-dso-refresh.1", "docker-dso-secret-set.1"] {
        assert!(pages.iter().any(|name| name == page), "{page} in {pages:?}");
    }
    let page = fs::read_to_string(folder.join("docker-dso-refresh.1")).unwrap();
    assert!(page.contains("\\-\\-wait") && page.contains("docker"), "{page}");
    assert_eq!(
        run("man /proc/nothing").2,
        "Error: cannot write `/proc/nothing`: No such file or directory (os error 2)\n"
    );
}

#[test]
fn formats_are_looked_at_before_an_engine_is() {
    for (line, fault) in [
        ("ls --format {{.Stat}}", "Error: --format: unknown field `Stat`: did you mean `State`?\n"),
        ("inspect --format {{.Nothing}} v", "Error: --format: unknown field `Nothing`: known are `Name`, `Driver`"),
        ("events --format table", "Error: --format: events are no table"),
        ("check -o from", "Error: `from` is no option: write KEY=VALUE"),
        ("refresh", "Error: the following required arguments were not provided"),
        ("check -o from=a -f b", "Error: the argument '--opt <KEY=VALUE>' cannot be used with"),
    ] {
        let (code, out, err) = run(line);
        assert!(code == Some(2) && out.is_empty() && err.starts_with(fault), "{line}: {err}");
    }
}

#[test]
fn without_an_engine_every_command_says_so_and_the_version_of_this_one_is_told_all_the_same() {
    let fault = "Error: no engine answers at unix:///nowhere.sock (No such file or directory (os error 2)): start it, or name another by \
                 `docker --context`, `docker --host` or DOCKER_HOST\n";
    for line in
        ["ls", "ls -q", "inspect v", "refresh v", "refresh --wait v", "events", "events -f", "check -o from=local://a"]
    {
        assert_eq!(run(line), (Some(1), String::new(), fault.into()), "{line}");
    }
    let version = format!("Client:\n Version:  {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run("version"), (Some(1), version, fault.into()));
}

#[test]
fn dockers_own_options_go_before_the_environment() {
    let (code, _, err) = run("--host unix:///elsewhere.sock dso ls");
    assert!(code == Some(1) && err.contains("at unix:///elsewhere.sock"), "{err}");
    let (code, _, err) = run("--context nothing dso ls");
    assert!(
        code == Some(1)
            && err.starts_with("Error: the engine of context nothing is out of reach: ")
            && err.contains("not found"),
        "{err}"
    );
    // Without `docker`, there is nobody who would reach another host.
    let mut command = Command::new(env!("CARGO_BIN_EXE_docker-dso"));
    let output =
        command.env_clear().env("PATH", "/nowhere").env("DOCKER_HOST", "ssh://far").arg("ls").output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        err,
        "Error: the engine at ssh://far is out of reach: cannot run `docker`: No such file or directory (os error 2)\n"
    );
}

#[test]
fn a_store_needs_no_engine() {
    let host = Host::new();
    host.ok("secret set a", b"1");
    let mut command = host.command(&words("secret get a"));
    assert_eq!(command.env("DOCKER_HOST", "unix:///nowhere.sock").output().unwrap().stdout, b"1");
}
