//! Where the installed PostgreSQL and Redis are.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::DevError;

/// The first release whose SQL the migrations use.
const POSTGRES_MAJOR_MIN: u32 = 15;
/// Debian and Ubuntu keep each major version beside the others, off the PATH.
const DEBIAN_ROOT: &str = "/usr/lib/postgresql";
const POSTGRES_ADVICE: &str =
    "apt-get install postgresql (version 15 or later), or name its folder with --postgres-bin-dir";

/// A PostgreSQL installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Postgres {
    pub(super) initdb: PathBuf,
    pub(super) postgres: PathBuf,
    pub(super) major: u32,
}

/// Finds PostgreSQL: the folder named, else the version of the existing data,
/// else the newest.
pub(super) async fn find_postgres(
    bin_dir: Option<&Path>,
    search_path: &OsStr,
    data_major: Option<u32>,
    data: &Path,
) -> Result<Postgres, DevError> {
    let found = match bin_dir {
        Some(dir) => vec![inspect(dir).await?],
        None => installed(search_path).await,
    };
    let newest = choose(&found, data_major).ok_or(match data_major {
        Some(data_major) if !found.is_empty() => DevError::PostgresVersionChanged {
            data_major,
            data: data.to_owned(),
        },
        Some(_) | None => DevError::ProgramMissing {
            program: "PostgreSQL",
            advice: POSTGRES_ADVICE,
        },
    })?;
    if newest.major < POSTGRES_MAJOR_MIN {
        return Err(DevError::PostgresTooOld {
            program: newest.postgres.clone(),
            major: newest.major,
        });
    }
    Ok(newest.clone())
}

fn choose(found: &[Postgres], data_major: Option<u32>) -> Option<&Postgres> {
    found
        .iter()
        .filter(|one| data_major.is_none_or(|major| one.major == major))
        .max_by_key(|one| one.major)
}

async fn installed(search_path: &OsStr) -> Vec<Postgres> {
    let debian = std::fs::read_dir(DEBIAN_ROOT)
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"));
    let mut found = Vec::new();
    for dir in debian.chain(std::env::split_paths(search_path)) {
        // A folder without both programs is simply not an installation.
        if let Ok(one) = inspect(&dir).await {
            found.push(one);
        }
    }
    found
}

async fn inspect(dir: &Path) -> Result<Postgres, DevError> {
    let missing = || DevError::ProgramMissing {
        program: "PostgreSQL",
        advice: POSTGRES_ADVICE,
    };
    // PATH usually holds links into the real folder, beside which initdb finds
    // its share files.
    let find = |program| {
        let path = dir.join(program);
        std::fs::canonicalize(&path).map_err(DevError::io("find", path))
    };
    let (postgres, initdb) = (find("postgres")?, find("initdb")?);
    let output = Command::new(&postgres)
        .arg("--version")
        .output()
        .await
        .map_err(DevError::io("run", &postgres))?;
    let major = major(&String::from_utf8_lossy(&output.stdout)).ok_or_else(missing)?;
    Ok(Postgres {
        initdb,
        postgres,
        major,
    })
}

/// Reads `postgres (PostgreSQL) 15.8 (Debian 15.8-0)`, `... 17beta1`.
fn major(version: &str) -> Option<u32> {
    let number = version.split(") ").nth(1)?;
    let end = number
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(number.len());
    number[..end].parse().ok()
}

/// Finds `redis-server`, or its fork `valkey-server`, on the search path.
pub(super) fn find_redis(search_path: &OsStr) -> Option<PathBuf> {
    ["redis-server", "valkey-server"]
        .iter()
        .find_map(|program| {
            std::env::split_paths(search_path)
                .map(|dir| dir.join(program))
                .find(|path| path.is_file())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_postgres_prints_them() {
        assert_eq!(
            major("postgres (PostgreSQL) 15.8 (Debian 15.8-0)"),
            Some(15)
        );
        assert_eq!(major("postgres (PostgreSQL) 17beta1\n"), Some(17));
        assert_eq!(major("postgres (PostgreSQL) 9.6.24"), Some(9));
        assert_eq!(major("postgres"), None);
        assert_eq!(major("postgres (PostgreSQL) devel"), None);
    }

    #[test]
    fn existing_data_keeps_its_version_and_new_data_takes_the_newest() {
        let one = |major| Postgres {
            initdb: PathBuf::new(),
            postgres: PathBuf::new(),
            major,
        };
        let found = [one(15), one(17), one(16)];
        assert_eq!(choose(&found, None), Some(&one(17)));
        assert_eq!(choose(&found, Some(16)), Some(&one(16)));
        assert_eq!(choose(&found, Some(14)), None);
        assert_eq!(choose(&[], None), None);
    }
}
