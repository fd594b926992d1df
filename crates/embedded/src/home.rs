//! The folder of a cluster, the user whom it belongs to, and the lock that keeps a second process out.
//!
//! As root, Postgres runs as an unprivileged user, who must be able to reach the cluster. The cluster is in
//! `DATA_DIR/postgres` if that user may walk there; else (a data folder below `/root`, say) it is in a folder of its own
//! below `/var/lib/posthaste`, and `DATA_DIR/postgres` is a link to it. The name there is random and not made from the
//! path, so that a data folder that was deleted and made anew starts afresh, like the secrets that lie beside it.

use std::{
    fmt,
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io,
    os::unix::{
        fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::Error;

/// Where clusters of root go if their owner may not walk into the data folder.
const FALLBACK: &str = "/var/lib/posthaste";
/// The longest path of a socket that every Unix can bind is 103 bytes; this many are for the folder, the rest for
/// `/.s.PGSQL.5432.lock`.
const LONGEST_SOCKET_FOLDER: usize = 80;

/// The user whom a cluster belongs to and whom its programs run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    uid: u32,
    gid: u32,
    /// Whether we are root and somebody else is the owner.
    is_other: bool,
}

impl Owner {
    fn choose() -> Self {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        if uid != 0 {
            return Self { uid, gid, is_other: false };
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let (uid, gid) = ["postgres", "nobody"].iter().find_map(|name| ids_of(&users, name)).unwrap_or((65534, 65534));
        Self { uid, gid, is_other: true }
    }

    /// Makes a command run as this user, away from folders that he may not enter, and untouched by settings that are
    /// meant for clients.
    pub(super) fn apply(self, command: &mut Command) {
        if self.is_other {
            command.uid(self.uid).gid(self.gid);
        }
        command.current_dir("/").env("LC_ALL", "C").env("LANG", "C");
        for name in ["PGDATA", "PGHOST", "PGPORT", "PGOPTIONS", "PGTZ", "PGDATESTYLE"] {
            command.env_remove(name);
        }
    }

    /// Whether this user may walk into `folder`. If we are that user, the attempt itself will tell.
    pub(super) fn may_enter(self, folder: &Path) -> bool {
        let Ok(folder) = folder.canonicalize() else { return false };
        !self.is_other || folder.ancestors().all(|step| fs::metadata(step).is_ok_and(|step| self.may_search(&step)))
    }

    fn may_search(self, folder: &fs::Metadata) -> bool {
        let bit = match (folder.uid() == self.uid, folder.gid() == self.gid) {
            (true, _) => 0o100,
            (false, true) => 0o010,
            (false, false) => 0o001,
        };
        folder.mode() & bit != 0
    }

    fn own(self, path: &Path) -> io::Result<()> {
        if self.is_other { chown(path, Some(self.uid), Some(self.gid)) } else { Ok(()) }
    }

    /// Makes a folder that only this user (and root) may enter, unless it is there.
    fn make_private(self, folder: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => self.own(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let found = fs::symlink_metadata(folder)?;
                let is_ours = found.is_dir() && found.uid() == self.uid && found.mode() & 0o777 == 0o700;
                if is_ours { Ok(()) } else { Err(io::Error::other("it belongs to somebody else, or others may enter it")) }
            }
            Err(error) => Err(error),
        }
    }
}

/// The user and group id of `name` in a text like `/etc/passwd`.
fn ids_of(users: &str, name: &str) -> Option<(u32, u32)> {
    let fields: Vec<_> = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name)?;
    Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
}

/// The folder of a cluster, locked for this process.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    owner: Owner,
    /// The lock goes when this is dropped, or with the process.
    #[cfg_attr(not(test), expect(dead_code, reason = "it is held, not read"))]
    lock: File,
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl Home {
    /// Finds or makes the folder, and locks it.
    pub(super) fn open(data_dir: &Path) -> Result<Self, Error> {
        let owner = Owner::choose();
        let at = |error| Error::Folder(data_dir.display().to_string(), error);
        // Others may walk through the data folder, if they know a name in it, but not list it.
        DirBuilder::new().recursive(true).mode(0o711).create(data_dir).map_err(at)?;
        let data_dir = data_dir.canonicalize().map_err(at)?;
        let path = place(&data_dir, owner)?;
        let lock = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock")).map_err(folder(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, owner, lock }),
            Err(TryLockError::WouldBlock) => Err(Error::InUse(data_dir.display().to_string())),
            Err(TryLockError::Error(error)) => Err(folder(&path)(error)),
        }
    }

    /// Whom it belongs to.
    pub(super) fn owner(&self) -> Owner {
        self.owner
    }

    /// The cluster itself: what Postgres calls PGDATA.
    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Where the server logs to.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where programs are downloaded to.
    pub(super) fn downloads(&self) -> PathBuf {
        self.path.join("postgres-binaries")
    }

    /// The major version that made the cluster; none if there is no cluster yet.
    pub(super) fn made_by(&self) -> Result<Option<u32>, Error> {
        match fs::read_to_string(self.data().join("PG_VERSION")) {
            Ok(text) => Ok(Some(text.trim().parse().map_err(io::Error::other).map_err(folder(&self.data()))?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(folder(&self.data())(error)),
        }
    }

    /// An empty folder for a cluster that is being made; what an interrupted attempt left is removed.
    pub(super) fn new_unfinished_data(&self) -> Result<PathBuf, Error> {
        let unfinished = self.path.join("data.unfinished");
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(folder(&unfinished)(error)),
            _ => self.owner.make_private(&unfinished).map_err(folder(&unfinished))?,
        }
        Ok(unfinished)
    }

    /// Makes the unfinished cluster the cluster.
    pub(super) fn accept_unfinished_data(&self) -> Result<(), Error> {
        fs::rename(self.path.join("data.unfinished"), self.data()).map_err(folder(&self.data()))
    }

    /// The folder of the socket: inside the home, or in `/tmp` under a name made from the home's if that is too long.
    pub(super) fn socket_folder(&self) -> Result<String, Error> {
        let inside = self.path.join("socket");
        let path = if inside.as_os_str().len() <= LONGEST_SOCKET_FOLDER {
            inside
        } else {
            let digest = Sha256::digest(self.path.as_os_str().as_encoded_bytes());
            let name = u64::from_be_bytes(std::array::from_fn(|at| digest[at]));
            PathBuf::from(format!("/tmp/posthaste-{name:016x}"))
        };
        self.owner.make_private(&path).map_err(folder(&path))?;
        path.to_str()
            .filter(|path| !path.contains([',', '\'', '"', '\\']) && !path.contains(char::is_control))
            .map(str::to_owned)
            .ok_or_else(|| Error::Path(path.display().to_string()))
    }

    #[cfg(test)]
    pub(super) fn unlock(&self) {
        self.lock.unlock().expect("a lock");
    }

    /// Moves the log of the last run aside and opens an empty one.
    pub(super) fn new_log(&self) -> Result<File, Error> {
        let _ = fs::rename(self.log(), self.path.join("log.previous"));
        let log = File::create(self.log()).map_err(folder(&self.log()))?;
        log.set_permissions(Permissions::from_mode(0o600)).map_err(folder(&self.log()))?;
        Ok(log)
    }
}

/// Finds or makes the cluster's home; see the head of this file.
fn place(data_dir: &Path, owner: Owner) -> Result<PathBuf, Error> {
    let usual = data_dir.join("postgres");
    if let Ok(found) = usual.canonicalize()
        && owner.may_enter(&found)
    {
        return Ok(found);
    }
    let is_reachable = data_dir.parent().is_none_or(|parent| owner.may_enter(parent));
    if owner.is_other && is_reachable && !owner.may_enter(data_dir) {
        // Only the data folder itself is in the way: let others walk through it, but not list it.
        let mode = fs::metadata(data_dir).map_err(folder(data_dir))?.mode();
        fs::set_permissions(data_dir, Permissions::from_mode(mode | 0o111)).map_err(folder(data_dir))?;
    }
    if owner.may_enter(data_dir) {
        owner.make_private(&usual).map_err(folder(&usual))?;
        return Ok(usual);
    }
    let elsewhere = Path::new(FALLBACK).join(Uuid::new_v4().simple().to_string());
    DirBuilder::new().recursive(true).mode(0o711).create(FALLBACK).map_err(folder(Path::new(FALLBACK)))?;
    owner.make_private(&elsewhere).map_err(folder(&elsewhere))?;
    if usual.is_symlink() {
        fs::remove_file(&usual).map_err(folder(&usual))?;
    }
    symlink(&elsewhere, &usual).map_err(folder(&usual))?;
    Ok(elsewhere)
}

fn folder(path: &Path) -> impl Fn(io::Error) -> Error {
    move |error| Error::Folder(path.display().to_string(), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_from_the_list_of_users() {
        let users = "root:x:0:0:root:/root:/bin/bash\npostgres:x:101:104:PostgreSQL,,,:/var/lib/postgresql:/bin/bash\n";
        assert_eq!(ids_of(users, "postgres"), Some((101, 104)));
        assert_eq!(ids_of(users, "nobody"), None);
    }
}
