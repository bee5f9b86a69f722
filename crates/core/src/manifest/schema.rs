//! The documents as they are written, and the JSON Schema that editors complete and check them by.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::ServiceName;
use crate::spec::{GatewaySpec, ServiceSpec};

/// A document of kind `Service`, in the order in which it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceDocument {
    /// The version of this form of manifest.
    pub api_version: ApiVersion,
    /// What the document declares.
    pub kind: ServiceKind,
    /// Which one it declares.
    pub metadata: Metadata,
    /// What should be.
    pub spec: ServiceSpec,
}

/// A document of kind `Gateway`, in the order in which it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayDocument {
    /// The version of this form of manifest.
    pub api_version: ApiVersion,
    /// What the document declares.
    pub kind: GatewayKind,
    /// Which one it declares.
    pub metadata: Metadata,
    /// What should be.
    pub spec: GatewaySpec,
}

/// The version of this form of manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// The first version.
    #[serde(rename = "ringmaster/v1")]
    V1,
}

/// The kind of document that declares a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceKind {
    /// A service: N replicas of one template behind one balancing policy.
    Service,
}

/// The kind of document that declares the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GatewayKind {
    /// The gateway: where the data plane listens, and what it answers itself.
    Gateway,
}

/// Which service or gateway a document declares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// The name: lower-case letters, digits and `-`.
    pub name: ServiceName,
}

impl ServiceDocument {
    /// The document that declares this service.
    pub fn new(name: ServiceName, spec: ServiceSpec) -> ServiceDocument {
        let (api_version, kind) = (ApiVersion::V1, ServiceKind::Service);
        ServiceDocument { api_version, kind, metadata: Metadata { name }, spec }
    }
}

impl GatewayDocument {
    /// The document that declares this gateway.
    pub fn new(name: ServiceName, spec: GatewaySpec) -> GatewayDocument {
        let (api_version, kind) = (ApiVersion::V1, GatewayKind::Gateway);
        GatewayDocument { api_version, kind, metadata: Metadata { name }, spec }
    }
}

/// The JSON Schema (draft 2020-12) of one document.
pub fn json_schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let service = generator.subschema_for::<ServiceDocument>();
    let gateway = generator.subschema_for::<GatewayDocument>();
    let definitions = generator.take_definitions(true);
    let mut schema = serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Ringmaster manifest",
        "description": "One document of a manifest: a service or the gateway.",
        "oneOf": [service, gateway],
        "$defs": definitions,
    });
    without_null(&mut schema);
    schema
}

/// The parser takes a field without a value for a mistake, so the schema does not offer `null` for what may be
/// left out.
fn without_null(schema: &mut Value) {
    let null = Value::from("null");
    match schema {
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Object(fields) => {
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|name| *name != null);
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    fields.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(choices)) = fields.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type") != Some(&null));
            }
            fields.values_mut().for_each(without_null);
        }
        _ => {}
    }
}
