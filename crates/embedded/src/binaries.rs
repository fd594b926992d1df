//! Finds the programs of a Postgres server, or downloads them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use super::{Error, Options, Search, home::Home};

/// The oldest major version that Posthaste supports.
pub(super) const OLDEST: u32 = 15;
/// The major version that is downloaded if none is at hand.
const DOWNLOADED: u32 = 17;
/// How long a download may take before we say which package to install instead.
const PATIENCE: Duration = Duration::from_mins(1);
/// The folders whose sub-folders are searched, and what follows the sub-folder: Debian and Ubuntu, Fedora and RHEL
/// (PGDG), Homebrew on Apple silicon and on Intel.
const NESTED: [(&str, &str, &str); 4] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
];
/// The folders that hold programs themselves; Fedora's own package uses the first.
const FLAT: [&str; 3] = ["/usr/bin", "/usr/local/pgsql/bin", "/usr/lib/postgresql/bin"];

/// The folder of one version's programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binaries {
    folder: PathBuf,
    /// Major and minor version.
    version: (u32, u32),
}

impl Binaries {
    /// The newest version at hand, or the one that made the cluster.
    pub(super) async fn find(home: &Home, options: &Options, made_by: Option<u32>) -> Result<Self, Error> {
        let downloads = home.downloads();
        let mut folders = match &options.search {
            Search::Usual => usual_folders(),
            Search::Only(folders) => folders.clone(),
        };
        folders.extend(sub_folders(&downloads, "", "bin"));
        let found: Vec<_> = folders.iter().filter(|folder| home.owner().may_enter(folder)).filter_map(|folder| Self::at(folder)).collect();
        if let Some(binaries) = newest(found, made_by) {
            return Ok(binaries);
        }
        if !options.download {
            return Err(absent(home, made_by, String::new()));
        }
        let major = made_by.unwrap_or(DOWNLOADED);
        tracing::info!("no Postgres {major} was found: downloading one into {}", downloads.display());
        match tokio::time::timeout(PATIENCE, download(&downloads, major)).await {
            Ok(Ok(binaries)) => Ok(binaries),
            Ok(Err(reason)) => Err(absent(home, made_by, format!(" and it could not be downloaded ({reason})"))),
            Err(_) => Err(absent(home, made_by, format!(" and it could not be downloaded within {} seconds", PATIENCE.as_secs()))),
        }
    }

    /// The path of a program.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What is in this folder, if it is a whole server that is new enough.
    fn at(folder: &Path) -> Option<Self> {
        if !["initdb", "postgres"].iter().all(|program| folder.join(program).is_file()) {
            return None;
        }
        let output = Command::new(folder.join("postgres")).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        let version = version(&String::from_utf8_lossy(&output.stdout))?;
        (version.0 >= OLDEST).then(|| Self { folder: folder.to_owned(), version })
    }
}

/// Reads `postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)`; a beta such as `18beta1` counts as `18.0`.
fn version(text: &str) -> Option<(u32, u32)> {
    let number = text.split_whitespace().nth(2)?;
    let (major, rest) = number.split_at(number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len()));
    let minor = rest.strip_prefix('.').and_then(|minor| minor.parse().ok()).unwrap_or(0);
    Some((major.parse().ok()?, minor))
}

/// The newest of the right major version; the first found among equals.
fn newest(found: Vec<Binaries>, made_by: Option<u32>) -> Option<Binaries> {
    let fits = |binaries: &Binaries| made_by.is_none_or(|major| major == binaries.version.0);
    found.into_iter().filter(fits).reduce(|best, next| if next.version > best.version { next } else { best })
}

fn usual_folders() -> Vec<PathBuf> {
    let nested = NESTED.iter().flat_map(|(parent, prefix, rest)| sub_folders(Path::new(parent), prefix, rest));
    on_path().into_iter().chain(nested).chain(FLAT.iter().map(PathBuf::from)).collect()
}

/// The folder of the `postgres` that a shell would run; links are followed, since a link stands alone in its folder.
fn on_path() -> Option<PathBuf> {
    let output = Command::new("sh").args(["-c", "command -v postgres"]).stdin(Stdio::null()).output().ok()?;
    let program = Path::new(std::str::from_utf8(&output.stdout).ok()?.trim()).canonicalize().ok()?;
    program.parent().map(Path::to_owned)
}

fn sub_folders(parent: &Path, prefix: &str, rest: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let names = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    names.map(|entry| entry.path().join(rest)).collect()
}

#[cfg(not(feature = "download"))]
#[expect(clippy::unused_async, reason = "it stands for one that waits")]
async fn download(_: &Path, _: u32) -> Result<Binaries, String> {
    Err("this program was built without that".to_owned())
}

#[cfg(feature = "download")]
async fn download(folder: &Path, major: u32) -> Result<Binaries, String> {
    let target = super::download::unpack(folder, major).await?;
    Binaries::at(&target.join("bin")).ok_or_else(|| format!("the programs in {} do not run on this system", target.display()))
}

fn absent(home: &Home, made_by: Option<u32>, why: String) -> Error {
    match made_by {
        Some(major) => Error::OtherVersion { home: home.to_string(), major },
        None => Error::NoBinaries(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_postgres_says() {
        assert_eq!(version("postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)\n"), Some((15, 13)));
        assert_eq!(version("postgres (PostgreSQL) 18beta1\n"), Some((18, 0)));
        assert_eq!(version("postgres (PostgreSQL) 17\n"), Some((17, 0)));
        assert_eq!(version("bash: postgres: not found"), None);
    }

    #[test]
    fn the_newest_wins_unless_the_cluster_needs_another() {
        let binaries = |major, minor| Binaries { folder: PathBuf::from(format!("/{major}.{minor}")), version: (major, minor) };
        let found = vec![binaries(15, 3), binaries(17, 1), binaries(16, 9), binaries(15, 13)];
        assert_eq!(newest(found.clone(), None), Some(binaries(17, 1)));
        assert_eq!(newest(found.clone(), Some(15)), Some(binaries(15, 13)));
        assert_eq!(newest(found, Some(14)), None);
    }
}
