//! The JSON Schemas of manifests and of the host file (draft 2020-12), from the types that read them.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use super::host::HostFile;
use super::shape::project::Manifest;

/// `schemas/manifest.schema.json`.
pub fn schema_text() -> String {
    text(&schema::<Manifest>())
}

/// `schemas/host.schema.json`.
pub fn host_schema_text() -> String {
    text(&schema::<HostFile>())
}

fn text(schema: &Schema) -> String {
    let mut text = serde_json::to_string_pretty(schema.as_value()).unwrap_or_default();
    text.push('\n');
    text
}

fn schema<T: JsonSchema>() -> Schema {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    RecursiveTransform(as_toml_is_written).transform(&mut schema);
    schema
}

/// TOML has no null, so an absent key is absent and nothing else; and where a variable may stand for a value, a
/// string is right as well.
fn as_toml_is_written(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    object.remove("format");
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = text.replace('\n', " ");
    }
    if object.get("required") == Some(&json!([])) {
        object.remove("required");
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    if object.get("type") == Some(&json!("boolean")) {
        object.insert("type".to_owned(), json!(["boolean", "string"]));
        object.insert("pattern".to_owned(), json!("\\$"));
    }
    if let Some(Value::Array(forms)) = object.get_mut("anyOf") {
        forms.retain(|form| form != &json!({ "type": "null" }));
        if let [Value::Object(only)] = forms.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            object.extend(only);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::manifest::shape::build::{BuildTable, SecretTable};
    use crate::manifest::shape::container::*;
    use crate::manifest::shape::form::DeviceTable;
    use crate::manifest::shape::mount::MountTable;
    use crate::manifest::shape::project::*;
    use crate::manifest::shape::security::{Security, UsersTable};

    #[test]
    fn every_table_of_the_schema_has_the_keys_that_its_reader_has() {
        let schema = schema::<Manifest>().to_value();
        let tables: Vec<(&str, &[&str])> = vec![
            ("Image", Image::KEYS),
            ("BuildTable", BuildTable::KEYS),
            ("SecretTable", SecretTable::KEYS),
            ("Network", Network::KEYS),
            ("Volume", Volume::KEYS),
            ("Owner", Owner::KEYS),
            ("Restart", Restart::KEYS),
            ("Backoff", Backoff::KEYS),
            ("Container", Container::KEYS),
            ("Attachment", Attachment::KEYS),
            ("Resources", Resources::KEYS),
            ("UlimitPair", UlimitPair::KEYS),
            ("HealthcheckTable", HealthcheckTable::KEYS),
            ("Security", Security::KEYS),
            ("UsersTable", UsersTable::KEYS),
            ("HttpProbe", HttpProbe::KEYS),
            ("Logging", Logging::KEYS),
            ("Update", Update::KEYS),
            ("MountTable", MountTable::KEYS),
            ("DeviceTable", DeviceTable::KEYS),
        ];
        let set = |known: &[&str]| -> BTreeSet<String> { known.iter().map(ToString::to_string).collect() };
        let keys =
            |table: &Value| -> BTreeSet<String> { table["properties"].as_object().unwrap().keys().cloned().collect() };
        let definitions = schema["$defs"].as_object().unwrap();
        assert_eq!(definitions.len(), tables.len(), "a table is not covered here");
        for (name, known) in &tables {
            assert_eq!(keys(&definitions[*name]), set(known), "{name}");
            assert_eq!(definitions[*name]["additionalProperties"], false, "{name}");
        }
        assert_eq!(keys(&schema), set(Manifest::KEYS));
        assert!(!schema.to_string().contains("null"));
    }
}
