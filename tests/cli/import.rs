//! `docker dso import` on projects such as people have, with the real Compose to say what they mean.

use super::{Host, Ran, mode, pty::Session, words};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

const COMPOSE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/world/docker/cli-plugins/docker-compose");
const PROJECTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/projects");

/// A copy of a project, and a host to import it on.
struct Project {
    host: Host,
    folder: PathBuf,
    file: PathBuf,
    before: String,
}

impl Project {
    fn copy(name: &str) -> Self {
        let host = Host::new();
        let folder = host.dir.path().join(name);
        fs::create_dir(&folder).unwrap();
        for entry in fs::read_dir(Path::new(PROJECTS).join(name)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
        let file = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let file = file.into_iter().find(|path| path.extension().is_some_and(|e| e == "yaml" || e == "yml")).unwrap();
        let before = fs::read_to_string(&file).unwrap();
        Self { host, folder, file, before }
    }

    /// A project of one file.
    fn of(text: &str) -> Self {
        let host = Host::new();
        let folder = host.dir.path().join("app");
        fs::create_dir(&folder).unwrap();
        let file = folder.join("compose.yaml");
        fs::write(&file, text).unwrap();
        Self { host, folder, file, before: text.into() }
    }

    fn import(&self, more: &str) -> Ran {
        self.host.run(&format!("import {} {more}", self.file.display()), b"")
    }

    fn imported(&self) -> String {
        let ran = self.import("--yes");
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let said = format!("{}{}", ran.err, String::from_utf8_lossy(&ran.out));
        assert!(!said.to_uppercase().contains("CANARY"), "{said}");
        fs::read_to_string(&self.file).unwrap()
    }

    /// What Compose makes of the file, with all variables in.
    fn config(&self) -> Value {
        let mut command = Command::new(COMPOSE);
        command.args(["-f", self.file.to_str().unwrap(), "config", "--format", "json"]).current_dir(&self.folder);
        let output = command.output().unwrap_or_else(|error| panic!("{COMPOSE}: {error}: run tests/support/world.sh"));
        let shown = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{shown}\n{}", fs::read_to_string(&self.file).unwrap());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn stored(&self, reference: &str) -> String {
        self.host.text(&format!("secret get {reference}"))
    }
}

/// Service → file → reference, by the volumes that the services mount.
fn served(config: &Value, folder: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (name, service) in config["services"].as_object().unwrap() {
        let mounts = service["volumes"].as_array().cloned().unwrap_or_default();
        let Some(mount) = mounts.iter().find(|mount| mount["target"] == folder) else { continue };
        assert_eq!(mount["read_only"], true, "{name}");
        let volume = &config["volumes"][mount["source"].as_str().unwrap()];
        assert_eq!(volume["driver"], "dso");
        let options = volume["driver_opts"].as_object().unwrap();
        let files = options.iter().filter_map(|(option, reference)| {
            Some((option.strip_prefix("file.")?.to_owned(), reference.as_str()?.to_owned()))
        });
        found.insert(name.clone(), files.collect());
    }
    found
}

/// The configuration without what an import changes.
fn rest(mut config: Value) -> Value {
    for service in config["services"].as_object_mut().unwrap().values_mut() {
        let service = service.as_object_mut().unwrap();
        ["environment", "secrets"].iter().for_each(|key| drop(service.remove(*key)));
        if let Some(volumes) = service.get_mut("volumes").and_then(Value::as_array_mut) {
            volumes.retain(|mount| !mount["source"].as_str().unwrap_or_default().ends_with("-secrets"));
            if volumes.is_empty() {
                service.remove("volumes");
            }
        }
    }
    let top = config.as_object_mut().unwrap();
    top.retain(|key, _| key != "secrets" && !key.starts_with("x-"));
    if let Some(volumes) = top.get_mut("volumes").and_then(Value::as_object_mut) {
        volumes.retain(|name, _| !name.ends_with("-secrets"));
        if volumes.is_empty() {
            top.remove("volumes");
        }
    }
    config
}

/// Each variable that became a file has there the value that Compose would have given; all others are as they were.
fn same_values(project: &Project, before: &Value, after: &Value, left_in_files: &[&str]) -> usize {
    let served = served(after, "/run/secrets");
    let mut moved = 0;
    for (name, service) in before["services"].as_object().unwrap() {
        let now = after["services"][name]["environment"].as_object().cloned().unwrap_or_default();
        for (variable, value) in service["environment"].as_object().cloned().unwrap_or_default() {
            let file = now.get(&format!("{variable}_FILE"));
            match file.and_then(Value::as_str) {
                Some(path) => {
                    let reference = &served[name][path.strip_prefix("/run/secrets/").unwrap()];
                    assert_eq!(project.stored(reference), value.as_str().unwrap(), "{name} {variable}");
                    assert!(!now.contains_key(&variable) || left_in_files.contains(&variable.as_str()), "{variable}");
                    moved += 1;
                }
                None => assert_eq!(now.get(&variable), Some(&value), "{name} {variable}"),
            }
        }
    }
    moved
}

/// Every comment is still there, and every line that the diff does not show, in its order.
fn nothing_else_changed(before: &str, after: &str, diff: &str) {
    let comments = |text: &str| {
        let comments = text.lines().filter_map(|line| {
            let at = line.match_indices('#').find(|(at, _)| *at == 0 || line[..*at].ends_with(' '))?.0;
            Some(line[at..].trim_end().to_owned())
        });
        comments.collect::<Vec<_>>()
    };
    let now = comments(after);
    for comment in comments(before) {
        assert!(now.contains(&comment), "{comment:?} is gone:\n{after}");
    }
    // A value of several lines is shown as one.
    let lines = |line: &str| line.split_once(" characters in ").map_or(1, |(_, rest)| rest[..1].parse().unwrap());
    let mut removed: usize = diff.lines().filter(|line| line.starts_with('-')).map(lines).sum();
    let mut new = after.split_inclusive('\n');
    for line in before.split_inclusive('\n') {
        let mut ahead = new.clone();
        match ahead.by_ref().any(|other| other == line) {
            true => new = ahead,
            false => {
                removed = removed
                    .checked_sub(1)
                    .unwrap_or_else(|| panic!("{line:?} is gone without a word:\n{diff}\n{after}"));
            }
        }
    }
}

fn whole(name: &str, moved: usize, left_in_files: &[&str]) -> (Project, String) {
    let project = Project::copy(name);
    let before = project.config();
    let diff = project.import("--dry-run").err;
    assert_eq!(fs::read_to_string(&project.file).unwrap(), project.before, "a dry run changes nothing");
    assert!(!project.host.config_dir().exists());
    let text = project.imported();
    let after = project.config();
    assert_eq!(same_values(&project, &before, &after, left_in_files), moved, "{text}");
    assert_eq!(rest(before), rest(after));
    nothing_else_changed(&project.before, &text, &diff);
    (project, text)
}

#[test]
fn anchors_merges_lists_and_interpolation() {
    let (project, text) = whole("shop", 7, &[]);
    assert_eq!(project.stored("local://shop#SECRET_KEY_BASE"), "CANARY-base");
    assert!(text.contains("SECRET_KEY_BASE_FILE: /run/secrets/SECRET_KEY_BASE\n"), "{text}");
    assert!(text.contains("- POSTGRES_PASSWORD_FILE=/run/secrets/POSTGRES_PASSWORD   # the same\n"));
    let again = project.import("--yes");
    assert!(String::from_utf8_lossy(&again.out).contains("no secret was found"), "{}", again.err);
}

#[test]
fn env_files_flow_styles_and_blocks() {
    let (project, text) = whole("forum", 5, &["MYSQL_ROOT_PASSWORD", "REDIS_PASSWORD"]);
    assert!(
        text.contains("volumes: [ \"data:/var/lib/mysql\", \"mysql-secrets:/run/secrets:ro\" ]   # flow"),
        "{text}"
    );
    assert!(text.contains("environment: {BACKUP_TOKEN_FILE: /run/secrets/BACKUP_TOKEN, INTERVAL: 1d}"), "{text}");
    assert!(project.stored("local://forum#JWT_PRIVATE_KEY").ends_with("-----END PRIVATE KEY-----\n"));
    let said = Project::copy("forum").import("--dry-run").err;
    assert!(said.contains("take the line 2 (MYSQL_ROOT_PASSWORD) out of "), "{said}");
}

#[test]
fn secrets_of_compose_become_files_of_the_same_name() {
    let (project, text) = whole("tracker", 0, &[]);
    let after = project.config();
    let served = served(&after, "/run/secrets");
    assert_eq!(project.stored(&served["api"]["db_password"]), "CANARY-file\n");
    assert_eq!(project.stored(&served["api"]["mail_token"]), "CANARY-mail");
    assert_eq!(served["db"].keys().collect::<Vec<_>>(), ["db_password"]);
    let options = &after["volumes"]["api-secrets"]["driver_opts"];
    assert_eq!((options["mode.mail_token"].as_str(), options["uid.mail_token"].as_str()), (Some("0440"), Some("1000")));
    assert!(after.get("secrets").is_none() && text.contains("# written by hand"), "{text}");
}

#[test]
fn long_mounts_quotes_and_variables_without_a_value() {
    let (project, text) = whole("metrics", 4, &[]);
    assert!(
        text.contains("      DOCKER_INFLUXDB_INIT_ADMIN_TOKEN_FILE: /run/secrets/DOCKER_INFLUXDB_INIT_ADMIN_TOKEN\n"),
        "{text}"
    );
    assert_eq!(project.stored("local://metrics#INFLUX_TOKEN"), "CANARY-influx-token");
}

#[test]
fn line_ends_of_windows_stay() {
    let (_, text) = whole("photos", 2, &["DB_PASSWORD"]);
    assert_eq!(text.matches('\n').count(), text.matches("\r\n").count(), "{text:?}");
}

#[test]
fn nothing_is_done_without_a_yes_or_over_another_value() {
    let project = Project::copy("shop");
    let ran = project.import("");
    assert!(
        ran.code == Some(1) && ran.err.contains("nothing was changed: there is no terminal to ask at"),
        "{}",
        ran.err
    );
    project.host.ok("secret set shop#STRIPE_API_KEY", b"other");
    let ran = project.import("--yes");
    assert!(ran.code == Some(1) && ran.err.contains("other values of `local://shop#STRIPE_API_KEY`"), "{}", ran.err);
    assert_eq!(fs::read_to_string(&project.file).unwrap(), project.before);
    assert_eq!(project.stored("shop#STRIPE_API_KEY"), "other");
    assert_eq!(project.import("--yes --overwrite").code, Some(0));
    assert_eq!(project.stored("shop#STRIPE_API_KEY"), "CANARY-stripe");
}

#[test]
fn the_file_keeps_its_mode_its_link_and_its_original_if_asked() {
    let project = Project::copy("metrics");
    let real = project.folder.join("real.yml");
    fs::rename(&project.file, &real).unwrap();
    symlink("real.yml", &project.file).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    let ran = project.import("--yes -o -");
    assert_eq!((ran.code, fs::read_to_string(&real).unwrap()), (Some(0), project.before.clone()));
    let to = project.folder.join("new.yml");
    assert_eq!(project.import(&format!("--yes -o {}", to.display())).code, Some(0));
    assert_eq!(fs::read_to_string(&to).unwrap().trim_end(), String::from_utf8(ran.out).unwrap().trim_end());
    assert!(project.import(&format!("--yes -o {}", to.display())).err.contains("File exists"), "never overwrites");
    project.imported();
    assert!(project.file.is_symlink() && mode(&real) == 0o640);
    assert_eq!(fs::read_to_string(&real).unwrap(), fs::read_to_string(&to).unwrap());
}

#[test]
fn only_and_except_choose() {
    let project = Project::copy("shop");
    let ran = project.import("--yes --except DATABASE_URL --except POSTGRES_PASSWORD --except STRIPE_API_KEY");
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let text = fs::read_to_string(&project.file).unwrap();
    assert!(text.contains("SECRET_KEY_BASE_FILE") && text.contains("STRIPE_API_KEY: ${STRIPE_API_KEY}"), "{text}");
    let project = Project::copy("shop");
    assert_eq!(project.import("--yes --only PORT").code, Some(0));
    let text = fs::read_to_string(&project.file).unwrap();
    assert!(
        text.contains("PORT_FILE: /run/secrets/PORT") && text.contains("STRIPE_API_KEY: ${STRIPE_API_KEY}"),
        "{text}"
    );
}

#[test]
fn what_is_not_taken_is_told_and_left() {
    let project = Project::of(
        "services:\n  a:\n    image: x\n    command: run --password $PW ${PW:-x} $PWX\n    environment:\n      DB_PASSWORD: \
         $PW\n    secrets: [outside]\n  b: &b\n    image: x\n  c: *b\nsecrets:\n  outside:\n    external: true\n",
    );
    fs::write(project.folder.join(".env"), "PW=CANARY\n").unwrap();
    let ran = project.import("--yes");
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for note in [
        "secret outside of service a stays Compose's",
        "service c is an alias of another as a whole",
        "PW is used in line 4 too",
        ".env still holds values in line 1",
    ] {
        assert!(ran.err.contains(note), "{note}: {}", ran.err);
    }
    let text = fs::read_to_string(&project.file).unwrap();
    assert!(text.contains("DB_PASSWORD_FILE: /run/dso/DB_PASSWORD") && text.contains("secrets: [outside]"), "{text}");
}

#[test]
fn files_that_cannot_be_read_are_refused_without_their_text() {
    for (text, fault) in [
        ("services: {a: 'CANARY", "is no YAML"),
        ("a: 1\n", "has no `services`"),
        ("services:\n  a:\n    environment:\n      PASSWORD: ${CANARY\n", "a `${` has no `}`"),
        ("services:\n  a:\n    env_file: none.env\n", "cannot read"),
        ("services:\n  a:\n    environment:\n      PIN_TOKEN: 0123\n", "`PIN_TOKEN` is a number without quotes"),
    ] {
        let ran = Project::of(text).import("--yes");
        assert!(ran.code == Some(1) && ran.err.contains(fault) && !ran.err.contains("CANARY"), "{}", ran.err);
    }
    let host = Host::new();
    assert_eq!(host.run("import /nonexistent/.env", b"").code, Some(1));
}

#[test]
fn a_file_of_variables_gives_a_fragment_that_compose_takes() {
    let project = Project::copy("shop");
    let file = project.folder.join(".env");
    let ran = project.host.run(&format!("import {} --yes --to local://team/shop", file.display()), b"");
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(!format!("{}{}", ran.err, String::from_utf8_lossy(&ran.out)).to_uppercase().contains("CANARY"));
    assert!(ran.err.contains("DB_PASSWORD (line 3), SECRET_KEY_BASE (line 4)"), "{}", ran.err);
    assert_eq!(project.stored("team/shop#DB_PASSWORD"), "Cänary-db-@1#2");
    let fragment = String::from_utf8(ran.out).unwrap();
    // Both forms: as files, and as a template, which stands there in comments.
    let template = fragment.replace("      # template", "      template").replace("      #   ", "        ");
    for text in [&fragment, &template] {
        fs::write(&project.file, text.replace("  app: ", "  app:\n    image: x #")).unwrap();
        let config = project.config();
        assert_eq!(served(&config, "/run/secrets")["app"]["STRIPE_API_KEY"], "local://team/shop#STRIPE_API_KEY");
    }
    let options = &project.config()["volumes"]["shop-secrets"]["driver_opts"];
    assert_eq!(
        options["template.env"].as_str().unwrap().lines().next(),
        Some("DB_PASSWORD={{ secret(\"local://team/shop#DB_PASSWORD\") }}")
    );
}

#[test]
fn a_provider_that_is_no_store_is_refused_with_what_to_do() {
    let project = Project::copy("shop");
    let ran = project.import("--yes --to vault://secret/shop");
    assert!(ran.code == Some(1) && ran.err.contains("Values can be written to an embedded store only"), "{}", ran.err);
    assert_eq!(project.import("--yes --to shop").code, Some(2));
    assert!(!project.host.config_dir().exists());
}

#[test]
fn a_terminal_is_asked_after_the_diff() {
    let project = Project::copy("metrics");
    let line = format!("import {}", project.file.display());
    for (answer, code) in [("n\n", 1), ("y\n", 0)] {
        assert_eq!(fs::read_to_string(&project.file).unwrap(), project.before);
        let mut session = Session::start(project.host.command(&words(&line)));
        session.prompt("Store the values and write the file? [y/N] ", answer);
        let (ended, shown) = session.end();
        assert_eq!(ended, Some(code), "{shown}");
        let diff = shown.find("+    - GF_SECURITY_ADMIN_PASSWORD_FILE=").unwrap();
        assert!(diff < shown.find("[y/N]").unwrap() && !shown.contains("CANARY") && !shown.contains('\x1b'), "{shown}");
    }
    assert_ne!(fs::read_to_string(&project.file).unwrap(), project.before);
}

#[test]
fn a_file_that_changes_while_it_is_asked_is_left_alone_and_nothing_is_stored() {
    let project = Project::copy("metrics");
    let variables = project.folder.join("variables");
    fs::write(&variables, "PASSWORD=CANARY\n").unwrap();
    for (file, prompt) in
        [(&project.file, "Store the values and write the file? [y/N] "), (&variables, "Store them? [y/N] ")]
    {
        let line = format!("import {}", file.display());
        let mut session = Session::start(project.host.command(&words(&line)));
        session.until(Some(prompt));
        let changed = fs::read_to_string(file).unwrap() + "# by somebody else\n";
        fs::write(file, &changed).unwrap();
        session.prompt(prompt, "y\n");
        let (ended, shown) = session.end();
        assert!(ended == Some(1) && shown.contains("it was changed meanwhile"), "{shown}");
        assert_eq!(fs::read_to_string(file).unwrap(), changed);
        assert!(!project.host.file("local.age").exists(), "nothing is stored");
    }
}

#[test]
fn a_new_file_is_as_private_as_the_one_that_it_is_made_of() {
    for private in [0o600, 0o640] {
        let project = Project::copy("metrics");
        fs::set_permissions(&project.file, fs::Permissions::from_mode(private)).unwrap();
        let to = project.folder.join("new.yaml");
        assert_eq!(project.import(&format!("--yes -o {}", to.display())).code, Some(0));
        assert_eq!(mode(&to), private);
    }
}

#[test]
fn what_cannot_be_taken_out_is_refused_before_anything_is_done() {
    let project = Project::of("services:\n  a:\n    image: x\n    environment: {PIN: CANARY}\n");
    let ran = project.import("--yes --only PIN --only PIN_FILE");
    assert!(ran.code == Some(1) && ran.err.contains("`PIN_FILE` of service a cannot be taken out"), "{}", ran.err);
    assert_eq!(fs::read_to_string(&project.file).unwrap(), project.before);
    assert!(!project.host.config_dir().exists());
}

/// The blocks of a page in a language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|part| part.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_documentation_shows_what_is_done() {
    let shown = blocks(include_str!("../../docs/import.md"), "yaml");
    let project = Project::of(&shown[0]);
    fs::write(project.folder.join(".env"), "DB_PASSWORD=CANARY\n").unwrap();
    assert_eq!(project.imported(), shown[1]);
    for block in blocks(include_str!("../../docs/getting-started.md"), "yaml") {
        fs::write(&project.file, block).unwrap();
        project.config();
    }
}

#[test]
fn the_grammar_of_variables_is_composes() {
    let project = Project::of("services:\n  a:\n    image: x\n    env_file: a.env\n");
    let file = "A1_TOKEN=plain\nA2_TOKEN = spaced value  \nexport A3_TOKEN=exp\nA4_TOKEN: yamlish\nA6_TOKEN=b#c\nA7_TOKEN=b # c\n\
        A8_TOKEN='b # $c' # d\nA9_TOKEN='it\\'s'\nB1_TOKEN=\"b\\n\\\"c\\\" \\$d \\\\ \\t|\" # e\nB2_TOKEN=\"${NO:-x}$A1_TOKEN\"\n\
        B3_TOKEN=x$A1_TOKEN\nB4_TOKEN=\"two\nlines\"\nB5_TOKEN={\"json\": \"x\"}\nB6_TOKEN=a\\nb\nB7_TOKEN=\"a\\qb\"\nB8_TOKEN=$$dollar\n\
        C1_TOKEN='a\\\\b\\nc'\nC2_TOKEN=`x`\nC3_TOKEN=a\"b\"c\nC4_TOKEN=\"a\"b\nC5_TOKEN=${A1_TOKEN:+alt}\nC8_TOKEN='multi\nline'\n\
        C9_TOKEN=end\\\n";
    fs::write(project.folder.join("a.env"), file).unwrap();
    let before = project.config();
    project.imported();
    let environment = before["services"]["a"]["environment"].as_object().unwrap();
    assert_eq!(environment.len(), 23);
    for (name, value) in environment {
        // `config` writes what can be read again.
        let value = value.as_str().unwrap().replace("$$", "$");
        assert_eq!(project.stored(&format!("local://app#{name}")), value, "{name}");
    }
}
