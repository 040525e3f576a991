//! The command that `engine dev` runs on its servers.
//!
//! Bound: asked to stop, it gets [`STOP_WAIT`], then SIGKILL.
//! Invariant: its exit code is ours, as if a shell had run it.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::Failure;
use crate::signals::Signals;

const STOP_WAIT: Duration = Duration::from_secs(30);
/// Shells add the number of the signal that ended a command.
const EXIT_SIGNAL_BASE: i32 = 128;

/// Runs it to its end; a signal to us is passed on.
pub(super) async fn run(
    command: &[OsString],
    environment: &[(&'static str, String)],
    signals: &mut Signals,
) -> Result<ExitCode, Failure> {
    let Some((program, arguments)) = command.split_first() else {
        return Ok(ExitCode::SUCCESS);
    };
    // At a terminal the command shares our process group, so that it can read
    // keys and gets Ctrl-C itself. Elsewhere it gets a group of its own, so that
    // a signal to us reaches what it started, too.
    let reach = if std::io::stdin().is_terminal() {
        Reach::Command
    } else {
        Reach::Group
    };
    let mut prepared = Command::new(program);
    if reach == Reach::Group {
        prepared.process_group(0);
    }
    let mut child = prepared
        .args(arguments)
        // What an outer run left in our environment names servers that are not ours.
        .env_remove("ENGINE_TEST_REDIS_URL")
        .env_remove("REDIS_URL")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| Failure::Command {
            program: program.to_string_lossy().into_owned(),
            source,
        })?;
    let ended = loop {
        tokio::select! {
            ended = child.wait() => break ended,
            signal = signals.next() => {
                forward(&child, reach, signal);
                if let Ok(ended) = timeout(STOP_WAIT, child.wait()).await {
                    break ended;
                }
                forward(&child, reach, Signal::KILL);
            }
        }
    };
    ended.map(exit_code).map_err(|source| Failure::Command {
        program: program.to_string_lossy().into_owned(),
        source,
    })
}

/// What a forwarded signal goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Command,
    Group,
}

/// A command that has ended meanwhile needs no signal.
fn forward(child: &Child, reach: Reach, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(pid) = pid.and_then(Pid::from_raw) {
        match reach {
            Reach::Command => kill_process(pid, signal).ok(),
            Reach::Group => kill_process_group(pid, signal).ok(),
        };
    }
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| EXIT_SIGNAL_BASE + signal))
        .and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
