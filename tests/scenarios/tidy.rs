//! The tree keeps to its own rules: who may use whom, how long things are, and that nothing lies around unused.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// What each crate of ours depends on in its own code.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version=1", "--no-deps", "--offline"]).current_dir(root());
    let output = command.output().expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let of = |package: &Value| {
        let names =
            package["dependencies"].as_array().expect("a list").iter().filter(|one| one["kind"].is_null()).map(|one| text(&one["name"]));
        (text(&package["name"]), names.collect())
    };
    metadata["packages"].as_array().expect("a list").iter().map(of).collect()
}

#[test]
fn crates_depend_on_each_other_in_one_direction() {
    let found = dependencies();
    let allowed = [
        ("domain", vec![]),
        ("embedded", vec![]),
        ("storage", vec!["domain"]),
        ("worker", vec!["domain", "storage"]),
        ("api", vec!["domain", "storage"]),
        ("bench", vec!["domain", "embedded", "storage"]),
        ("cli", vec!["domain", "embedded", "storage", "worker", "api", "bench"]),
    ];
    let ours: BTreeSet<_> = found.keys().cloned().collect();
    assert_eq!(ours, allowed.iter().map(|(name, _)| (*name).to_owned()).chain(["tests".to_owned()]).collect());
    for (name, may_use) in allowed {
        let uses = found[name].iter().filter(|dependency| ours.contains(*dependency));
        let wrong: Vec<_> = uses.filter(|dependency| !may_use.contains(&dependency.as_str())).collect();
        assert!(wrong.is_empty(), "{name} must not depend on {wrong:?}");
    }
}

#[test]
fn libraries_stay_behind_their_fences() {
    let found = dependencies();
    let fences: [(&str, &[&str]); 12] = [
        ("axum", &["api"]),
        ("utoipa", &["api"]),
        ("utoipa-axum", &["api"]),
        ("jsonwebtoken", &["api"]),
        ("sqlx", &["embedded", "storage"]),
        ("prometheus-client", &["storage"]),
        ("apalis", &["worker"]),
        ("apalis-core", &["worker"]),
        ("hyper-util", &["api", "bench", "worker"]),
        ("reqwest", &["cli"]),
        ("clap", &["cli"]),
        ("anyhow", &["cli"]),
    ];
    for (library, inside) in fences {
        let users = found.iter().filter(|(name, uses)| *name != "tests" && uses.contains(library)).map(|(name, _)| name);
        let wrong: Vec<_> = users.filter(|name| !inside.contains(&name.as_str())).collect();
        assert!(wrong.is_empty(), "{library} belongs to {inside:?}, but {wrong:?} use it");
    }
    for pure in ["tokio", "sqlx", "axum", "serde", "reqwest"] {
        assert!(!found["domain"].contains(pure), "domain is pure: no {pure}");
    }
    let naming_apalis: Vec<_> =
        rust_files().into_iter().filter(|(_, text)| code(text).any(|line| line.contains("apalis"))).map(|(path, _)| path).collect();
    let allowed = |path: &PathBuf| path.ends_with("worker/src/queue.rs") || path.ends_with("tests/scenarios/tidy.rs");
    assert!(naming_apalis.iter().all(allowed), "worker/queue.rs is the only file that names apalis: {naming_apalis:?}");
}

/// Every Rust file of ours, with its text.
fn rust_files() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = ["crates", "examples", "tests"].map(|name| root().join(name)).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() && entry.file_name() != "target" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("text");
                files.push((path, text));
            }
        }
    }
    assert!(files.len() > 40, "the tree was not found");
    files
}

/// The lines that are neither blank nor comment.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//"))
}

#[test]
fn every_file_says_its_job_in_its_first_line_and_has_one() {
    for (path, text) in rust_files() {
        let shown = path.display();
        assert!(text.starts_with("//! "), "{shown} does not begin with a `//!` sentence");
        let lines = code(&text).count();
        assert!(lines <= 400, "{shown} has {lines} lines of code: is it two rooms?");
        for word in ["utils", "common", "helpers", "misc"] {
            assert!(path.file_stem().is_none_or(|stem| stem != word), "{shown}: a name that says nothing");
        }
    }
}

#[test]
fn no_function_is_longer_than_a_screen() {
    for (path, text) in rust_files() {
        let mut begun: Option<(usize, &str, usize)> = None;
        for line in code(&text) {
            let indent = line.len() - line.trim_start().len();
            let words = line.trim_start();
            let is_function = [
                "fn ",
                "pub fn ",
                "async fn ",
                "pub async fn ",
                "pub(crate) fn ",
                "pub(crate) async fn ",
                "pub(super) fn ",
                "pub(super) async fn ",
            ]
            .iter()
            .any(|start| words.starts_with(start));
            match &mut begun {
                None if is_function && !words.ends_with(';') && !words.ends_with('}') => begun = Some((indent, words, 1)),
                Some((outer, name, lines)) => {
                    *lines += 1;
                    if indent == *outer && words.starts_with('}') {
                        assert!(*lines <= 62, "{}: `{name}` has {lines} lines", path.display());
                        begun = None;
                    }
                }
                None => {}
            }
        }
    }
}

#[test]
fn every_function_of_the_database_is_used() {
    let entries = fs::read_dir(root().join("crates/storage/functions")).expect("the functions");
    let sources: String =
        rust_files().into_iter().filter(|(path, _)| path.starts_with(root().join("crates/storage"))).map(|(_, text)| text).collect();
    for entry in entries.flatten() {
        let name = entry.file_name().into_string().expect("a plain name");
        assert!(sources.contains(&name), "functions/{name} is not used");
    }
}

#[test]
fn migrations_are_numbered_without_gaps() {
    let entries = fs::read_dir(root().join("migrations"))
        .expect("migrations")
        .flatten()
        .map(|entry| entry.file_name().into_string().expect("a plain name"));
    let numbers: BTreeSet<u32> = entries
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "sql"))
        .map(|name| name[..4].parse().expect("a number of four digits"))
        .collect();
    assert_eq!(numbers, (1..=u32::try_from(numbers.len()).expect("a few")).collect());
}

#[test]
fn nothing_in_the_tree_names_a_folder_of_one_machine() {
    for (path, text) in rust_files() {
        let strange = text
            .lines()
            .find(|line| [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/fa", "rm/")].iter().any(|folder| line.contains(folder)));
        assert!(strange.is_none(), "{}: {strange:?}", path.display());
    }
}

#[test]
fn every_break_still_fits_and_names_a_test() {
    let sources: String = rust_files().into_iter().map(|(_, text)| text).collect();
    let patches = fs::read_dir(root().join("tests/breaks")).expect("breaks").flatten().map(|entry| entry.path());
    for path in patches.filter(|path| path.extension().is_some_and(|extension| extension == "patch")) {
        let (shown, text) = (path.display(), fs::read_to_string(&path).expect("a patch"));
        let test = text.lines().find_map(|line| line.strip_prefix("Goes red: ")).unwrap_or_else(|| panic!("{shown} names no test"));
        let function = test.rsplit("::").next().expect("a name");
        assert!(sources.contains(&format!("fn {function}(")), "{shown}: there is no test {test}");
        let mut target = String::new();
        let mut lines = text.lines().skip_while(|line| !line.starts_with("--- a/")).peekable();
        while let Some(line) = lines.next() {
            if let Some(file) = line.strip_prefix("--- a/") {
                target = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{shown}: {file}: {error}"));
            } else if line.starts_with("@@") {
                let mut old = String::new();
                while let Some(line) = lines.next_if(|line| !line.starts_with("@@") && !line.starts_with("--- a/")) {
                    if let Some(there) = line.strip_prefix([' ', '-']).or_else(|| line.is_empty().then_some("")) {
                        old.push_str(there);
                        old.push('\n');
                    }
                }
                assert!(target.contains(&old), "{shown} does not fit any more: these lines are gone\n{old}");
            }
        }
    }
}
