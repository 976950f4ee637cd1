//! What the resources say of themselves, shaped as Kubernetes has them.

use serde_json::Value;

use crate::channel::ResourceName;
use crate::health::Ready;

pub(super) fn name(resource: &Value) -> Option<ResourceName> {
    let metadata = &resource["metadata"];
    let (namespace, name) = (metadata["namespace"].as_str()?, metadata["name"].as_str()?);
    ResourceName::try_new(namespace, name).ok()
}

pub(super) fn channel(resource: &Value, name: &ResourceName) -> String {
    let channel = resource["spec"]["channel"]["name"].as_str();
    format!("{}/{}", name.namespace(), channel.unwrap_or_default())
}

pub(super) fn ready(resource: &Value) -> Ready {
    let conditions = resource["status"]["conditions"].as_array();
    let is_ready = |condition: &&Value| condition["type"] == "Ready";
    let Some(condition) = conditions.and_then(|all| all.iter().find(is_ready)) else {
        return Ready::Unknown("NotResolved".into(), "it was not looked at yet".into());
    };
    let text = |name: &str| condition[name].as_str().unwrap_or_default().to_owned();
    match condition["status"].as_str() {
        Some("True") => Ready::True,
        Some("False") => Ready::False(text("reason"), text("message")),
        _ => Ready::Unknown(text("reason"), text("message")),
    }
}
