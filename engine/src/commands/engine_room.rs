//! Where a configuration meets the rooms of a serving engine, and nowhere else.

use engine::config::ServeConfig;

use futures_util::Stream;

use super::Failure;

/// Runs an engine until `stop` asks to stop and everything accepted is answered.
pub(super) async fn run(
    config: &ServeConfig,
    stop: impl Stream<Item = ()> + Unpin + Send + 'static,
) -> Result<(), Failure> {
    let _log = engine::app::start_log(config).map_err(Failure::Log)?;
    engine::app::serve(config, stop).await.map_err(Failure::App)
}

/// The description of the HTTP API.
pub(super) const fn openapi() -> &'static str {
    engine::http::openapi::document_text()
}
