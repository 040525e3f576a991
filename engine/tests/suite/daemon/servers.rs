//! Servers of a test's own, for what cannot be done to the shared ones.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use engine::dev::{DevSettings, Login, Servers};
use engine::store::{maintain, migrate};
use tempfile::TempDir;

use super::grant;

/// A private PostgreSQL, and a Redis if wanted; stopped when dropped.
#[derive(Debug)]
pub(super) struct Private {
    pub(super) servers: Servers,
    // Last: the directory goes after the servers were told to stop.
    _dir: TempDir,
}

/// A directory that another user can pass through.
pub(super) fn passable_dir() -> TempDir {
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o711))
        .tempdir()
        .unwrap()
}

impl Private {
    /// Everyone needs a password but the superuser, whose URL has it.
    pub(super) async fn start(redis: bool, postgres_settings: &[(&str, &str)]) -> Self {
        let dir = passable_dir();
        let mut settings = vec![("shared_buffers".to_owned(), "16MB".to_owned())];
        settings.extend(
            postgres_settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        let servers = Servers::start(&DevSettings {
            data_dir: dir.path().to_owned(),
            fresh: false,
            redis,
            login: Login::Password,
            postgres_bin_dir: None,
            search_path: std::env::var_os("PATH").unwrap_or_default(),
            postgres_settings: settings,
            redis_settings: Vec::new(),
        })
        .await
        .unwrap();
        Self { servers, _dir: dir }
    }

    /// A migrated ledger on it; the superuser's URL.
    pub(super) async fn ledger(&self) -> String {
        self.servers.ensure_database("ledger").await.unwrap();
        let url = self.servers.database_url_of("ledger");
        prepare(&url).await;
        url
    }

    pub(super) async fn stop(self) {
        self.servers.stop().await.unwrap();
    }
}

/// Schema, partitions and roles.
pub(super) async fn prepare(url: &str) {
    migrate::run(url, &migrate::Settings::default())
        .await
        .unwrap();
    maintain::run(url, &maintain::Settings::default())
        .await
        .unwrap();
    grant(url).await;
}

/// Every check of the ledger at `url`.
pub(super) async fn verify_at(url: &str) {
    let settings = engine::store::verify::Settings::default();
    let clock = engine::clock::Clock::System;
    let report = engine::store::verify::run(url, &settings, &clock, |_| {})
        .await
        .unwrap();
    let broken = report.first_broken();
    assert!(broken.is_none(), "{broken:?}");
}
