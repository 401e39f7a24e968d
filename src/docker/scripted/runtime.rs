//! What a process may ask of the scripted engine.

use super::*;

#[async_trait]
impl ContainerRuntime for Runtime {
    async fn containers(&self, volumes: &BTreeSet<String>) -> Result<Vec<Container>, RuntimeError> {
        let listed = self.call("list".into(), |_, _| Ok(())).await;
        let mounts = |container: &Container| volumes.iter().any(|volume| container.mounts(volume));
        listed.map(|()| self.engine.list().into_iter().filter(mounts).collect())
    }

    async fn inspect(&self, container: &str) -> Result<Option<Container>, RuntimeError> {
        // Not a step: nothing lasts of it.
        if self.engine.inner.lock().unwrap().down {
            return Err(RuntimeError::Unreachable("connection refused".into()));
        }
        Ok(self.engine.look(container))
    }

    async fn signal(&self, id: &str, _: &str) -> Result<(), RuntimeError> {
        self.work().await;
        self.call(format!("signal {id}"), |engine, inner| {
            let container = known(inner, id)?;
            if container.seen.state != State::Running {
                return Err(refused("signal", "it does not run"));
            }
            engine.read_now(container);
            Ok(())
        })
        .await
    }

    async fn exec(&self, id: &str, command: &[String], _: Duration) -> Result<Executed, RuntimeError> {
        self.work().await;
        self.call(format!("exec {id}"), |engine, inner| {
            let container = known(inner, id)?;
            if container.seen.state != State::Running {
                return Err(refused("exec", "it does not run"));
            }
            engine.read_now(container);
            let fails = command.first().is_some_and(|program| program == "false");
            Ok(Executed { exit_code: fails.into(), stderr: if fails { "went wrong\n".into() } else { String::new() } })
        })
        .await
    }

    async fn restart(&self, id: &str) -> Result<(), RuntimeError> {
        self.work().await;
        // An engine that dies in between leaves it stopped.
        self.call(format!("restart {id}"), |_, inner| {
            let container = known(inner, id)?;
            container.seen.state = State::Exited;
            Ok(())
        })
        .await?;
        let mut inner = self.engine.inner.lock().unwrap();
        self.engine.start_now(&mut inner, id);
        Ok(())
    }

    async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        self.call(format!("start {id}"), |engine, inner| {
            let wanted = known(inner, id)?;
            let port = port_of(&wanted.seen).filter(|_| wanted.on.exclusive);
            let is_other = |other: &&Scripted| other.on.exclusive && other.seen.id != id && other.seen.is_up();
            let mut others = inner.containers.values().filter(is_other);
            let clash = port.is_some() && others.any(|other| port_of(&other.seen) == port);
            if clash {
                return Err(refused("start", "the port is taken"));
            }
            if !known(inner, id)?.seen.is_up() {
                engine.start_now(inner, id);
            }
            Ok(())
        })
        .await
    }

    async fn stop(&self, id: &str) -> Result<(), RuntimeError> {
        self.call(format!("stop {id}"), |_, inner| {
            known(inner, id)?;
            Engine::stop_now(inner, id);
            Ok(())
        })
        .await
    }

    async fn rename(&self, id: &str, name: &str) -> Result<(), RuntimeError> {
        self.call(format!("rename {id}"), |_, inner| {
            if inner.name_is_taken(name) {
                return Err(refused("rename", "the name is taken"));
            }
            name.clone_into(&mut known(inner, id)?.seen.name);
            Ok(())
        })
        .await
    }

    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        self.call(format!("remove {id}"), |_, inner| {
            inner.containers.remove(id);
            Ok(())
        })
        .await
    }

    async fn replicate(
        &self,
        id: &str,
        name: &str,
        labels: &BTreeMap<String, String>,
        aliased: bool,
    ) -> Result<String, RuntimeError> {
        self.work().await;
        self.call(format!("replicate {id}"), |_, inner| {
            let original = known(inner, id)?.clone();
            if inner.name_is_taken(name) {
                return Err(refused("create", "the name is taken"));
            }
            let mut all = original.seen.labels;
            all.extend(labels.clone());
            let id = inner.make(name, all, original.on, aliased);
            known(inner, &id)?.seen.mounts = original.seen.mounts;
            Ok(id)
        })
        .await
    }

    async fn take_aliases(&self, id: &str, _: &str, _: &str) -> Result<(), RuntimeError> {
        self.call(format!("alias {id}"), |_, inner| {
            known(inner, id)?.aliases = true;
            Ok(())
        })
        .await
    }

    async fn watch(&self, to: mpsc::Sender<Observed>) {
        if !self.engine.list().is_empty() {
            let _ = to.send(Observed::Connected).await;
        }
        to.closed().await;
    }
}
