//! The secrets that `dev` makes up once and keeps in its data folder.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};

/// The name of the file in the data folder.
const FILE: &str = "secrets.env";
/// How a secret is named in it: as the variable that would set it.
const MAIN: &str = "POSTHASTE_MAIN_SECRET";
const JWT: &str = "POSTHASTE_JWT_SECRET";

/// What `serve` would have been given.
pub(crate) struct Secrets {
    /// Seals secrets at rest.
    pub(crate) main: String,
    /// Signs bearer tokens.
    pub(crate) jwt: String,
}

/// The secrets of this data folder, if it has any.
pub(crate) fn read(data_dir: &Path) -> Result<Option<Secrets>> {
    let path = path(data_dir);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let value = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.map(str::to_owned).ok_or_else(|| anyhow!("{} holds no {name}: remove the data folder to start afresh", path.display()))
    };
    Ok(Some(Secrets { main: value(MAIN)?, jwt: value(JWT)? }))
}

/// The secrets of this data folder; made up if it has none. Only their owner may read the file.
pub(crate) fn read_or_make(data_dir: &Path) -> Result<Secrets> {
    if let Some(secrets) = read(data_dir)? {
        return Ok(secrets);
    }
    let secrets = Secrets { main: random(), jwt: random() };
    let (path, unfinished) = (path(data_dir), data_dir.join("secrets.env.unfinished"));
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        writeln!(file, "{MAIN}={}\n{JWT}={}", secrets.main, secrets.jwt)?;
        // A crash must not leave a database whose main secret is lost.
        file.sync_all()?;
        fs::rename(&unfinished, &path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(secrets)
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// 256 random bits, in hexadecimal.
pub(crate) fn random() -> String {
    let parts: [u128; 2] = rand::random();
    format!("{:032x}{:032x}", parts[0], parts[1])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn secrets_are_made_once_and_for_their_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(read(folder.path()).expect("no error").is_none());
        let made = read_or_make(folder.path()).expect("secrets");
        let read = read_or_make(folder.path()).expect("secrets");
        assert_eq!((made.main.clone(), made.jwt), (read.main, read.jwt));
        assert!(made.main.len() >= 32);
        let mode = fs::metadata(path(folder.path())).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
