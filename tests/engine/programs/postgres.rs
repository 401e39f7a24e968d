//! PostgreSQL and a client, whose password is rotated: the client is restarted, or the server is told by a command.

use super::{inspected::assert_same, stage::Stage};
use crate::support::{POSTGRES, SOON, bao, wait_for};
use serde_json::json;

/// The server. Over its socket anyone is let in, over the network whoever knows the password.
const SERVER: &str = "initdb --pgdata=/tmp/data --username=postgres --auth-local=trust --auth-host=scram-sha-256 \
    --no-sync >/dev/null && echo 'host all all all scram-sha-256' >>/tmp/data/pg_hba.conf && \
    exec postgres -D /tmp/data -c listen_addresses='*' -c unix_socket_directories=/tmp -c fsync=off";
/// What the server is told to do after a rotation. The password is in no argument and in no log.
const ROTATE: &str =
    "\\set password `cat /secrets/password`\nSET log_statement = none;\nALTER ROLE app PASSWORD :'password';\n";
/// Knows the password of when it was started, as most programs do, and writes into the table as long as that is right.
const CLIENT: &str = "cp /secrets/pgpass /tmp/pgpass; while :; do psql -qc \"INSERT INTO beats VALUES ('$HOSTNAME', \
    '$(sha256sum </tmp/pgpass | cut -c 1-64)')\"; sleep 0.1; done";
const PGPASS: &str = r#"template.pgpass=db:5432:postgres:app:{{ secret("vault://secret/app#password") }}"#;

struct Database {
    stage: Stage,
    server: String,
}

// === impl Database ===

impl Database {
    /// With the role `app`, of a password that is in the secret. `label` goes to the server, which has the volume too.
    fn start(rotation: &str, label: &str) -> Self {
        let stage = Stage::start(rotation);
        stage.engine().import(POSTGRES);
        let password = bao::unique();
        stage.server.put("app", json!({"password": password}));
        let (site, label) = (stage.site(), format!("--label=dso.on-rotate={label}"));
        std::fs::write(stage.site_dir().join("rotate.sql"), ROTATE).unwrap();
        let words = ["--mount", &site, "--user=user", "--network-alias=db", &label, POSTGRES, "sh", "-c", SERVER];
        let server = stage.run("server", &words);
        let database = Self { stage, server };
        // Not by a login, which would take from it the time that it needs.
        wait_for("the database", 3 * SOON, || database.log().contains("ready to accept connections"));
        database.sql("CREATE TABLE beats (host text, known text); CREATE ROLE app LOGIN");
        database.sql("GRANT INSERT ON beats TO app");
        database.set_password(&password);
        database
    }

    fn log(&self) -> String {
        let output = self.stage.engine().command().args(["logs", &self.server]).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// As its administrator.
    #[track_caller]
    fn sql(&self, statement: &str) -> String {
        self.try_sql(statement).unwrap_or_else(|said| panic!("{said}"))
    }

    fn try_sql(&self, statement: &str) -> Result<String, String> {
        let psql = ["exec", &self.server, "psql", "--host=/tmp", "--username=postgres", "--tuples-only", "--no-align"];
        self.stage.engine().try_docker(&[&psql[..], &["--quiet", "--command", statement]].concat())
    }

    fn set_password(&self, password: &str) {
        self.sql(&format!("ALTER ROLE app PASSWORD '{password}'"));
    }

    /// A new password in the secret; `known` says whether the database has been told of it.
    fn rotate(&self, known: bool) -> u64 {
        let (password, generation) = (bao::unique(), self.generation());
        if known {
            self.set_password(&password);
        }
        self.stage.server.put("app", json!({"password": password}));
        generation
    }

    fn generation(&self) -> u64 {
        self.stage.status()["generation"].as_u64().unwrap()
    }
}

/// The client in a container, with a health check that logs in as it does itself.
fn run_client(database: &Database) -> String {
    let (stage, volume) = (&database.stage, database.stage.plugin.named("client-volume"));
    let driver = stage.plugin.driver();
    let options = [PGPASS, "mode.pgpass=0600", "uid.pgpass=1000", "refresh=1s"].map(|option| ["--opt", option]);
    let create = ["volume", "create", "--driver", &driver];
    stage.engine().docker(&[&create[..], &options.concat(), &[&volume]].concat());
    let mount = format!("type=volume,source={volume},target=/secrets");
    let name = stage.plugin.named("client");
    let words = [
        "run",
        "--detach",
        "--init",
        "--user=user",
        "--label=dso.on-rotate=restart",
        "--network",
        &stage.network,
        "--name",
        &name,
        "--mount",
        &mount,
        "--env=PGHOST=db",
        "--env=PGUSER=app",
        "--env=PGDATABASE=postgres",
        "--env=PGPASSFILE=/tmp/pgpass",
        "--health-cmd=psql --no-password -qtc 'SELECT'",
        "--health-interval=500ms",
        "--health-retries=3",
        POSTGRES,
        "sh",
        "-c",
        CLIENT,
    ];
    stage.engine().docker(&words);
    stage.wait_until_healthy(&name);
    name
}

#[test]
fn a_postgresql_client_goes_on_with_the_new_password_after_a_restart() {
    let database = Database::start("verify_timeout = '20s'", "none");
    let client = run_client(&database);
    let stage = &database.stage;
    let volume = stage.plugin.named("client-volume");
    let generation = || stage.plugin.status(&volume)["generation"].as_u64().unwrap();
    let started = || stage.inspect(&client)["State"]["StartedAt"].clone();
    let known = || stage.engine().docker(&["exec", &client, "sh", "-c", "sha256sum </tmp/pgpass | cut -c 1-64"]);
    let beats = |known: &str| -> usize {
        database.sql(&format!("SELECT count(*) FROM beats WHERE known = '{known}'")).parse().unwrap()
    };
    let goes_on = |what: &str| {
        let (known, before) = (known(), beats(&known()));
        wait_for(what, SOON, || beats(&known) > before + 3);
        known
    };
    let first = goes_on("the client to write with the first password");
    let (before, shown) = (started(), generation());
    database.rotate(true);
    stage.status_of(&volume, "verified", shown);
    assert_ne!(started(), before);
    let second = goes_on("the client to write with the new password");
    assert_ne!(second, first);

    // A password that the database was not told of: the client keeps the one that works.
    let (before, shown) = (started(), generation());
    database.rotate(false);
    stage.status_of(&volume, "rolled back", shown);
    assert_ne!(started(), before);
    assert_eq!(goes_on("the client to go on with the last password"), second);
    let restarted = started();
    stage.let_pass(4);
    assert_eq!(started(), restarted, "nobody tries it again");
}

#[test]
fn a_command_in_the_server_makes_a_new_password_valid() {
    let command = "psql --host=/tmp --username=postgres --quiet --set=ON_ERROR_STOP=1 --file=/site/rotate.sql";
    let database = Database::start("settle = '1s'", &format!("exec:{command}"));
    let stage = &database.stage;
    let before = stage.inspect(&database.server);
    // With what the volume holds at that moment, over the network.
    let log_in = "PGPASSWORD=$(cat /secrets/password) psql --host=db --username=app --dbname=postgres -qtc 'SELECT'";
    let logs_in = || stage.engine().try_docker(&["exec", &database.server, "sh", "-c", log_in]);
    assert_eq!(logs_in(), Ok(String::new()));
    let generation = database.rotate(false);
    stage.status_when("verified", generation);
    assert_eq!(logs_in(), Ok(String::new()));
    assert_same(&stage.inspect(&database.server), &before);

    // What psql says when it fails is for the operator: that the role is gone.
    database.sql("REVOKE INSERT ON beats FROM app; DROP ROLE app");
    let generation = database.rotate(false);
    let status = stage.status_when("rolled back", generation);
    let reason = status["last_rotation"]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains('3') && reason.contains(r#"role "app" does not exist"#), "{status:#}");
    assert!(stage.plugin.log().contains("does not exist"), "{}", stage.plugin.log());
}
