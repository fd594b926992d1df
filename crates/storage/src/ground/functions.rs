//! The statements of the hot path: functions that are installed under a version, so that two releases can run side by side.
//!
//! The files of `crates/storage/functions` are their text, and [`SETTINGS`] hold for each. To change one that was released, give it the next
//! version and call that: the old one stays in the databases until a migration removes it, and the change is a diff.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, migrate::MigrateError};

use crate::{Error, connect::refuse};

/// All of them. A test compares them with the folder.
static ALL: [&str; 6] = [
    include_str!("../../functions/cancel.sql"),
    include_str!("../../functions/claim.sql"),
    include_str!("../../functions/messages_of_key.sql"),
    include_str!("../../functions/promote.sql"),
    include_str!("../../functions/record_health.sql"),
    include_str!("../../functions/step.sql"),
];

/// What every one of them has: how it is planned depends on no statistics, for a table that was small when it was planned may be large
/// by the next call. An index in its order, and a loop for each row, is the only way that remains.
const SETTINGS: &str = "
  set jit = off
  set enable_seqscan = off
  set enable_hashjoin = off
  set enable_mergejoin = off
  set enable_bitmapscan = off
  set enable_sort = off
  set plan_cache_mode = force_generic_plan";

/// All that installs a text, and what is noted of it: a text that is the same under other settings is another one.
fn with_settings(source: &str) -> String {
    format!("{source}\nalter function {}{SETTINGS};\n", name_of(source))
}

/// The name under which a text is installed: `step_v1`.
fn name_of(source: &str) -> &str {
    let rest = source.split_once("create function ").map_or("", |(_, rest)| rest);
    rest.split_once('(').map_or(rest, |(name, _)| name)
}

/// The texts that this program needs and the database does not have. One that it has with another text under the same name was
/// changed after it had been installed: whoever calls it could not know what it does.
pub(crate) async fn missing(connection: &mut PgConnection) -> Result<Vec<&'static str>, Error> {
    let installed = sqlx::query!("select name, source from hot_function").fetch_all(connection).await?;
    let mut missing = Vec::new();
    for source in ALL {
        let name = name_of(source);
        match installed.iter().find(|row| row.name == name) {
            Some(row) if row.source == with_settings(source) => {}
            Some(_) => {
                return Err(refuse(format!(
                    "the database has another function `{name}` than this release: a release that was never published made it, so begin with an empty database"
                )));
            }
            None => missing.push(source),
        }
    }
    Ok(missing)
}

/// Installs one of them, in a transaction of its own; returns its name.
pub(crate) async fn install(connection: &mut PgConnection, source: &'static str) -> Result<&'static str, MigrateError> {
    let (name, text) = (name_of(source), with_settings(source));
    let mut tx = connection.begin().await.map_err(MigrateError::Execute)?;
    sqlx::raw_sql(AssertSqlSafe(text.as_str())).execute(&mut *tx).await.map_err(MigrateError::Execute)?;
    sqlx::query!("insert into hot_function (name, source) values ($1, $2)", name, text)
        .execute(&mut *tx)
        .await
        .map_err(MigrateError::Execute)?;
    tx.commit().await.map_err(MigrateError::Execute)?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn every_file_is_a_function_of_its_name_and_a_version() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("functions");
        let files: BTreeSet<_> = fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path()).collect();
        let texts: BTreeSet<_> = files.iter().map(|path| fs::read_to_string(path).expect("text")).collect();
        assert_eq!(texts, ALL.iter().map(|source| (*source).to_owned()).collect(), "`ALL` is the folder");
        for path in files {
            let source = fs::read_to_string(&path).expect("text");
            let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let version = name_of(&source).strip_prefix(&format!("{stem}_v")).unwrap_or_default().parse::<u32>();
            assert!(version.is_ok(), "{} makes `{}`", path.display(), name_of(&source));
            let own = source.lines().find(|line| SETTINGS.lines().any(|setting| !setting.is_empty() && line.contains(setting.trim())));
            assert!(own.is_none(), "{} sets by itself what all have: {own:?}", path.display());
        }
    }
}
