//! Arrows between modules go one way: no module uses one that uses it, whether by what it imports or by
//! a method that it calls of a type whose methods are spread over modules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Types with methods in several modules, and what values of them are called there.
const SPREAD: [(&str, &[&str]); 3] = [
    ("Core", &["self", "core"]),
    ("GeometricLedger", &["self", "ledger"]),
    ("View", &["self", "view"]),
];

struct Module {
    name: String,
    /// The code, without comments, tests and blanks around dots.
    code: String,
}

impl Module {
    fn read(root: &Path, path: &Path) -> Self {
        let relative = path.strip_prefix(root).unwrap().with_extension("");
        let name = relative.to_str().unwrap().replace('/', "::");
        let text = fs::read_to_string(path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let code = lines.collect::<Vec<_>>().join("\n");
        let parts: Vec<_> = code.split('.').map(str::trim).collect();
        Module {
            name,
            code: parts.join("."),
        }
    }

    /// Names of the functions in blocks that begin with `impl Type {`.
    fn methods(&self, of: &str) -> BTreeSet<&str> {
        let mut methods = BTreeSet::new();
        for block in self.code.split(&format!("\nimpl {of} {{")).skip(1) {
            let block = block.split("\n}").next().unwrap();
            for function in block
                .split("    fn ")
                .skip(1)
                .chain(block.split(" fn ").skip(1))
            {
                let end = function
                    .find(|c: char| !c.is_alphanumeric() && c != '_')
                    .unwrap();
                methods.insert(&function[..end]);
            }
        }
        methods
    }

    fn calls(&self, receivers: &[&str], method: &str) -> bool {
        let has = |call: &str| {
            self.code.match_indices(call).any(|(at, _)| {
                let before = self.code[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
            })
        };
        receivers.iter().any(|it| has(&format!("{it}.{method}(")))
    }
}

fn modules() -> Vec<Module> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut modules, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            match name {
                "lib.rs" | "mod.rs" => {}
                _ if path.is_dir() => folders.push(path),
                _ => modules.push(Module::read(&root, &path)),
            }
        }
    }
    modules
}

/// Which modules each module uses.
fn arrows(modules: &[Module]) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut arrows: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for user in modules {
        let used = arrows.entry(&user.name).or_default();
        let imports = |other: &Module| {
            let path = format!("crate::{}", other.name);
            user.code.match_indices(&path).any(|(at, _)| {
                let after = user.code[at + path.len()..].chars().next();
                !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
            })
        };
        used.extend(modules.iter().filter(|it| imports(it)).map(|it| &*it.name));
        for (of, receivers) in SPREAD {
            let own = user.methods(of);
            let receivers = match own.is_empty() {
                true => &receivers[1..],
                false => receivers,
            };
            for other in modules {
                let called =
                    |method: &&str| !own.contains(*method) && user.calls(receivers, method);
                if other.methods(of).iter().any(called) {
                    used.insert(&other.name);
                }
            }
        }
        used.remove(&*user.name);
    }
    arrows
}

/// What is left when all that uses nothing else is taken away, again and again: circles, and what uses
/// them.
fn circles<'a>(
    mut arrows: BTreeMap<&'a str, BTreeSet<&'a str>>,
) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    loop {
        let bottom: Vec<_> = arrows
            .iter()
            .filter(|(_, used)| used.is_empty())
            .map(|(name, _)| *name)
            .collect();
        if bottom.is_empty() {
            return arrows;
        }
        for name in bottom {
            arrows.remove(name);
            arrows.values_mut().for_each(|used| {
                used.remove(name);
            });
        }
    }
}

#[test]
fn no_two_modules_use_each_other() {
    let modules = modules();
    let arrows = arrows(&modules);
    // What this test knows of modules is not nothing.
    assert!(
        arrows["engine::commit"].contains("engine::reclaim"),
        "a method's arrow"
    );
    assert!(
        arrows["engine::commit"].contains("storage::record"),
        "an import's arrow"
    );
    assert_eq!(circles(arrows), BTreeMap::new());
}

#[test]
fn no_two_folders_use_each_other() {
    let modules = modules();
    let folder = |name: &'static str| name.split("::").next().unwrap();
    let mut folders: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let names: Vec<&'static str> = modules.iter().map(|it| &*it.name.clone().leak()).collect();
    for (user, used) in arrows(&modules) {
        let find = |name: &str| folder(names.iter().find(|it| **it == name).unwrap());
        let entry = folders.entry(find(user)).or_default();
        entry.extend(used.iter().map(|name| find(name)));
        entry.remove(find(user));
    }
    assert_eq!(circles(folders), BTreeMap::new());
}
