//! Where a configuration meets the rooms of a serving engine, and nowhere else.

use engine::config::ServeConfig;

use super::Failure;

/// Runs an engine until `stop` resolves and everything accepted is answered.
pub(super) async fn run(
    _config: &ServeConfig,
    _stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Failure> {
    Err(Failure::Absent("the HTTP API"))
}

/// The description of the HTTP API.
pub(super) fn openapi() -> Result<String, Failure> {
    Err(Failure::Absent("the HTTP API"))
}
