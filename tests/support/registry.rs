//! Debian's docker-registry on a port of its own.

use super::{MARK, SOON, cleanup::Scope, until, world};
use std::{
    fs::{self, File},
    process::{Child, Command, Stdio},
};

pub struct Registry {
    _scope: Scope,
    _server: Child,
    pub port: u16,
}

// === impl Registry ===

impl Registry {
    pub fn start() -> Self {
        let scope = Scope::new();
        let (config, log) = (scope.folder.join("registry.yml"), scope.folder.join("registry.log"));
        let storage = scope.folder.join("registry");
        fs::write(
            &config,
            format!(
                "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n",
                storage.display()
            ),
        )
        .expect("the registry's configuration");
        let output = File::create(&log).expect("the registry's log");
        let server = Command::new(world("bin/docker-registry"))
            .arg("serve")
            .arg(&config)
            .env(MARK, &scope.name)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .expect("docker-registry");
        let port = until("the registry to listen", SOON, || {
            let said = fs::read_to_string(&log).ok()?;
            let (_, rest) = said.split_once("listening on 127.0.0.1:")?;
            rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
        });
        Self { _scope: scope, _server: server, port }
    }

    /// A name that `docker push` and `docker plugin push` send here.
    pub fn name(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }
}
