//! Running a command in a container.
//!
//! # Caveats
//! The API cannot end a command: one that takes too long is no longer waited for, and goes on.

use super::{Executed, RuntimeError, call::Call, wire::Connection};
use bollard::{
    container::LogOutput,
    errors::Error,
    exec::{StartExecOptions, StartExecResults},
    models::ExecConfig,
};
use futures_util::StreamExt;
use std::{pin::pin, time::Duration};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How often the engine is asked whether the command has ended: its stderr may be held open by what it left behind.
const LOOK: Duration = Duration::from_millis(100);
const LAST_WORDS: Duration = Duration::from_millis(500);

pub(super) async fn exec(
    engine: &Connection,
    id: &str,
    command: &[String],
    limit: Duration,
) -> Result<Executed, RuntimeError> {
    Call::of(id, "run the command", limit).run(run(engine, id, command)).await
}

async fn run(engine: &Connection, id: &str, command: &[String]) -> Result<Executed, Error> {
    let config = ExecConfig { cmd: Some(command.to_vec()), attach_stderr: Some(true), ..ExecConfig::default() };
    let exec = engine.docker.create_exec(id, config).await?.id;
    let started = engine.docker.start_exec(&exec, Some(StartExecOptions::default())).await?;
    let StartExecResults::Attached { output, input: _open } = started else {
        return Err(Error::DockerStreamError { error: "the command was not attached to".into() });
    };
    let (mut output, mut stderr) = (pin!(output.fuse()), Vec::new());
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let exit_code = loop {
        tokio::select! {
            biased;
            Some(printed) = output.next() => keep(&mut stderr, printed?),
            _ = looks.tick() => if let Some(exit_code) = ended(engine, &exec).await? {
                break exit_code;
            },
        }
    };
    // What it printed at last is on its way, unless something else still holds its stderr.
    let rest = async {
        while let Some(Ok(printed)) = output.next().await {
            keep(&mut stderr, printed);
        }
    };
    let _ = timeout(LAST_WORDS, rest).await;
    Ok(Executed { exit_code, stderr: text(&stderr) })
}

/// The rest is read too, or the command would wait for a reader.
fn keep(stderr: &mut Vec<u8>, printed: LogOutput) {
    let printed = printed.into_bytes();
    let room = Executed::STDERR_MAX - stderr.len();
    stderr.extend_from_slice(&printed[..printed.len().min(room)]);
}

async fn ended(engine: &Connection, exec: &str) -> Result<Option<i64>, Error> {
    let exec = engine.docker.inspect_exec(exec).await?;
    // Neither running nor with an exit code is one that has not begun.
    Ok(exec.exit_code.filter(|_| exec.running != Some(true)))
}

/// A character that was cut in two at the end is left out.
fn text(bytes: &[u8]) -> String {
    let whole = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    };
    String::from_utf8_lossy(&bytes[..whole]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stderr_is_cut_and_a_character_that_is_cut_in_two_goes() {
        let mut stderr = Vec::new();
        keep(&mut stderr, LogOutput::StdErr { message: "x".repeat(Executed::STDERR_MAX - 1).into() });
        keep(&mut stderr, LogOutput::StdErr { message: "äöü".into() });
        keep(&mut stderr, LogOutput::StdErr { message: "more".into() });
        assert_eq!(stderr.len(), Executed::STDERR_MAX);
        assert_eq!(text(&stderr), "x".repeat(Executed::STDERR_MAX - 1));
        assert_eq!(text(b"a\xffb"), "a\u{fffd}b");
    }
}
