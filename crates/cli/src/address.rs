//! Where the `dev` of a data folder listens, so that other commands find it on whatever port it took.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    net::SocketAddr,
    path::Path,
};

use anyhow::{Context as _, Result};

/// The name of the file in the data folder. It counts only while the process that wrote it holds its lock, which ends
/// with the process in whatever way.
const FILE: &str = "address";

/// Keeps an address known; it is forgotten when this is dropped.
#[derive(Debug)]
pub(crate) struct Published {
    _locked: File,
}

/// Makes an address known. Nothing is returned if somebody else has one to tell in this folder.
pub(crate) fn publish(data_dir: &Path, address: SocketAddr) -> Result<Option<Published>> {
    let path = data_dir.join(FILE);
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        file.set_len(0)?;
        writeln!(file, "{address}")?;
        Ok(Some(Published { _locked: file }))
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// The address of the `dev` that is running with this data folder, if one is.
pub(crate) fn of_running(data_dir: &Path) -> Result<Option<SocketAddr>> {
    let path = data_dir.join(FILE);
    let read = || {
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => io::read_to_string(file).map(Some),
            Err(TryLockError::Error(error)) => Err(error),
        }
    };
    let text = read().with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.and_then(|text| text.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_known_while_somebody_listens_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let (first, second) = (SocketAddr::from(([127, 0, 0, 1], 1)), SocketAddr::from(([127, 0, 0, 1], 23_456)));
        assert_eq!(of_running(folder.path()).expect("no error"), None);
        let published = publish(folder.path(), second).expect("no error").expect("nobody else is there");
        assert_eq!(of_running(folder.path()).expect("no error"), Some(second));
        assert!(publish(folder.path(), first).expect("no error").is_none(), "one at a time");
        drop(published);
        assert_eq!(of_running(folder.path()).expect("no error"), None);
        let published = publish(folder.path(), first).expect("no error");
        assert_eq!((published.is_some(), of_running(folder.path()).expect("no error")), (true, Some(first)));
    }
}
