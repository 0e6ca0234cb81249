//! The JSON Schema of the file, from the same types that read it.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use crate::recipe_file::RecipeSection;
use crate::sections::File;

pub(crate) fn schema() -> Value {
    schema_of::<File>()
}

/// The same of a repository's own file.
pub(crate) fn repository_schema() -> Value {
    schema_of::<RecipeSection>()
}

fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(without_null));
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    // `required` on an optional field names it, as it should; the rest of the optional ones take no null.
    without_null.transform(&mut schema);
    let mut schema = schema.to_value();
    let sections: Vec<String> = schema["$defs"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, def)| def["type"] == "object")
        .map(|(name, _)| format!("#/$defs/{name}"))
        .collect();
    without_section_defaults(&mut schema, &sections);
    schema
}

/// The default of a section is that of each of its keys; to write it out at each place says nothing more.
fn without_section_defaults(value: &mut Value, sections: &[String]) {
    match value {
        Value::Object(map) => {
            let is_section = map.get("$ref").is_some_and(|r| sections.iter().any(|s| r == s));
            if is_section {
                map.remove("default");
            }
            map.values_mut().for_each(|v| without_section_defaults(v, sections));
        }
        Value::Array(items) => items.iter_mut().for_each(|v| without_section_defaults(v, sections)),
        _ => {}
    }
}

/// A key without a value is an error, so no key takes `null`.
fn without_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|t| t != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            schema.insert("type".into(), one);
        }
    }
    if let Some(Value::Array(options)) = schema.get_mut("anyOf") {
        options.retain(|o| o.get("type").is_none_or(|t| t != "null"));
        if let [Value::Object(one)] = options.as_slice() {
            let one = one.clone();
            schema.remove("anyOf");
            for (key, value) in one {
                schema.insert(key, value);
            }
        }
    }
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
}
