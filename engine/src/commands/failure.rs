//! Why a subcommand failed, and the exit code that says so.

use std::fmt;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use engine::dev::DevError;
use engine::dev::demo::DemoError;
use engine::store::maintain::MaintainError;
use engine::store::migrate::SchemaError;
use engine::store::verify::VerifyError;

/// Why a subcommand failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The operating system refused threads or signals.
    Runtime(std::io::Error),
    /// `engine migrate`.
    Schema(SchemaError),
    /// `engine maintain`.
    Maintain(MaintainError),
    /// `engine verify` could not look.
    Verify(VerifyError),
    /// `engine verify` looked, and the ledger is broken.
    LedgerBroken { check: &'static str, row: String },
    /// A report cannot be written as JSON.
    Json(serde_json::Error),
    /// `engine health`: no, or no answer.
    Unhealthy { address: SocketAddr, reason: String },
    /// The private servers.
    Dev(DevError),
    /// The demo accounts.
    Demo(DemoError),
    /// `engine dev`: the engine does not answer.
    NotReady {
        address: SocketAddr,
        waited: Duration,
    },
    /// `engine dev`: the engine ended by itself.
    EngineEnded,
    /// `engine dev`: the engine's task panicked.
    EnginePanicked(tokio::task::JoinError),
    /// `engine dev`: the command cannot be started.
    Command {
        program: String,
        source: std::io::Error,
    },
    /// The log cannot be started.
    Log(engine::telemetry::logs::LogError),
    /// The engine did not start, or did not stop in order.
    App(engine::app::AppError),
}

impl Failure {
    /// A setting is wrong (EX_USAGE of sysexits.h).
    pub(crate) const EXIT_CONFIGURATION: u8 = 64;
    /// Something the engine needs is unavailable (EX_UNAVAILABLE of sysexits.h).
    const EXIT_UNAVAILABLE: u8 = 69;
    const EXIT_OTHER: u8 = 1;
    /// As a shell says that a command was not found.
    const EXIT_NO_COMMAND: u8 = 127;

    pub(crate) fn exit_code(&self) -> ExitCode {
        let unavailable = match self {
            Self::Command { .. } => return ExitCode::from(Self::EXIT_NO_COMMAND),
            Self::Schema(source) => source.is_unavailable(),
            Self::Maintain(source) => source.is_unavailable(),
            Self::Verify(source) => source.is_unavailable(),
            Self::Dev(_) => true,
            Self::App(source) if source.is_configuration() => {
                return ExitCode::from(Self::EXIT_CONFIGURATION);
            }
            Self::App(source) => source.is_unavailable(),
            Self::Runtime(_)
            | Self::LedgerBroken { .. }
            | Self::Json(_)
            | Self::Unhealthy { .. }
            | Self::Demo(_)
            | Self::NotReady { .. }
            | Self::EngineEnded
            | Self::EnginePanicked(_)
            | Self::Log(_) => false,
        };
        ExitCode::from(if unavailable {
            Self::EXIT_UNAVAILABLE
        } else {
            Self::EXIT_OTHER
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runtime(source) => write!(f, "start threads: {source}"),
            Self::Schema(source) => source.fmt(f),
            Self::Maintain(source) => source.fmt(f),
            Self::Verify(source) => source.fmt(f),
            Self::LedgerBroken { check, row } => write!(f, "{check} is broken: {row}"),
            Self::Json(source) => write!(f, "write the report: {source}"),
            Self::Unhealthy { address, reason } => write!(f, "{address}: {reason}"),
            Self::Dev(source) => source.fmt(f),
            Self::Demo(source) => source.fmt(f),
            Self::NotReady { address, waited } => write!(
                f,
                "the engine at {address} was not healthy within {}",
                humantime::format_duration(*waited)
            ),
            Self::EngineEnded => f.write_str("the engine ended before it was asked to"),
            Self::EnginePanicked(source) => write!(f, "the engine failed: {source}"),
            Self::Command { program, source } => write!(f, "run {program}: {source}"),
            Self::Log(source) => source.fmt(f),
            Self::App(source) => source.fmt(f),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Runtime(source) | Self::Command { source, .. } => Some(source),
            Self::Schema(source) => Some(source),
            Self::Maintain(source) => Some(source),
            Self::Verify(source) => Some(source),
            Self::Json(source) => Some(source),
            Self::Dev(source) => Some(source),
            Self::Demo(source) => Some(source),
            Self::EnginePanicked(source) => Some(source),
            Self::Log(source) => Some(source),
            Self::App(source) => Some(source),
            Self::LedgerBroken { .. }
            | Self::Unhealthy { .. }
            | Self::NotReady { .. }
            | Self::EngineEnded => None,
        }
    }
}
