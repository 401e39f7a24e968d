//! The projects of `examples/`, brought up by the commands at their head, with Debian's programs in place of the public
//! images, which cannot be had everywhere; and their secrets rotated by the same commands.

use crate::support::{
    BUSYBOX, NGINX, POSTGRES, SOON, compose::Compose, engine::Engine, plugin::Plugin, until, wait_for,
};
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

struct Example {
    plugin: Plugin,
    compose: Compose,
    /// Those that write the secrets.
    commands: Vec<String>,
}

// === impl Example ===

impl Example {
    /// The project, up; `changes` put the tests' images in.
    fn start(folder: &str, images: &[&str], changes: &str) -> Self {
        let plugin = Plugin::on(&Engine::system()).start();
        images.iter().for_each(|image| plugin.engine().import(image));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(folder);
        let compose = Compose::copy(plugin.engine(), &source, &plugin.driver(), changes);
        let text = fs::read_to_string(source.join("compose.yaml")).unwrap();
        let mut commands: Vec<_> =
            text.lines().filter_map(|line| line.strip_prefix("#   ")).map(str::to_owned).collect();
        assert_eq!(commands.pop().as_deref(), Some("docker compose up -d"), "the last command");
        assert!(!commands.is_empty(), "{folder} says how its secrets are written");
        let example = Self { plugin, compose, commands };
        example.write_secrets();
        example.compose.run(&["up", "--detach", "--wait"]);
        example
    }

    /// Runs the commands as they stand there; `docker dso` finds this plugin's store.
    #[track_caller]
    fn write_secrets(&self) {
        let bin = self.plugin.folder().join("bin");
        fs::create_dir_all(&bin).unwrap();
        let (program, config) = (env!("CARGO_BIN_EXE_docker-dso"), self.plugin.config_dir());
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = dso ] || exit 9\nshift\nexec {program} --config-dir {} \"$@\"\n",
            config.display()
        );
        fs::write(bin.join("docker"), script).unwrap();
        fs::set_permissions(bin.join("docker"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-euc", &self.commands.join("\n")]).current_dir(self.compose.folder());
        shell.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        let done = shell.output().unwrap();
        assert!(done.status.success(), "{:?}\n{}", self.commands, String::from_utf8_lossy(&done.stderr));
    }

    fn volume(&self, name: &str) -> String {
        format!("{}_{name}", self.compose.project())
    }

    fn generation(&self, volume: &str) -> u64 {
        self.plugin.status(&self.volume(volume))["generation"].as_u64().unwrap()
    }

    /// New secrets, until the containers of `volume` were told of them and verified.
    #[track_caller]
    fn rotate(&self, volume: &str) -> Value {
        let before = self.generation(volume);
        self.write_secrets();
        until("the rotation to be verified", 2 * SOON, || {
            let status = self.plugin.status(&self.volume(volume));
            let last = &status["last_rotation"];
            (last["result"] == "verified" && last["to"].as_u64() > Some(before)).then_some(status)
        })
    }

    fn container(&self, service: &str) -> String {
        self.compose.run(&["ps", "--all", "--quiet", service])
    }

    fn exec(&self, service: &str, words: &[&str]) -> Result<String, String> {
        self.plugin.engine().try_docker(&[&["exec", &self.container(service)], words].concat())
    }

    fn inspect(&self, service: &str, format: &str) -> Value {
        self.plugin.engine().json(&["inspect", &self.container(service)], format)
    }

    fn logs(&self, service: &str) -> String {
        self.compose.run(&["logs", "--no-log-prefix", service])
    }
}

#[test]
fn postgresql_takes_a_new_password_and_its_client_logs_in_with_it() {
    // What the entrypoint of the public image does with these variables.
    let entrypoint = "initdb --pgdata=/tmp/data --username=$$POSTGRES_USER --pwfile=$$POSTGRES_PASSWORD_FILE \
        --auth-local=trust --auth-host=scram-sha-256 --no-sync >/dev/null && \
        echo 'host all all all scram-sha-256' >>/tmp/data/pg_hba.conf && \
        { (until createdb --username=$$POSTGRES_USER $$POSTGRES_USER 2>/dev/null; do sleep 0.2; done) & \
        exec postgres -D /tmp/data -c listen_addresses='*' -c unix_socket_directories=/tmp -c fsync=off; }";
    let changes = format!(
        "services:\n\
         \x20 db: {{ image: {POSTGRES}, pull_policy: never, user: user, environment: {{ PGHOST: /tmp }}, command: [sh, -c, {entrypoint:?}] }}\n\
         \x20 client: {{ image: {POSTGRES}, pull_policy: never, user: user }}\n\
         volumes: {{ client-secrets: {{ driver_opts: {{ uid.pgpass: '1000' }} }} }}\n"
    );
    let example = Example::start("postgres", &[POSTGRES], &changes);
    let log_in =
        || example.exec("client", &["psql", "--no-password", "--quiet", "--tuples-only", "--command=SELECT 'in'"]);
    let logged_in = || log_in().is_ok_and(|said| said.trim() == "in");
    wait_for("the client to log in", SOON, logged_in);
    let pgpass = || example.exec("client", &["cat", "/run/secrets/pgpass"]).unwrap();
    let (before, container) = (pgpass(), example.container("db"));
    let told = example.rotate("server-secrets");
    wait_for("the client's file", SOON, || pgpass() != before);
    wait_for("the client to log in with the new password", SOON, logged_in);
    assert_eq!(example.container("db"), container, "{told:#}");
    // The old password is no use any more.
    let old = before.trim().rsplit_once(':').unwrap().1.to_owned();
    let with_old = format!("PGPASSFILE=/dev/null PGPASSWORD='{old}' psql --quiet --command=SELECT");
    assert!(example.exec("client", &["sh", "-c", &with_old]).unwrap_err().contains("authentication failed"));
    assert!(!example.logs("db").contains(&old), "the password is in the database's log");
}

#[test]
fn nginx_serves_a_new_certificate_and_is_not_restarted() {
    let changes = format!(
        "services:\n\
         \x20 web:\n\
         \x20   image: {NGINX}\n\
         \x20   pull_policy: never\n\
         \x20   ports: !reset []\n\
         \x20   command: [nginx, -g, 'daemon off; user user;']\n\
         \x20   healthcheck: {{ test: [CMD, nginx, -t, -q, -g, 'user user;'] }}\n"
    );
    let example = Example::start("nginx-tls", &[NGINX], &changes);
    let served = || {
        let connect =
            "echo | openssl s_client -connect $0:443 -servername web.test 2>/dev/null | openssl x509 -noout -serial";
        let address = example.inspect("web", ".NetworkSettings.Networks");
        let address = address.as_object().unwrap().values().next().unwrap()["IPAddress"].as_str().unwrap().to_owned();
        let shown = Command::new("sh").args(["-c", connect, &address]).output().unwrap();
        String::from_utf8(shown.stdout).unwrap()
    };
    let file: PathBuf = example.compose.folder().join("cert.pem");
    let written = || {
        let shown = Command::new("openssl").args(["x509", "-noout", "-serial", "-in"]).arg(&file).output().unwrap();
        String::from_utf8(shown.stdout).unwrap()
    };
    wait_for("the certificate", SOON, || served() == written());
    let (first, container, started) = (written(), example.container("web"), example.inspect("web", ".State.StartedAt"));
    example.rotate("tls");
    wait_for("the new certificate", SOON, || served() == written());
    assert_ne!(written(), first);
    assert_eq!((example.container("web"), example.inspect("web", ".State.StartedAt")), (container, started));
    assert!(!example.compose.folder().join("key.pem").exists(), "the example leaves no key on disk");
}

#[test]
fn a_program_with_file_variables_is_replaced_by_one_that_has_the_new_value() {
    let changes = format!("services: {{ app: {{ image: {BUSYBOX}, pull_policy: never }} }}\n");
    let example = Example::start("file-variables", &[], &changes);
    let container = example.container("app");
    assert!(example.logs("app").contains("connected as shop with a password of 32 characters"));
    let value = example.exec("app", &["cat", "/run/secrets/db_password"]).unwrap();
    let environment = example.inspect("app", ".Config.Env").to_string();
    assert!(environment.contains("DB_PASSWORD_FILE=/run/secrets/db_password") && !environment.contains(&value));
    example.rotate("secrets");
    assert_ne!(example.container("app"), container, "Compose sees the one that took its place");
    assert_ne!(example.exec("app", &["cat", "/run/secrets/db_password"]).unwrap(), value);
}

#[test]
fn a_program_with_an_env_file_is_restarted_with_the_new_one() {
    let changes = format!("services: {{ app: {{ image: {BUSYBOX}, pull_policy: never }} }}\n");
    let example = Example::start("env-file", &[], &changes);
    wait_for("the program to start", SOON, || example.logs("app").contains("the session key has 64 characters"));
    let file = || example.exec("app", &["cat", "/run/secrets/app.env"]).unwrap();
    // The program's own environment, which is not the container's.
    let variable = || {
        let shown = example.exec("app", &["sh", "-c", "tr '\\0' '\\n' </proc/1/environ | grep ^SESSION_KEY="]);
        shown.unwrap_or_default().trim_start_matches("SESSION_KEY=").to_owned()
    };
    let (first, key) = (file(), variable());
    assert!(first.contains(&format!("SESSION_KEY='{key}'")) && key.len() == 64);
    assert!(!example.inspect("app", ".Config").to_string().contains(&key));
    let started = example.inspect("app", ".State.StartedAt");
    example.rotate("env");
    assert_ne!(example.inspect("app", ".State.StartedAt"), started);
    wait_for("the new key in the program", SOON, || {
        file().contains(&format!("SESSION_KEY='{}'", variable())) && variable() != key
    });
}
