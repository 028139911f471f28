//! What is linked in: a bill of materials in CycloneDX 1.5, from what cargo resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Release;
use crate::context::Ctx;
use crate::process;

/// The two sides, and the machine that each is compiled for.
const SIDES: [(&str, &str); 2] =
    [("killwatch", "x86_64-unknown-linux-gnu"), ("killwatch-ebpf", "bpfel-unknown-none")];

/// The bill, with `files` of other origin: a name, a version, a package URL.
pub(super) fn of(ctx: &Ctx, release: &Release, files: &[[String; 3]]) -> Result<String> {
    let lock = fs::read_to_string(ctx.root.join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let checksums = checksums(&lock);
    let (mut components, mut depends) = (BTreeMap::new(), BTreeMap::new());
    for (root, machine) in SIDES {
        let text = process::output(process::cargo(ctx).args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--filter-platform",
            machine,
        ]))?;
        let metadata: Value = serde_json::from_str(&text).context("cargo metadata")?;
        walk(&metadata, root, &checksums, &mut components, &mut depends)?;
    }
    let main = format!("pkg:cargo/killwatch@{}", release.version);
    components.remove(&main);
    let others = files.iter().map(|[name, version, purl]| {
        json!({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl})
    });
    let components: Vec<Value> = components.into_values().chain(others).collect();
    let depends: Vec<Value> =
        depends.into_iter().map(|(of, on)| json!({"ref": of, "dependsOn": on})).collect();
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "application", "bom-ref": main, "name": "killwatch", "version": release.version, "purl": main,
            "licenses": [{ "expression": "MIT OR Apache-2.0" }],
        }},
        "components": components,
        "dependencies": depends,
    });
    serde_json::to_string_pretty(&bill).context("the bill")
}

/// Adds what `root` is linked with: what it needs itself, not what its build or its tests do.
fn walk(
    metadata: &Value,
    root: &str,
    checksums: &BTreeMap<String, String>,
    components: &mut BTreeMap<String, Value>,
    depends: &mut BTreeMap<String, BTreeSet<String>>,
) -> Result<()> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages: BTreeMap<String, Value> = list(&metadata["packages"])
        .into_iter()
        .filter_map(|package| Some((package["id"].as_str()?.to_owned(), package)))
        .collect();
    let nodes: BTreeMap<String, Value> = list(&metadata["resolve"]["nodes"])
        .into_iter()
        .filter_map(|node| Some((node["id"].as_str()?.to_owned(), node)))
        .collect();
    let first = packages.iter().find(|(_, package)| package["name"] == root);
    let mut waiting = vec![first.with_context(|| format!("cargo knows no {root}"))?.0.clone()];
    let mut seen = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        let (Some(package), true) = (packages.get(&id), seen.insert(id.clone())) else { continue };
        let name = purl(package);
        components.insert(name.clone(), component(package, &name, checksums));
        for dependency in list(&nodes.get(&id).unwrap_or(&Value::Null)["deps"]) {
            // Kind null is a dependency of the program itself.
            let linked = list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            let Some(on) = dependency["pkg"].as_str().filter(|_| linked) else { continue };
            if let Some(package) = packages.get(on) {
                depends.entry(name.clone()).or_default().insert(purl(package));
                waiting.push(on.to_owned());
            }
        }
    }
    Ok(())
}

fn purl(package: &Value) -> String {
    let text = |key: &str| package[key].as_str().unwrap_or_default().replace('+', "%2B");
    format!("pkg:cargo/{}@{}", text("name"), text("version"))
}

fn component(package: &Value, purl: &str, checksums: &BTreeMap<String, String>) -> Value {
    let mut component = json!({
        "type": "library", "bom-ref": purl, "name": package["name"], "version": package["version"], "purl": purl,
    });
    if let Some(license) = package["license"].as_str() {
        // The old way to write "or".
        component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
    }
    let key = format!(
        "{} {}",
        package["name"].as_str().unwrap_or_default(),
        package["version"].as_str().unwrap_or_default()
    );
    if let Some(sum) = checksums.get(&key) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
    }
    component
}

/// `name version` → checksum, of a Cargo.lock.
fn checksums(lock: &str) -> BTreeMap<String, String> {
    let packages = lock.split("[[package]]").skip(1);
    let of = packages.filter_map(|package| {
        let field = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key))?;
            Some(line.trim_matches('"').to_owned())
        };
        Some((format!("{} {}", field("name = ")?, field("version = ")?), field("checksum = ")?))
    });
    of.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_linked_is_listed() {
        let package = |name: &str| json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0"});
        let dep = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [package("a"), package("b"), package("c"), package("d")],
            "resolve": {"nodes": [
                {"id": "a", "deps": [dep("b", Value::Null), dep("c", json!("dev"))]},
                {"id": "b", "deps": [dep("d", json!("build")), dep("a", Value::Null)]},
            ]},
        });
        let sums = checksums("[[package]]\nname = \"b\"\nversion = \"1.0.0\"\nchecksum = \"ff\"\n");
        let (mut components, mut depends) = (BTreeMap::new(), BTreeMap::new());
        walk(&metadata, "a", &sums, &mut components, &mut depends).unwrap();
        let names: Vec<_> = components.keys().map(String::as_str).collect();
        assert_eq!(names, ["pkg:cargo/a@1.0.0", "pkg:cargo/b@1.0.0"]);
        let b = &components["pkg:cargo/b@1.0.0"];
        assert_eq!(b["hashes"][0]["content"], "ff");
        assert_eq!(b["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(depends["pkg:cargo/a@1.0.0"], BTreeSet::from(["pkg:cargo/b@1.0.0".to_owned()]));
    }
}
