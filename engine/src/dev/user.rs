//! Who the servers run as: ourselves, or another user when we are root.
//!
//! PostgreSQL refuses root, because whoever breaks into it would own the machine.

use std::ffi::OsStr;
use std::path::Path;

use tokio::process::Command;

use super::DevError;

/// Users root may run the servers as, best first. Debian's package makes the
/// first; the second exists everywhere.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// Who the servers run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerUser {
    /// The user who started us.
    Ourselves,
    /// Another one, because we are root.
    Other {
        /// User id.
        uid: u32,
        /// Its primary group.
        gid: u32,
    },
}

impl ServerUser {
    pub(super) fn choose() -> Result<Self, DevError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Ourselves);
        }
        let path = Path::new("/etc/passwd");
        let passwd =
            std::fs::read_to_string(path).map_err(DevError::io("read the users in", path))?;
        CANDIDATES
            .iter()
            .find_map(|name| look_up(&passwd, name))
            .ok_or(DevError::NoServerUser)
    }

    /// The owner of what the servers write.
    pub(super) fn uid(self) -> u32 {
        match self {
            Self::Ourselves => rustix::process::geteuid().as_raw(),
            Self::Other { uid, .. } => uid,
        }
    }

    /// A command that runs as this user, in `home`, out of reach of the
    /// terminal's Ctrl-C, and with no environment but the search path: PGPORT
    /// or a locale of the caller must not reach the servers.
    pub(super) fn command(self, program: &Path, home: &Path, search_path: &OsStr) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", search_path)
            .env("LC_ALL", "C")
            .current_dir(home)
            .process_group(0)
            .stdin(std::process::Stdio::null());
        if let Self::Other { uid, gid } = self {
            // The standard library also drops root's other groups.
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Makes `path` this user's.
    pub(super) fn own(self, path: &Path) -> Result<(), DevError> {
        match self {
            Self::Ourselves => Ok(()),
            Self::Other { uid, gid } => std::os::unix::fs::lchown(path, Some(uid), Some(gid))
                .map_err(DevError::io("change the owner of", path)),
        }
    }

    /// Whether this user can enter `path`, asked of the kernel rather than read
    /// from mode bits, which know neither groups nor access lists.
    pub(super) async fn can_enter(self, path: &Path) -> bool {
        match self {
            Self::Ourselves => true,
            Self::Other { .. } => self
                .command(Path::new("/bin/true"), path, OsStr::new(""))
                .status()
                .await
                .is_ok(),
        }
    }
}

/// Finds a user in the format of passwd(5): name:password:uid:gid:...
fn look_up(passwd: &str, name: &str) -> Option<ServerUser> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(ServerUser::Other { uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken:x\npostgres2:x:9:9::/:/bin/sh\n\
                          postgres:x:101:104:PostgreSQL,,,:/var/lib/postgresql:/bin/bash\n";

    #[test]
    fn users_are_found_by_their_whole_name() {
        let expected = ServerUser::Other { uid: 101, gid: 104 };
        assert_eq!(look_up(PASSWD, "postgres"), Some(expected));
        assert_eq!(look_up(PASSWD, "post"), None);
        assert_eq!(look_up(PASSWD, "broken"), None);
        assert_eq!(look_up("", "postgres"), None);
    }
}
