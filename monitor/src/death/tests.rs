//! The public contract: the schema file is the type, and what is not known is absent.

use std::path::Path;

use super::{Cause, Death, sample};

#[test]
fn the_schema_file_is_the_type() {
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(Death)).unwrap() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/death.schema.json");
    crate::golden::check(&path, &schema);
}

#[test]
fn the_example_of_the_documentation_is_a_record() {
    let docs = include_str!("../../../docs/events.md");
    let example = docs.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let death: Death = serde_json::from_str(example).unwrap();
    assert_eq!(
        serde_json::to_value(&death).unwrap(),
        serde_json::from_str::<serde_json::Value>(example).unwrap()
    );
    for cause in Cause::ALL {
        assert!(
            docs.contains(&format!("| `{}` |", cause.as_str())),
            "{} is not described",
            cause.as_str()
        );
    }
}

#[test]
fn every_key_is_described() {
    let schema = serde_json::to_value(schemars::schema_for!(Death)).unwrap();
    let docs = include_str!("../../../docs/events.md");
    let parts = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    let keys: Vec<_> =
        parts.filter_map(|part| part["properties"].as_object()).flat_map(|p| p.keys()).collect();
    assert!(keys.len() > 60);
    for key in keys {
        assert!(
            docs.contains(&format!("`{key}`")) || docs.contains(&format!(".{key}`")),
            "{key} is not described"
        );
    }
}

#[test]
fn what_is_not_known_is_absent() {
    for death in [sample::unknown(), sample::killed(), sample::hostile()] {
        let json = serde_json::to_value(&death).unwrap();
        assert!(!json.to_string().contains("null"), "{json}");
        assert_eq!(serde_json::from_value::<Death>(json).unwrap(), death);
    }
}
