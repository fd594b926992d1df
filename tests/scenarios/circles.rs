//! No modules of a crate use each other in a circle, so that each can be read, moved and tested with those below it alone.
//!
//! And a crate that has floors is built from the ground: what is on one uses nothing above it.
//!
//! The files are read as text: `use crate::…`, `use super::…` and paths that begin with `crate::`. A name that a crate's root takes from
//! one of its modules counts as that module's. The root itself stands above all of them and is not asked; nor is what tests use.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// The crates that have floors, each with the lowest one first: folders whose modules stand for themselves.
const FLOORS: [(&str, &[&str]); 1] = [("storage", &["ground", "records", "hot"])];
/// The maps of `ARCHITECTURE.md`: whose modules they name, each in the first column of a table.
const MAPS: [&str; 2] = ["api", "storage"];

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

/// Every path that a text names, if it begins in its own crate: from the crate's root, whichever way it is written in the module `at`.
fn paths_of(text: &str, at: &[String]) -> Vec<Vec<String>> {
    let statements = text.split("use ").skip(1).filter_map(|rest| rest.split_once(';')).flat_map(|(tree, _)| paths(tree));
    let inline = text.split("crate::").skip(1).map(|rest| {
        let path = rest.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').next().unwrap_or_default();
        ["crate"].into_iter().chain(path.split("::")).map(str::to_owned).collect::<Vec<_>>()
    });
    let absolute = |path: Vec<String>| {
        let ups = path.iter().take_while(|part| *part == "super").count();
        match path.first().map(String::as_str) {
            Some("crate") => Some(path[1..].to_vec()),
            Some("super") if ups <= at.len() => Some([&at[..at.len() - ups], &path[ups..]].concat()),
            Some("self") => Some([at, &path[1..]].concat()),
            _ => None,
        }
    };
    statements.chain(inline).filter_map(absolute).filter(|path| path.first().is_some_and(|name| !name.is_empty())).collect()
}

/// The modules that a root, or a floor, declares.
fn declared(root: &str) -> BTreeSet<String> {
    let names = root.lines().filter_map(|line| {
        let item = line.strip_prefix("pub ").or_else(|| line.strip_prefix("pub(crate) ")).unwrap_or(line);
        item.strip_prefix("mod ")?.strip_suffix(';')
    });
    names.map(str::to_owned).collect()
}

/// A crate as its files show it.
struct House {
    /// Each text, by the path of its module.
    files: Vec<(Vec<String>, String)>,
    /// The modules: those of the root, but for its floors, whose own modules count.
    modules: BTreeSet<String>,
    /// Names that the root takes from modules, and the paths that they stand for.
    taken: BTreeMap<String, Vec<String>>,
}

impl House {
    fn read(name: &str) -> Self {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("crates");
        let source = crates.join(name).join("src");
        let read = |path: &Path| shipped(&fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        let root = read(&source.join("lib.rs"));
        let of_root = declared(&root);
        let mut modules = of_root.clone();
        for floor in floors(name) {
            assert!(modules.remove(*floor), "{name} has no floor `{floor}`");
            let inside = declared(&read(&source.join(floor).join("mod.rs")));
            modules.extend(inside.iter().map(|module| format!("{floor}::{module}")));
        }
        let uses = root.split("use ").skip(1).filter_map(|rest| rest.split_once(';')).flat_map(|(tree, _)| paths(tree));
        let within = uses.map(|path| if path[0] == "crate" || path[0] == "self" { path[1..].to_vec() } else { path });
        let taken = within.filter(|path| path.len() > 1 && of_root.contains(&path[0]));
        let taken = taken.map(|path| (path[path.len() - 1].clone(), path)).collect();
        let mut files = Vec::new();
        let mut folders = vec![source.clone()];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()) {
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let inside = path.strip_prefix(&source).expect("a file of the crate").with_extension("");
                let mut names: Vec<_> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
                if names.last().is_some_and(|name| name == "mod") {
                    names.pop();
                }
                if !names.iter().any(|name| name == "tests" || name == "patterns") {
                    files.push((names, read(&path)));
                }
            }
        }
        Self { files, modules, taken }
    }

    /// The module that a path from the root leads into.
    fn module(&self, path: &[String]) -> Option<String> {
        let of = |path: &[String]| {
            let names = [path.iter().take(1), path.iter().take(2)].map(|names| names.cloned().collect::<Vec<_>>().join("::"));
            names.into_iter().find(|name| self.modules.contains(name))
        };
        of(path).or_else(|| of(self.taken.get(path.first()?)?))
    }

    fn uses(&self) -> Uses {
        let mut uses: Uses = self.modules.iter().map(|module| (module.clone(), BTreeSet::new())).collect();
        for (at, text) in &self.files {
            let Some(module) = self.module(at) else { continue };
            let used = paths_of(text, at).into_iter().filter_map(|path| self.module(&path)).filter(|used| *used != module);
            uses.entry(module.clone()).or_default().extend(used.collect::<Vec<_>>());
        }
        uses
    }
}

/// The floors of a crate, the lowest first; most have none.
fn floors(name: &str) -> &'static [&'static str] {
    FLOORS.iter().find(|(of, _)| *of == name).map_or(&[], |(_, floors)| floors)
}

/// On which floor a module is.
fn floor_of(floors: &[&str], module: &str) -> Option<usize> {
    let (floor, _) = module.split_once("::")?;
    floors.iter().position(|known| *known == floor)
}

/// A circle, if there is one: takes away what uses nothing that is left, and what nothing that is left uses, until nothing is or nothing
/// can be.
fn circle(uses: &Uses) -> BTreeSet<String> {
    let mut left: BTreeSet<_> = uses.keys().cloned().collect();
    loop {
        let uses_another = |module: &String| uses[module].iter().any(|used| left.contains(used));
        let is_used = |module: &String| left.iter().any(|other| uses[other].contains(module));
        let rest: BTreeSet<_> = left.iter().filter(|module| uses_another(module) && is_used(module)).cloned().collect();
        if rest.len() == left.len() {
            return rest;
        }
        left = rest;
    }
}

fn crates() -> Vec<String> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("crates");
    let names = fs::read_dir(crates).expect("crates").flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.collect()
}

#[test]
fn no_modules_of_a_crate_use_each_other_in_a_circle() {
    let mut seen = 0;
    for name in crates() {
        let uses = House::read(&name).uses();
        seen += uses.values().map(BTreeSet::len).sum::<usize>();
        let circle = circle(&uses);
        let within = |module: &String| uses[module].intersection(&circle).cloned().collect::<Vec<_>>().join(", ");
        let arrows: Vec<_> = circle.iter().map(|module| format!("{module} uses {}", within(module))).collect();
        assert!(circle.is_empty(), "modules of {name} use each other in a circle:\n{}", arrows.join("\n"));
    }
    assert!(seen > 200, "the modules were not found: {seen} arrows");
}

#[test]
fn what_is_on_a_floor_uses_nothing_above_it() {
    for (name, floors) in FLOORS {
        let uses = House::read(name).uses();
        for floor in floors {
            assert!(uses.keys().any(|module| module.starts_with(&format!("{floor}::"))), "{name} has nothing on the floor `{floor}`");
        }
        let arrows = uses.iter().flat_map(|(module, used)| used.iter().map(move |used| (module, used)));
        let is_up = |(module, used): &(&String, &String)| floor_of(floors, used) > floor_of(floors, module).or(Some(floors.len()));
        let up: Vec<_> = arrows.filter(is_up).map(|(module, used)| format!("{module} uses {used}")).collect();
        assert!(up.is_empty(), "arrows of {name} that lead up:\n{}", up.join("\n"));
    }
}

#[test]
fn the_maps_of_the_architecture_name_every_module_and_no_other() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("ARCHITECTURE.md"));
    let text = text.expect("the architecture");
    for name in MAPS {
        let heading = format!("\n## The rooms of `{name}`\n");
        let (_, map) = text.split_once(&heading).unwrap_or_else(|| panic!("there is no map of `{name}`"));
        let map = map.split("\n## ").next().unwrap_or_default();
        let rows = map.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
        let named: BTreeSet<_> = rows.flat_map(|cell| cell.split('`').filter(|name| !name.trim().is_empty())).map(str::to_owned).collect();
        let shown = |module: &str| module.replace("::", "/");
        let modules: BTreeSet<_> = House::read(name).modules.iter().map(|module| shown(module)).collect();
        let (missing, strange) = (modules.difference(&named).collect::<Vec<_>>(), named.difference(&modules).collect::<Vec<_>>());
        assert!(missing.is_empty() && strange.is_empty(), "the map of {name} lacks {missing:?} and has {strange:?}");
    }
}

#[test]
fn circles_and_arrows_that_lead_up_are_found_and_others_are_not() {
    let at = |module: &str| module.split("::").map(str::to_owned).collect::<Vec<_>>();
    let named = |text: &str, module| paths_of(text, &at(module)).into_iter().map(|path| path.join("::")).collect::<Vec<_>>();
    let text = "use crate::{a::{B, c::D}, E};\nuse std::fmt;\nlet x = crate::f::g();";
    assert_eq!(named(text, "x"), ["a::B", "a::c::D", "E", "f::g"]);
    assert_eq!(named("use super::{a, b::C};", "x"), ["a", "b::C"]);
    assert_eq!(named("use super::a; use self::b;", "x::y"), ["x::a", "x::y::b"], "a neighbour in the same module, and what is inside");
    let text = "use crate::a::B;\n#[cfg(test)]\nuse crate::c::D;\nfn f() {}\n#[cfg(test)]\nmod tests {\n use crate::e::F;\n}";
    assert_eq!(named(&shipped(text), "x"), ["a::B", "a::B"]);
    let uses = |arrows: &[(&str, &[&str])]| -> Uses {
        arrows.iter().map(|(from, to)| ((*from).to_owned(), to.iter().map(ToString::to_string).collect())).collect()
    };
    assert!(circle(&uses(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])])).is_empty());
    let found = circle(&uses(&[("a", &["b"]), ("b", &["c"]), ("c", &["b", "d"]), ("d", &[])]));
    assert_eq!(found, ["b", "c"].map(str::to_owned).into());
    let files = [("low::a", "use super::b::X;"), ("high::c", "use crate::{A, low::b};"), ("low::b", "use crate::C;")];
    let house = House {
        files: files.iter().map(|(module, text)| (at(module), (*text).to_owned())).collect(),
        modules: files.iter().map(|(module, _)| (*module).to_owned()).collect(),
        taken: [("A".to_owned(), at("low::a::A")), ("C".to_owned(), at("high::c"))].into(),
    };
    let expected = uses(&[("low::a", &["low::b"]), ("high::c", &["low::a", "low::b"]), ("low::b", &["high::c"])]);
    assert_eq!(house.uses(), expected);
    assert!(floor_of(&["low", "high"], "high::c") > floor_of(&["low", "high"], "low::b"));
}
