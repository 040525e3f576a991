//! The `engine` command.
#![forbid(unsafe_code)]

#[cfg(feature = "simulation")]
compile_error!("the engine is never built with planted bugs: leave the feature `simulation` off");

mod commands;
mod signals;

use std::process::ExitCode;

use engine::config::{self, Command, ConfigError};

use commands::Failure;

// Each transfer allocates and frees on different threads; the system allocator's
// arenas contend there and keep what a burst of large bodies took.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = match config::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(ConfigError::Help(text)) => {
            commands::say(&text);
            return ExitCode::SUCCESS;
        }
        Err(error @ (ConfigError::Usage(_) | ConfigError::Setting { .. })) => {
            commands::complain(&error);
            return ExitCode::from(Failure::EXIT_CONFIGURATION);
        }
    };
    let done = match command {
        Command::Serve(config) => commands::serve(&config),
        Command::Dev(config) => commands::dev(*config),
        Command::Migrate(config) => commands::migrate(&config),
        Command::Maintain(config) => commands::maintain(&config),
        Command::Verify(config) => commands::verify(&config),
        Command::Openapi => commands::openapi(),
        Command::Health(config) => commands::health(config),
    };
    done.unwrap_or_else(|failure| {
        commands::complain(&format_args!("error: {failure}"));
        failure.exit_code()
    })
}
