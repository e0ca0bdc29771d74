//! TOML text to [`crate::model`]: parsing, problems with their places, the JSON Schema.
