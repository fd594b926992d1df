//! Finds the commit that is being built, for `posthaste --version`.

use std::{path::Path, process::Command};

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    // A source archive has no .git, and may lie inside somebody else's repository: that one's commit is not ours.
    let found = root.join(".git").exists().then(|| commit(&root)).flatten();
    // An image is built without .git: whoever builds it passes the commit.
    let given = option_env!("BUILD_ID").filter(|id| !id.is_empty()).map(str::to_owned);
    println!("cargo::rustc-env=BUILT_FROM_COMMIT={}", given.or(found).as_deref().unwrap_or("unknown"));
    for file in [".git/HEAD", ".git/logs/HEAD"].map(|file| root.join(file)) {
        if file.exists() {
            println!("cargo::rerun-if-changed={}", file.display());
        }
    }
    println!("cargo::rerun-if-changed=build.rs");
}

fn commit(root: &Path) -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).current_dir(root).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !commit.is_empty()).then_some(commit)
}
