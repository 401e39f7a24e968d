//! `ls` and `inspect`.

use super::world::Desk;
use crate::support::{BUSYBOX, SOON, wait_for};
use serde_json::Value;

/// One volume that a container has, one that nobody has, one that could not be mounted.
fn three() -> Desk {
    let desk = Desk::start("[rotation]\nsettle = '500ms'\n");
    desk.store.set("app#password", "first");
    desk.store.set("app#user", "someone");
    let current = desk.create("app", &["from=local://app", "template.env=U={{ secret('local://app#user') }}"]);
    desk.run("web", &current, &["--label", "dso.on-rotate=signal:HUP"]);
    desk.create("idle", &["file.password=local://app#password"]);
    let failed = desk.create("late", &["file.password=local://missing"]);
    let mount = desk.plugin.mount(&failed, "/secrets", &[]);
    desk.engine().docker_fails(&["run", "--rm", "--network=none", "--mount", &mount, BUSYBOX, "true"]);
    desk
}

#[test]
fn volumes_are_listed_as_a_table_as_json_and_as_fields() {
    let desk = three();
    assert_eq!(
        desk.prints(&["ls"]),
        "VOLUME | STATE | GENERATION | VERSIONS | AGE | NEXT CHECK | CONTAINERS | LAST ROTATION
T-app | current | 1 | 2 | AGE | in AGE | T-web | -
T-idle | idle | 0 | - | - | - | - | -
T-late | failed | 0 | - | - | - | - | -"
    );
    assert_eq!(desk.prints(&["ls", "--quiet"]), "T-app\nT-idle\nT-late");
    assert_eq!(
        desk.prints(&["ls", "--format", "{{.Name}}: {{upper .State}}, {{json .Mounts}}"]),
        "T-app: CURRENT, 1\nT-idle: IDLE, 0\nT-late: FAILED, 0"
    );
    let listed = desk.prints(&["ls", "--format", "json"]);
    assert_eq!(
        seconds(listed.lines().next().unwrap()),
        r#"{"Age":SECONDS,"Cause":null,"Checked":"TIME","Containers":[{"Destination":"/secrets","Fault":null,"Id":"ID","Name":"T-web","OnRotate":"signal:SIGHUP","State":"running"}],"CreatedAt":"TIME","Driver":"T:latest","Error":null,"Generation":1,"Labels":{},"LastRotation":null,"Mounts":1,"Name":"T-app","NextCheck":"TIME","Options":{"from":"local://app","template.env":"U={{ secret('local://app#user') }}"},"Rotated":"TIME","State":"current","Versions":{"env":"2","password":"2","user":"2"}}"#
    );
    assert_eq!(listed.lines().count(), 3);

    // After a rotation.
    desk.store.set("app#password", "second");
    desk.prints(&["refresh", &desk.plugin.named("app")]);
    let last = || desk.plugin.status(&desk.plugin.named("app"))["last_rotation"]["result"].clone();
    wait_for("the rotation", SOON, || last() == "verified");
    assert_eq!(
        desk.prints(&["ls", "--format", "table {{.Name}}\t{{.Generation}}\t{{.LastRotation}}"]),
        "VOLUME | GENERATION | LAST ROTATION\nT-app | 2 | verified AGE ago\nT-idle | 0 | -\nT-late | 0 | -"
    );
}

#[test]
fn a_volume_is_shown_whole_to_a_person_and_to_a_program() {
    let desk = three();
    let [app, idle, late] = ["app", "idle", "late"].map(|name| desk.plugin.named(name));
    assert_eq!(
        desk.prints(&["inspect", "--format", "pretty", &app, &idle, &late]),
        "T-app
  State | current: containers have what the provider has
  Driver | T:latest
  Generation | 1, written AGE ago
  Checked | AGE ago, next check in AGE
  Files
    env | version 2 | a template
    password | version 2 | local://app
    user | version 2 | local://app
  Containers
    T-web | running | at /secrets | on change: signal:SIGHUP

T-idle
  State | idle: no container has it
  Driver | T:latest
  Generation | none yet
  Files
    password | local://app#password

T-late
  State | failed: the last container that wanted it could not start
  Driver | T:latest
  Generation | none yet
  Files
    password | local://missing
  Error
    volume `T-late`: option `file.password`: `local://missing`: the local store has no secret `missing`: set it with `docker dso secret set missing`
  What to do
    mend what the error names, and start the container again"
    );
    let whole: Value = serde_json::from_str(&desk.prints(&["inspect", &app])).unwrap();
    assert_eq!(whole[0]["Versions"]["password"], "2");
    assert_eq!(desk.prints(&["inspect", "-f", "{{.State}}", &app, &idle]), "current\nidle");

    // Of several, those that are there are shown.
    let ran = desk.dso(&["inspect", "-f", "{{.Name}}", &app, &desk.plugin.named("idel")]);
    let fault = "Error: there is no volume `T-idel`: did you mean `T-idle`?";
    assert_eq!((ran.code, &*ran.out, &*ran.err), (Some(1), "T-app", fault));
}

/// Without the one number that grows.
fn seconds(line: &str) -> String {
    let age = line.strip_prefix("{\"Age\":").unwrap();
    format!("{{\"Age\":SECONDS{}", age.trim_start_matches(|c: char| c.is_ascii_digit()))
}
