//! A template's parts: what it declares, and what each resource of it becomes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use casemate_model::{Fault, ResourceId};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    evaluate::{Evaluator, Fuel, Halt, Known, is_shallow},
    functions,
    parameters::{ParameterSource, check_parameter, sources},
};

/// Most resources in one template, loops unrolled.
const MAX_RESOURCES: usize = 800;
/// Most parameters, and most variables.
const MAX_NAMES: usize = 256;
/// The deepest body of a resource.
pub(super) const MAX_BODY_DEPTH: usize = 64;

/// Where and for whom a template is deployed.
#[derive(Debug, Clone)]
pub struct Place {
    /// The subscription's GUID.
    pub subscription: Uuid,
    /// The tenant's GUID.
    pub tenant: Uuid,
    /// The subscription's name for people.
    pub subscription_name: String,
    /// The group's public shape; none for a deployment at the subscription.
    pub group: Option<Value>,
    /// The deployment's name.
    pub deployment_name: String,
    /// The deployment's own location, if it has one.
    pub location: Option<String>,
    /// The time that `utcNow()` gives. A text, since the evaluation may be repeated.
    pub now: Timestamp,
}

impl Place {
    pub(super) fn group_name(&self) -> Option<&str> {
        self.group.as_ref()?.get("name")?.as_str()
    }

    pub(super) fn subscription_object(&self) -> Value {
        json!({
            "id": format!("/subscriptions/{}", self.subscription),
            "subscriptionId": self.subscription.to_string(),
            "tenantId": self.tenant.to_string(),
            "displayName": self.subscription_name,
        })
    }
}

impl Place {
    pub(super) fn subscription_text(&self) -> String {
        self.subscription.to_string()
    }
}

pub(super) fn wrong(place: &str, message: &str) -> Fault {
    Fault::invalid("InvalidTemplate", format!("Deployment template validation failed at '{place}': {message}."))
        .at(place)
}

/// A parsed template document.
#[derive(Debug, Clone)]
pub struct Template {
    parameters: Map<String, Value>,
    variables: Map<String, Value>,
    resources: Vec<RawResource>,
    outputs: Map<String, Value>,
}

/// One declaration under `resources`, with those of its parents folded in.
#[derive(Debug, Clone)]
struct RawResource {
    place: String,
    /// Types and names of the declarations around it, outermost first.
    parents: Vec<(String, String)>,
    raw: Map<String, Value>,
}

impl Template {
    /// Reads a template's document.
    ///
    /// # Errors
    /// `InvalidTemplate` naming the place and what is wrong there.
    pub fn parse(document: &Value) -> Result<Self, Fault> {
        let Some(document) = document.as_object() else {
            return Err(wrong("template", "it is not a JSON object"));
        };
        let schema = document.get("$schema").and_then(Value::as_str).unwrap_or_default();
        if !schema.to_ascii_lowercase().contains("deploymenttemplate.json") {
            return Err(wrong(
                "$schema",
                "it does not name a deployment template's schema (…/deploymentTemplate.json#)",
            ));
        }
        let known =
            ["$schema", "contentVersion", "apiProfile", "metadata", "parameters", "variables", "resources", "outputs"];
        if let Some(other) = document.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(wrong(
                other,
                &format!("this part of a template is not known here; known are: {}", known.join(", ")),
            ));
        }
        let map = |name: &str| match document.get(name) {
            None | Some(Value::Null) => Ok(Map::new()),
            Some(Value::Object(map)) => Ok(map.clone()),
            Some(other) => Err(wrong(name, &format!("it is {}, not an object", functions::kind(other)))),
        };
        let (parameters, variables, outputs) = (map("parameters")?, map("variables")?, map("outputs")?);
        for (name, map) in [("parameters", &parameters), ("variables", &variables), ("outputs", &outputs)] {
            if map.len() > MAX_NAMES {
                return Err(wrong(name, &format!("there are {} entries; at most {MAX_NAMES} are allowed", map.len())));
            }
        }
        if variables.contains_key("copy") {
            return Err(wrong("variables.copy", "loops over variables are not known here; write the values out"));
        }
        let mut resources = Vec::new();
        match document.get("resources") {
            Some(Value::Array(list)) => flatten(list, "resources", &[], &mut resources)?,
            Some(_) => return Err(wrong("resources", "it is not an array")),
            None => return Err(wrong("resources", "a template needs this array, even if it is empty")),
        }
        Ok(Self { parameters, variables, resources, outputs })
    }
}

fn flatten(
    list: &[Value],
    place: &str,
    parents: &[(String, String)],
    found: &mut Vec<RawResource>,
) -> Result<(), Fault> {
    for (at, item) in list.iter().enumerate() {
        let place = format!("{place}[{at}]");
        let Some(raw) = item.as_object() else {
            return Err(wrong(&place, "it is not an object"));
        };
        if found.len() >= MAX_RESOURCES {
            return Err(wrong(&place, &format!("a template may have at most {MAX_RESOURCES} resources")));
        }
        let mut raw = raw.clone();
        let children = raw.remove("resources");
        let text = |key: &str| match raw.get(key).and_then(Value::as_str) {
            Some(text) => Ok(text.to_owned()),
            None => Err(wrong(&place, &format!("a resource needs '{key}', a text"))),
        };
        let own = (text("type")?, text("name")?);
        let mut path = parents.to_vec();
        found.push(RawResource { place: place.clone(), parents: path.clone(), raw });
        if let Some(children) = children {
            let Some(children) = children.as_array() else {
                return Err(wrong(&format!("{place}.resources"), "it is not an array"));
            };
            path.push(own);
            flatten(children, &format!("{place}.resources"), &path, found)?;
        }
    }
    Ok(())
}

/// A resource as declared: all that is known before any resource's state is.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    /// Its id.
    pub id: ResourceId,
    /// Where it stands in the document.
    pub place: String,
    /// The resources of this template that come first, as indexes into [`Deployment::declared`].
    pub after: Vec<usize>,
    raw: usize,
    copy: Option<(String, i64)>,
}

/// What a resource becomes.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// Its id.
    pub id: ResourceId,
    /// Its body: location, tags, identity, sku, kind and properties, as far as they are given.
    pub body: Value,
}

/// A template with its parameters at its place, ready to be worked off.
#[derive(Debug)]
pub struct Deployment {
    pub(super) place: Place,
    pub(super) parameters: BTreeMap<String, ParameterSource>,
    pub(super) variables: BTreeMap<String, Value>,
    definitions: Map<String, Value>,
    raws: Vec<RawResource>,
    outputs: Map<String, Value>,
    declared: Vec<Declared>,
    pub(super) fuel: Fuel,
}

impl Deployment {
    /// Checks parameters, drops resources whose condition does not hold, unrolls loops, and finds out ids and order
    /// as far as `dependsOn` gives it.
    ///
    /// # Errors
    /// `InvalidTemplate` naming the place and what is wrong there.
    pub fn new(template: Template, given: &Value, place: Place) -> Result<Self, Fault> {
        let mut deployment = Self {
            place,
            parameters: sources(&template.parameters, given)?,
            variables: template.variables.into_iter().map(|(name, raw)| (name.to_lowercase(), raw)).collect(),
            definitions: template.parameters,
            raws: template.resources,
            outputs: template.outputs,
            declared: Vec::new(),
            fuel: Fuel::full(),
        };
        deployment.fix_parameters()?;
        deployment.declare()?;
        Ok(deployment)
    }

    /// The resources to be written.
    #[must_use]
    pub fn declared(&self) -> &[Declared] {
        &self.declared
    }

    /// The id of the one resource with this full name (`workspace` or `workspace/endpoint`).
    pub(super) fn declared_name(&self, name: &str) -> Option<ResourceId> {
        let named = |declared: &&Declared| full_name(&declared.id).eq_ignore_ascii_case(name);
        self.declared.iter().find(named).map(|declared| declared.id.clone())
    }

    /// The parameters' values; secure ones are left out.
    ///
    /// # Errors
    /// As the evaluation of a default value.
    pub fn shown_parameters(&self) -> Result<Value, Halt> {
        let known = Known::new();
        let at = Evaluator::new(self, &known, None);
        let mut shown = Map::new();
        for (name, definition) in &self.definitions {
            let sort = definition.get("type").and_then(Value::as_str).unwrap_or_default();
            let mut entry = json!({"type": sort});
            if !sort.to_ascii_lowercase().starts_with("secure") {
                entry["value"] = at.parameter(name)?;
            }
            shown.insert(name.clone(), entry);
        }
        Ok(Value::Object(shown))
    }

    /// The body of a declared resource.
    ///
    /// # Errors
    /// [`Halt::Needs`] while the state of a resource it refers to is not in `known`.
    pub fn plan(&self, declared: &Declared, known: &Known) -> Result<Planned, Halt> {
        let copy = declared.copy.as_ref().map(|(name, index)| (name.as_str(), *index));
        let at = Evaluator::new(self, known, copy);
        let raw = &self.raws[declared.raw].raw;
        let mut body = Map::new();
        at.within(&declared.place, |at| {
            for key in ["location", "tags", "identity", "sku", "kind", "plan", "zones", "properties"] {
                if let Some(value) = raw.get(key) {
                    let value = at.within(format!(".{key}"), |at| at.tree(value))?;
                    body.insert(key.to_owned(), value);
                }
            }
            let body = Value::Object(body);
            if !is_shallow(&body, MAX_BODY_DEPTH) {
                return Err(at.wrong(format!("its body nests deeper than {MAX_BODY_DEPTH} levels")));
            }
            Ok(Planned { id: declared.id.clone(), body })
        })
    }

    /// The outputs: type and value by name.
    ///
    /// # Errors
    /// [`Halt::Needs`] while the state of a resource they refer to is not in `known`.
    pub fn outputs(&self, known: &Known) -> Result<Value, Halt> {
        let at = Evaluator::new(self, known, None);
        let mut outputs = Map::new();
        for (name, output) in &self.outputs {
            at.within(format!("outputs.{name}"), |at| {
                if !output.get("condition").map_or(Ok(true), |raw| truth(at, raw))? {
                    return Ok(());
                }
                let Some(raw) = output.get("value") else {
                    return Err(at.wrong("an output needs 'value'"));
                };
                let value = at.within(".value", |at| at.tree(raw))?;
                let sort = output.get("type").cloned().unwrap_or_else(|| "Object".into());
                outputs.insert(name.clone(), json!({"type": sort, "value": value}));
                Ok(())
            })?;
        }
        Ok(Value::Object(outputs))
    }

    /// Evaluates each default once, so that `newGuid()` stays the same, and checks every value.
    fn fix_parameters(&mut self) -> Result<(), Fault> {
        let mut fixed = BTreeMap::new();
        {
            let known = Known::new();
            let at = Evaluator::new(self, &known, None);
            for (name, definition) in &self.definitions {
                let value = at.parameter(name).map_err(fault_of)?;
                check_parameter(name, definition, &value)?;
                fixed.insert(name.to_lowercase(), ParameterSource::Fixed(value));
            }
        }
        self.parameters = fixed;
        Ok(())
    }

    fn declare(&mut self) -> Result<(), Fault> {
        let mut declared: Vec<Declared> = Vec::new();
        let mut waits: Vec<BTreeSet<String>> = Vec::new();
        for (raw, resource) in self.raws.iter().enumerate() {
            for copy in self.copies(resource)? {
                let known = Known::new();
                let loop_state = copy.as_ref().map(|(name, index)| (name.as_str(), *index));
                let at = Evaluator::new(self, &known, loop_state);
                let Some((id, after)) =
                    at.within(&resource.place, |at| self.identify(at, resource)).map_err(fault_of)?
                else {
                    continue;
                };
                if declared.iter().any(|other| other.id == id) {
                    return Err(wrong(&resource.place, &format!("the resource {id} is declared twice")));
                }
                if declared.len() >= MAX_RESOURCES {
                    return Err(wrong(&resource.place, &format!("there are more than {MAX_RESOURCES} resources")));
                }
                declared.push(Declared { id, place: resource.place.clone(), after: Vec::new(), raw, copy });
                waits.push(after);
            }
        }
        let places = places(&declared);
        let order: Vec<Vec<usize>> = waits
            .iter()
            .map(|waits| {
                let meant: BTreeSet<usize> =
                    waits.iter().filter_map(|wait| places.get(wait)).flatten().copied().collect();
                meant.into_iter().collect()
            })
            .collect();
        for (resource, after) in declared.iter_mut().zip(order) {
            resource.after = after;
        }
        self.declared = declared;
        Ok(())
    }

    /// The loop of a resource, unrolled: one entry without an index when it has none.
    fn copies(&self, resource: &RawResource) -> Result<Vec<Option<(String, i64)>>, Fault> {
        let Some(copy) = resource.raw.get("copy") else {
            return Ok(vec![None]);
        };
        let known = Known::new();
        let at = Evaluator::new(self, &known, None);
        let place = format!("{}.copy", resource.place);
        let name = copy.get("name").and_then(Value::as_str).ok_or_else(|| wrong(&place, "a loop needs a 'name'"))?;
        let count = at.within(&place, |at| at.tree(copy.get("count").unwrap_or(&Value::Null))).map_err(fault_of)?;
        let count = count.as_i64().filter(|count| (0..=800).contains(count));
        let count = count.ok_or_else(|| wrong(&place, "'count' must be a whole number from 0 to 800"))?;
        Ok((0..count).map(|index| Some((name.to_owned(), index))).collect())
    }

    /// The id of a resource and what it waits for; none when its condition does not hold.
    fn identify(
        &self,
        at: &Evaluator<'_>,
        resource: &RawResource,
    ) -> Result<Option<(ResourceId, BTreeSet<String>)>, Halt> {
        if !resource.raw.get("condition").map_or(Ok(true), |raw| at.within(".condition", |at| truth(at, raw)))? {
            return Ok(None);
        }
        let text = |key: &str| resource.raw.get(key).and_then(Value::as_str).unwrap_or_default();
        let mut kind = String::new();
        let mut name = String::new();
        for (parent_type, parent_name) in &resource.parents {
            join(&mut kind, parent_type);
            join(&mut name, &at.text(parent_name)?);
        }
        join(&mut kind, text("type"));
        join(&mut name, &at.within(".name", |at| at.text(text("name")))?);
        let scope = match resource.raw.get("scope").and_then(Value::as_str) {
            Some(scope) => Some(at.within(".scope", |at| at.text(scope))?),
            None => self.nested_scope(at, &kind, resource)?,
        };
        let id = self.id(&kind, &name, scope).map_err(|why| at.wrong(why))?;
        let mut waits = BTreeSet::new();
        if let Some(list) = resource.raw.get("dependsOn") {
            at.within(".dependsOn", |at| {
                let list = list.as_array().ok_or_else(|| at.wrong("it is not an array"))?;
                if list.len() > MAX_RESOURCES {
                    return Err(at.wrong(format!("it has {} entries; at most {MAX_RESOURCES} are allowed", list.len())));
                }
                for item in list {
                    let item = item.as_str().ok_or_else(|| at.wrong("its items must be texts"))?;
                    waits.insert(at.text(item)?.to_lowercase());
                }
                Ok(())
            })?;
        }
        Ok(Some((id, waits)))
    }

    /// Where a deployment inside this one is to work, when it says so: in another group, or at the subscription.
    fn nested_scope(&self, at: &Evaluator<'_>, kind: &str, resource: &RawResource) -> Result<Option<String>, Halt> {
        if !kind.eq_ignore_ascii_case("Microsoft.Resources/deployments") {
            return Ok(None);
        }
        let text = |key: &str| resource.raw.get(key).and_then(Value::as_str).map(|raw| at.text(raw)).transpose();
        let (subscription, group) = (text("subscriptionId")?, text("resourceGroup")?);
        let own = self.place.subscription_text();
        if subscription.as_ref().is_some_and(|given| !given.eq_ignore_ascii_case(&own)) {
            return Err(at.wrong(format!("its subscriptionId is not this platform's one, '{own}'")));
        }
        Ok(match (group, subscription) {
            (Some(group), _) => Some(format!("/subscriptions/{own}/resourceGroups/{group}")),
            (None, Some(_)) => Some(format!("/subscriptions/{own}")),
            (None, None) => None,
        })
    }

    fn id(&self, kind: &str, name: &str, scope: Option<String>) -> Result<ResourceId, String> {
        let mut types = kind.split('/');
        let namespace = types.next().unwrap_or_default();
        let (types, names): (Vec<&str>, Vec<&str>) = (types.collect(), name.split('/').collect());
        if types.len() != names.len() {
            let (wanted, given) = (types.len(), names.len());
            return Err(format!("the type '{kind}' needs a name of {wanted} part(s); '{name}' has {given}"));
        }
        let subscription = self.place.subscription_text();
        if kind.eq_ignore_ascii_case("Microsoft.Resources/resourceGroups") {
            return ResourceId::parse(&format!("/subscriptions/{subscription}/resourceGroups/{name}"))
                .map_err(|fault| fault.message);
        }
        let scope = scope.unwrap_or_else(|| match self.place.group_name() {
            Some(group) => format!("/subscriptions/{subscription}/resourceGroups/{group}"),
            None => format!("/subscriptions/{subscription}"),
        });
        let mut id = format!("{}/providers/{namespace}", scope.trim_end_matches('/'));
        for (kind, name) in types.iter().zip(names) {
            id.push_str(&format!("/{kind}/{name}"));
        }
        ResourceId::parse(&id).map_err(|fault| fault.message)
    }
}

fn join(whole: &mut String, part: &str) {
    if !whole.is_empty() {
        whole.push('/');
    }
    whole.push_str(part);
}

/// The names of a resource and of what it lies in, below its provider, joined with slashes.
fn full_name(id: &ResourceId) -> String {
    let kind = id.resource_type();
    let depth = kind.split('/').count().saturating_sub(1).max(1);
    let parts: Vec<&str> = id.as_str().split('/').collect();
    let names: Vec<&str> = parts.iter().rev().step_by(2).take(depth).copied().collect();
    names.into_iter().rev().collect::<Vec<_>>().join("/")
}

/// The declared resources by what `dependsOn` entries may call them, in lower case: ids, full names, full names with
/// their types, and the names of loops. What is not declared, because its condition does not hold, is no dependency.
fn places(declared: &[Declared]) -> HashMap<String, Vec<usize>> {
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    for (at, resource) in declared.iter().enumerate() {
        let name = full_name(&resource.id);
        let mut names = vec![format!("{}/{name}", resource.id.resource_type()), name, resource.id.key().to_owned()];
        names.extend(resource.copy.as_ref().map(|(name, _)| name.clone()));
        for name in names {
            places.entry(name.to_lowercase()).or_default().push(at);
        }
    }
    places
}

fn truth(at: &Evaluator<'_>, raw: &Value) -> Result<bool, Halt> {
    match at.tree(raw)? {
        Value::Bool(truth) => Ok(truth),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        other => Err(at.wrong(format!("a condition must be true or false, not {}", functions::kind(&other)))),
    }
}

/// A need that arises before any resource was looked up is a fault of the template.
fn fault_of(halt: Halt) -> Fault {
    match halt {
        Halt::Fault(fault) => fault,
        Halt::Needs(id) => Fault::invalid(
            "InvalidTemplate",
            format!(
                "Deployment template validation failed: reference() to {id} stands where it is not allowed; names, \
                 conditions, loops, variables used in them, and parameters can't depend on the state of resources."
            ),
        ),
    }
}
