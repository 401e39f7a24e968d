//! `secret set|get|ls|rm|rotate-key`.

use super::{Host, mode};
use std::{
    fs,
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
};

const CANARY: &str = "correct-horse-battery-staple-4711";

#[test]
fn values_come_back_byte_for_byte() {
    let host = Host::new();
    let binary: Vec<u8> = (0..=255).collect();
    let large: Vec<u8> = (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (name, value) in [
        ("plain", &b"hunter2"[..]),
        ("with/folders/in.it", b"x"),
        ("größe/ключ", "пароль ✓".as_bytes()),
        ("binary", &binary),
        ("newline", b"line\n"),
        ("only-newline", b"\n"),
        ("crlf", b"a\r\n"),
        ("large", &large),
    ] {
        host.ok(&format!("secret set {name}"), value);
        assert!(host.ok(&format!("secret get {name}"), b"") == value, "{name}");
    }
    assert_eq!(host.text("secret get local://plain"), "hunter2");
}

#[test]
fn a_line_end_is_kept_and_told_of_or_trimmed() {
    let host = Host::new();
    host.ok("secret set first", b"x");
    let ran = host.run("secret set a", b"pw\n");
    assert_eq!(ran.err, "Note: the value ends with a line end, which is now part of it (`--trim` drops it).\n");
    assert_eq!(ran.out, b"local://a version 2\n");
    for (given, kept) in [("pw\n", "pw"), ("pw\r\n", "pw"), ("pw\n\n", "pw\n"), ("pw", "pw")] {
        host.ok("secret set -n a", given.as_bytes());
        assert_eq!(host.text("secret get a"), kept);
    }
}

#[test]
fn an_empty_value_is_refused_unless_it_is_meant() {
    let host = Host::new();
    let message = "Error: the value is empty; nothing was changed (`--allow-empty` if it is meant)";
    host.fails("secret set a", b"", 1, message);
    host.fails("secret set a --trim", b"\n", 1, message);
    assert!(!host.config_dir().exists());
    host.ok("secret set a --allow-empty", b"");
    assert_eq!(host.text("secret get a"), "");
}

#[test]
fn a_value_over_the_limit_is_refused_and_changes_nothing() {
    let host = Host::new();
    let ran = host.run("secret set a", &vec![b'x'; (16 << 20) + 1]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.err, "Error: `local://a` would be 16777217 bytes, and dso takes at most 16777216\n");
    assert!(!host.config_dir().exists());
}

#[test]
fn one_field_of_an_object_is_set_and_the_others_stay() {
    let host = Host::new();
    assert_eq!(host.ok("secret set app/db#user", b"app"), b"local://app/db#user version 1\n");
    host.ok("secret set app/db#password", b"a\"b\n");
    host.ok("secret set app/db#user", b"other");
    assert_eq!(host.text("secret get app/db"), r#"{"password":"a\"b\n","user":"other"}"#);
    assert_eq!(host.text("secret get app/db#password"), "a\"b\n");
    assert_eq!(host.text("secret get app/db#/user"), "other");
    host.fails(
        "secret get app/db#pass",
        b"",
        1,
        "Error: `app/db`: the secret has no field `pass`; it has `password`, `user`",
    );
    host.ok("secret set plain", b"text");
    host.fails(
        "secret set plain#x",
        b"y",
        1,
        "Error: cannot set `local://plain#x`: the secret is not a JSON object; set it whole, or remove it first",
    );
    host.fails(
        "secret set app/db#bin",
        b"\xff",
        1,
        "Error: cannot set `local://app/db#bin`: the value is not text (UTF-8), which a field of a JSON object must be; \
         set it as a secret of its own",
    );
    host.fails(
        "secret set app/db#/a/b",
        b"y",
        1,
        "Error: a field is set by its name; a JSON Pointer only reads: set the whole secret instead",
    );
}

#[test]
fn a_value_among_the_arguments_is_refused_and_not_repeated() {
    let host = Host::new();
    let name = |name| {
        format!(
            "Error: a value is never an argument: `ps` and the shell's history would show it. If it was a real one, \
             change it. Run `docker dso secret set {name}` and type the value, or give it on stdin"
        )
    };
    host.fails(&format!("secret set app {CANARY}"), b"x", 2, &name("app"));
    host.fails(&format!("secret set app two words {CANARY}"), b"x", 2, &name("app"));
    let equals = name("app").replace("a value is", "a secret's name cannot have a `=` here, and a value is");
    host.fails(&format!("secret set app={CANARY}"), b"x", 2, &equals);
    for line in ["secret set app --value", "secret set app --", "secret set app --value=", "secret set -n app -x"] {
        let ran = host.run(&format!("{line}{CANARY}"), b"x");
        assert_eq!(ran.code, Some(2), "{line}");
        assert!(!ran.err.contains("horse") && ran.err.contains("stdin"), "{line}: {}", ran.err);
    }
    assert!(!host.config_dir().exists());
}

#[test]
fn names_that_are_no_reference_are_refused() {
    let host = Host::new();
    for (name, fault) in [
        ("a/../b", "`..`, `.` and empty segments are not allowed in the secret's path"),
        ("/a", "`..`, `.` and empty segments are not allowed in the secret's path"),
        ("a?version", "parameter `version` must be written <name>=<value>"),
        ("a#", "the field after `#` is empty"),
        ("vault://a", "is of another provider; this is `local`"),
    ] {
        for command in ["set", "get", "rm"] {
            host.fails(&format!("secret {command} {name}"), b"x", 2, &format!("Error: `{name}`: {fault}"));
        }
    }
    host.fails(
        "secret get a?version=1",
        b"",
        2,
        "Error: `a?version=1`: has parameters, and the local store knows none",
    );
    host.fails("secret rm a#f", b"", 2, "Error: `a#f`: rm removes whole secrets, not fields");
}

#[test]
fn a_list_shows_everything_but_values() {
    let host = Host::new();
    let ran = host.run("secret ls", b"");
    let note =
        "Note: there is no local store at `DIR/local.age` yet: make it on the host with `docker dso secret set NAME`\n";
    assert_eq!(ran.err, note.replace("DIR", host.config_dir().to_str().unwrap()));
    assert_eq!((ran.code, &*ran.out), (Some(0), &b"NAME   VERSION   UPDATED                    SIZE\n"[..]));

    host.ok("secret set long/name", b"12345");
    host.ok("secret set b", CANARY.as_bytes());
    let table = host.text("secret ls");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "VERSION", "UPDATED", "SIZE"]);
    assert_eq!((rows[1][0], rows[1][1], rows[1][3]), ("b", "2", "33"));
    assert_eq!((rows[2][0], rows[2][1], rows[2][3]), ("long/name", "1", "5"));
    assert!(humantime::parse_rfc3339(rows[1][2]).is_ok(), "{}", rows[1][2]);
    assert_eq!(host.text("secret ls -q"), "b\nlong/name\n");
    let json = host.text("secret ls --format json");
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((&first["Name"], &first["Version"], &first["Size"]), (&"b".into(), &"2".into(), &33.into()));
    assert!(!table.contains("horse") && !json.contains("horse"));
}

#[test]
fn removing_tells_what_was_not_there_and_removes_the_rest() {
    let host = Host::new();
    host.ok("secret set app/one", b"1");
    host.ok("secret set app/two", b"2");
    let ran = host.run("secret rm app/one app/tow app/two", b"");
    assert_eq!((ran.code, &*ran.out), (Some(1), &b"app/one\napp/two\n"[..]));
    assert_eq!(ran.err, "Error: the local store has no secret `app/tow`: did you mean `app/two`?\n");
    assert_eq!(host.text("secret ls -q"), "");
    host.fails(
        "secret get app/one",
        b"",
        1,
        "Error: the local store has no secret `app/one`: set it with `docker dso secret set app/one`",
    );
    assert_eq!(host.ok("secret set app/one", b"1"), b"local://app/one version 5\n");
}

#[test]
fn files_and_folder_are_the_owners_alone_and_the_store_keeps_its_owner() {
    let host = Host::new();
    let ran = host.run("secret set a", b"1");
    let made = "Made the store `DIR/local.age` and its identity `DIR/identity`: keep a copy of both.\n";
    assert_eq!(ran.err, made.replace("DIR", host.config_dir().to_str().unwrap()));
    assert_eq!(mode(&host.config_dir()), 0o700);
    for name in ["local.age", "identity", "local.age.lock"] {
        assert_eq!(mode(&host.file(name)), 0o600, "{name}");
    }
    let owner = |name: &str| fs::metadata(host.file(name)).map(|meta| (meta.uid(), meta.gid())).unwrap();
    // As root, one that it has not by itself; otherwise the only one that it can have.
    let (uid, gid) = if owner("local.age").0 == 0 { (1234, 1235) } else { owner("local.age") };
    chown(host.file("local.age"), Some(uid), Some(gid)).unwrap();
    host.ok("secret set a", b"2");
    assert_eq!(owner("local.age"), (uid, gid));
    assert_eq!(mode(&host.file("local.age")), 0o600);
    let mut names: Vec<_> = fs::read_dir(host.config_dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["identity", "local.age", "local.age.lock"]);
}

#[test]
fn a_store_that_is_a_link_stays_one() {
    let host = Host::new();
    host.ok("secret set a", b"1");
    fs::create_dir(host.file("kept")).unwrap();
    fs::rename(host.file("local.age"), host.file("kept/store")).unwrap();
    symlink("kept/store", host.file("local.age")).unwrap();
    host.ok("secret set a", b"2");
    assert!(fs::symlink_metadata(host.file("local.age")).unwrap().is_symlink());
    assert_eq!(host.text("secret get a"), "2");
}

#[test]
fn no_value_is_in_the_store_or_in_any_message() {
    let host = Host::new();
    let mut said = String::new();
    for line in
        ["secret set a", "secret set a#f", "secret set b#f", "secret set b", "secret get nope", "secret rm nope"]
    {
        said += &host.run(line, format!("{CANARY}\n").as_bytes()).err;
    }
    assert!(said.contains("Error") && !said.contains("horse"), "{said}");
    for name in ["local.age", "identity"] {
        let bytes = fs::read(host.file(name)).unwrap();
        for part in ["horse", "Y29ycmVjdC1ob3JzZ", "app/db"] {
            assert!(!bytes.windows(part.len()).any(|window| window == part.as_bytes()), "{name}: {part}");
        }
    }
    assert!(host.text("secret get b").contains("horse"));
}

#[test]
fn what_is_wrong_with_the_files_is_said_exactly_and_nothing_is_overwritten() {
    let host = Host::new();
    host.ok("secret set a", CANARY.as_bytes());
    let (store, identity) = (host.file("local.age"), host.file("identity"));
    let (sealed, key) = (fs::read(&store).unwrap(), fs::read(&identity).unwrap());
    let both = |message: &str| {
        let before = fs::read(&store).unwrap();
        host.fails("secret get a", b"", 1, message);
        host.fails("secret set a", b"new", 1, message);
        host.fails("secret rm a", b"", 1, message);
        assert!(fs::read(&store).unwrap() == before, "{message}");
    };
    let damaged = "Error: the local store `DIR/local.age` is damaged or cut short: restore it from a backup";
    fs::write(&store, &sealed[..sealed.len() - 10]).unwrap();
    both(damaged);
    fs::write(&store, "garbage").unwrap();
    both(damaged);
    fs::write(&store, "").unwrap();
    both(
        "Error: the local store `DIR/local.age` is an empty file, as a full disk or a broken copy leaves it: restore it \
         from a backup, or remove it and set every secret again",
    );
    fs::write(&store, &sealed).unwrap();

    fs::set_permissions(&identity, fs::Permissions::from_mode(0o640)).unwrap();
    both(
        "Error: the identity file `DIR/identity` is open to other users (mode 0640): run `chmod 600 DIR/identity`; \
         whoever read it can read every secret of the store",
    );
    fs::remove_file(&identity).unwrap();
    both(
        "Error: the identity file `DIR/identity` is missing, and nothing else opens the local store: restore it from a \
         backup, or move the store away and set every secret again",
    );
    assert!(!identity.exists(), "a new identity would hide the loss");

    let other = Host::new();
    other.ok("secret set a", b"x");
    fs::copy(other.file("identity"), &identity).unwrap();
    both(
        "Error: the identity in `DIR/identity` does not open the store `DIR/local.age`: they do not belong together; \
         restore the one that was replaced",
    );
    fs::write(&identity, key).unwrap();
    assert_eq!(host.text("secret get a"), CANARY);
}

#[test]
fn dso_toml_names_stores_and_its_faults_are_told_without_its_lines() {
    let host = Host::new();
    fs::create_dir(host.config_dir()).unwrap();
    let toml = "refresh = '30s'\n[provider.local]\ntype = 'local'\nstore = '/etc/dso/main.age'\n\
                [provider.second]\ntype = 'local'\nstore = '/etc/dso/deep/er/second.age'\n[provider.vault]\ntype = 'vault'";
    fs::write(host.file("dso.toml"), toml).unwrap();
    host.ok("secret set a", b"1");
    assert_eq!(host.ok("secret set --provider second a", b"2"), b"second://a version 1\n");
    assert_eq!(host.text("secret get a"), "1");
    assert_eq!(host.text("secret --provider second get second://a"), "2");
    assert!(host.file("main.age").exists() && host.file("deep/er/second.age").exists());
    assert_eq!(mode(&host.file("deep")), 0o700);

    let vault = "Error: DIR/dso.toml: [provider.vault] is not of type \"local\"";
    host.fails("secret ls --provider vault", b"", 1, vault);
    host.fails("secret ls --provider nope", b"", 1, "Error: DIR/dso.toml: there is no [provider.nope]");
    fs::write(host.file("dso.toml"), "[provider.local]\ntype = 'local'\nstor = '/etc/dso/x'").unwrap();
    let typo = "Error: DIR/dso.toml: [provider.local]: unknown key `stor`: did you mean `store`?";
    host.fails("secret ls", b"", 1, typo);
    fs::write(host.file("dso.toml"), format!("a = 1\npassword = {CANARY}")).unwrap();
    let ran = host.run("secret ls", b"");
    assert!(ran.err.contains("dso.toml: line 2: ") && !ran.err.contains("horse"), "{}", ran.err);
}

#[test]
fn a_reader_that_goes_away_is_no_fault() {
    let host = Host::new();
    host.ok("secret set a", &vec![b'x'; 1 << 20]);
    let mut child = host.command(&["secret", "get", "a"]).spawn().unwrap();
    let mut some = [0; 10];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut some).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
}

#[test]
fn a_new_key_is_made_and_told_of_and_never_takes_the_key_of_another_store() {
    let host = Host::new();
    host.ok("secret set app", CANARY.as_bytes());
    let files = || ["identity", "local.age"].map(|file| fs::read(host.file(file)).unwrap());
    let before = files();
    let ran = host.run("secret rotate-key", b"");
    assert_eq!(ran.out, format!("{} has a new key\n", host.file("local.age").display()).into_bytes());
    assert!(ran.err.starts_with(&format!("Keep a copy of `{}`", host.file("identity").display())), "{}", ran.err);
    let after = files();
    assert!(before[0] != after[0] && before[1] != after[1]);
    assert_eq!(host.text("secret get app"), CANARY);

    let other = "[provider.other]\ntype = 'local'\nstore = '/etc/dso/other.age'\n";
    fs::write(host.file("dso.toml"), other).unwrap();
    host.ok("secret set --provider other app", b"theirs");
    for of in ["local", "other"] {
        let ran = host.run(&format!("secret rotate-key --provider {of}"), b"");
        assert!(ran.code == Some(1) && ran.err.contains("has the same identity file"), "{}", ran.err);
    }
    assert_eq!(files(), after);
    fs::write(host.file("dso.toml"), format!("{other}identity_file = '/etc/dso/other-identity'\n")).unwrap();
    fs::copy(host.file("identity"), host.file("other-identity")).unwrap();
    host.ok("secret rotate-key", b"");
    assert_eq!(host.text("secret get --provider other app"), "theirs");
}
