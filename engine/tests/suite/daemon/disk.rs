//! A disk that is full under PostgreSQL: nothing is applied, it is said, and it
//! passes when there is room again.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use engine::store::link::Link;
use tempfile::TempDir;

use super::load::{Load, Plan};
use super::servers::{Private, passable_dir, verify_at};
use crate::support::daemon::{Daemon, eventually};

/// Why this machine cannot show it.
#[derive(Debug)]
enum Skipped {
    /// Only root mounts.
    NotRoot,
    /// A container without the right to.
    MountRefused(String),
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotRoot => f.write_str("only root mounts a file system"),
            Self::MountRefused(told) => write!(f, "mount: {told}"),
        }
    }
}

/// A file system of its own, this small; unmounted when dropped.
struct SmallDisk {
    path: PathBuf,
    _dir: TempDir,
}

const DISK_KIB: usize = 2048;

impl SmallDisk {
    fn mount() -> Result<Self, Skipped> {
        if !rustix::process::geteuid().is_root() {
            return Err(Skipped::NotRoot);
        }
        let dir = passable_dir();
        let path = dir.path().join("disk");
        std::fs::create_dir(&path).unwrap();
        let output = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={DISK_KIB}k,mode=711"),
                "tmpfs",
            ])
            .arg(&path)
            .output()
            .unwrap();
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Skipped::MountRefused(told));
        }
        Ok(Self { path, _dir: dir })
    }

    /// Takes all room but some.
    fn fill(&self) -> PathBuf {
        let filler = self.path.join("filler");
        let mut kib = DISK_KIB;
        // As much as fits, then a little less, for what is written meanwhile.
        while std::fs::write(&filler, vec![0; kib << 10]).is_err() {
            kib -= 64;
        }
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.path).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// Moves every partition of `transfers` to that disk.
async fn move_transfers(url: &str, place: &Path) {
    let link = Link::open(url).await.unwrap();
    let place = place.display();
    let tablespace = format!("CREATE TABLESPACE small LOCATION '{place}'");
    link.client.batch_execute(&tablespace).await.unwrap();
    link.client
        .batch_execute("GRANT CREATE ON TABLESPACE small TO engine_owner")
        .await
        .unwrap();
    let partitions = link
        .client
        .query(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'transfers'::regclass",
            &[],
        )
        .await
        .unwrap();
    for row in partitions {
        let name: &str = row.get(0);
        let moving = format!("ALTER TABLE {name} SET TABLESPACE small");
        link.client.batch_execute(&moving).await.unwrap();
    }
    link.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_applies_nothing_and_passes() {
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(skipped) => {
            eprintln!("skipped: {skipped}");
            return;
        }
    };
    let private = Private::start(false, &[]).await;
    let url = private.ledger().await;
    let owner = private
        .servers
        .runtime_dir()
        .join("postgres")
        .metadata()
        .unwrap();
    let place = disk.path.join("tablespace");
    std::fs::create_dir(&place).unwrap();
    chown(&place, Some(owner.uid()), Some(owner.gid())).unwrap();
    move_transfers(&url, &place).await;

    let daemon = Daemon::start_on(&url, &["--request-deadline", "3s"]).await;
    daemon.open(4, 1_000).await;
    let load = Load::start(Arc::new(Plan::new(vec![daemon.api], 4, 8)));
    load.until_acknowledged(50).await;
    let filler = disk.fill();
    eventually("full", async || {
        let page = daemon.metrics().await;
        page.sum("engine_commit_retries_total", r#"cause="resources""#) > 0.0
    })
    .await;
    let pay = r#"{"from":0,"to":1,"amount":2}"#;
    eventually("refused", async || {
        let reply = daemon.post_keyed("/transaction", "full", pay).await;
        if reply.status == 200 {
            // A page had room left.
            return false;
        }
        let code = reply.json()["code"].clone();
        assert!(
            code == "database_unavailable"
                || code == "deadline_exceeded"
                || code == "outcome_unknown",
            "{reply:?}"
        );
        true
    })
    .await;
    // Reading goes on.
    assert_eq!(daemon.get("/balance/1?consistent=true").await.status, 200);
    std::fs::remove_file(filler).unwrap();
    let known = load.acknowledged();
    load.until_acknowledged(known + 100).await;
    let report = load.stop().await;
    report.check_waits(Duration::from_secs(4));
    report.check_stored(&url, &[&daemon]).await;
    assert_eq!(daemon.stop().await.code, Some(0));
    verify_at(&url).await;
    private.stop().await;
}
