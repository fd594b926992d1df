//! No modules of a crate use each other in a circle, so that each can be read, moved and tested with those below it alone.
//!
//! The files are read as text: `use crate::…`, `use super::…` and paths that begin with `crate::`. A name that a crate's root takes from
//! one of its modules counts as that module's. The root itself stands above all of them and is not asked; nor is what tests use.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Crates whose modules still use each other in circles.
const NOT_YET: [&str; 1] = ["storage"];

/// The modules that each module of a crate uses.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// The text without comments and without what is there for tests alone.
fn shipped(text: &str) -> String {
    let lines = text.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
    let text = lines.collect::<Vec<_>>().join("\n");
    // Tests are the last thing in a file; what only they use elsewhere is one item.
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let mut rest = &text[..end];
    let mut kept = String::new();
    while let Some((before, item)) = rest.split_once("#[cfg(test)]\n") {
        kept.push_str(before);
        rest = item.split_once(';').map_or("", |(_, after)| after);
    }
    kept + rest
}

/// The paths that a `use` names: `a::{b, c::{d, e}}` names three.
fn paths(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let Some((prefix, group)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or_default();
        return vec![name.split("::").map(|part| part.trim().to_owned()).collect()];
    };
    let prefix: Vec<_> = prefix.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let (mut depth, mut begin, mut found) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                found.push(&group[begin..at]);
                begin = at + 1;
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    let of_group = found.into_iter().filter(|part| !part.trim().is_empty()).flat_map(paths);
    of_group.map(|path| prefix.iter().cloned().chain(path).collect()).collect()
}

/// Every path that a text names, if it begins in its own crate; `depth` is how far its module is from the root.
fn paths_of(text: &str, depth: usize) -> Vec<Vec<String>> {
    let statements = text.split("use ").skip(1).filter_map(|rest| rest.split_once(';')).flat_map(|(tree, _)| paths(tree));
    let inline = text.split("crate::").skip(1).map(|rest| {
        let path = rest.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').next().unwrap_or_default();
        ["crate"].into_iter().chain(path.split("::")).map(str::to_owned).collect::<Vec<_>>()
    });
    let absolute = |path: Vec<String>| {
        let ups = path.iter().take_while(|part| *part == "super").count();
        match path.first().map(String::as_str) {
            Some("crate") => Some(path[1..].to_vec()),
            Some("super") if ups == depth => Some(path[ups..].to_vec()),
            _ => None,
        }
    };
    statements.chain(inline).filter_map(absolute).filter(|path| path.first().is_some_and(|name| !name.is_empty())).collect()
}

/// The modules that a root declares.
fn declared(root: &str) -> BTreeSet<String> {
    let names = root.lines().filter_map(|line| {
        let item = line.strip_prefix("pub ").or_else(|| line.strip_prefix("pub(crate) ")).unwrap_or(line);
        item.strip_prefix("mod ")?.strip_suffix(';')
    });
    names.map(str::to_owned).collect()
}

fn uses_of_crate(source: &Path) -> Uses {
    let root = shipped(&fs::read_to_string(source.join("lib.rs")).expect("a root"));
    let modules = declared(&root);
    let taken: BTreeMap<_, _> = root
        .split("use ")
        .skip(1)
        .filter_map(|rest| rest.split_once(';'))
        .flat_map(|(tree, _)| paths(tree))
        .map(|path| if path[0] == "crate" || path[0] == "self" { path[1..].to_vec() } else { path })
        .filter(|path| path.len() > 1 && modules.contains(&path[0]))
        .map(|path| (path[path.len() - 1].clone(), path[0].clone()))
        .collect();
    let mut uses = Uses::new();
    let mut folders = vec![source.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let inside = path.strip_prefix(source).expect("a file of the crate").with_extension("");
            let mut names: Vec<_> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            if names.last().is_some_and(|name| name == "mod") {
                names.pop();
            }
            if !modules.contains(&names[0]) || names.iter().any(|name| name == "tests" || name == "patterns") {
                continue;
            }
            let text = shipped(&fs::read_to_string(&path).expect("text"));
            let used = paths_of(&text, names.len()).into_iter().filter_map(|path| {
                let name = &path[0];
                if modules.contains(name) { Some(name.clone()) } else { taken.get(name).cloned() }
            });
            let module = uses.entry(names[0].clone()).or_default();
            module.extend(used.filter(|used| *used != names[0]));
        }
    }
    uses
}

/// A circle, if there is one: takes away what uses nothing that is left, until nothing is or nothing can be.
fn circle(uses: &Uses) -> BTreeSet<String> {
    let mut left: BTreeSet<_> = uses.keys().cloned().collect();
    loop {
        let uses_another = |module: &String| uses[module].iter().any(|used| left.contains(used));
        let rest: BTreeSet<_> = left.iter().filter(|module| uses_another(module)).cloned().collect();
        if rest.len() == left.len() {
            return rest;
        }
        left = rest;
    }
}

#[test]
fn no_modules_of_a_crate_use_each_other_in_a_circle() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("crates");
    let mut seen = 0;
    for entry in fs::read_dir(crates).expect("crates").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let uses = uses_of_crate(&entry.path().join("src"));
        seen += uses.values().map(BTreeSet::len).sum::<usize>();
        let circle = circle(&uses);
        if NOT_YET.contains(&name.as_str()) {
            assert!(!circle.is_empty(), "{name} has no circles any more: take it off the list");
            continue;
        }
        let arrows: Vec<_> = circle.iter().map(|module| format!("{module} uses {:?}", uses[module].intersection(&circle))).collect();
        assert!(circle.is_empty(), "modules of {name} use each other in a circle:\n{}", arrows.join("\n"));
    }
    assert!(seen > 50, "the modules were not found: {seen} arrows");
}

#[test]
fn circles_are_found_and_other_arrows_are_not() {
    let named = |text: &str, depth| paths_of(text, depth).into_iter().map(|path| path.join("::")).collect::<Vec<_>>();
    let text = "use crate::{a::{B, c::D}, E};\nuse std::fmt;\nlet x = crate::f::g();";
    assert_eq!(named(text, 1), ["a::B", "a::c::D", "E", "f::g"]);
    assert_eq!(named("use super::{a, b::C};", 1), ["a", "b::C"]);
    assert_eq!(named("use super::a;", 2), Vec::<String>::new(), "a neighbour in the same module");
    let text = "use crate::a::B;\n#[cfg(test)]\nuse crate::c::D;\nfn f() {}\n#[cfg(test)]\nmod tests {\n use crate::e::F;\n}";
    assert_eq!(named(&shipped(text), 1), ["a::B", "a::B"]);
    let uses = |arrows: &[(&str, &[&str])]| -> Uses {
        arrows.iter().map(|(from, to)| ((*from).to_owned(), to.iter().map(ToString::to_string).collect())).collect()
    };
    assert!(circle(&uses(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])])).is_empty());
    let found = circle(&uses(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"]), ("d", &[])]));
    assert!(found.contains("b") && found.contains("c") && !found.contains("d"), "{found:?}");
}
