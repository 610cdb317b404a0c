//! The functions of template expressions. Names are taken in any case.

mod values;

use casemate_model::ResourceId;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    document::Place,
    evaluate::{Evaluator, Halt},
    parser::Expression,
};

/// What a value is, for messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Calls a function. `if`, `and`, `or` and `coalesce` evaluate only what they need.
pub(super) fn call(at: &Evaluator<'_>, name: &str, arguments: &[Expression]) -> Result<Value, Halt> {
    let lower = name.to_lowercase();
    if let Some(outcome) = lazy(at, &lower, arguments) {
        return outcome;
    }
    let values = arguments.iter().map(|argument| at.expression(argument)).collect::<Result<Vec<_>, _>>()?;
    let call = Call { at, name, values: &values };
    let families = [context, resources, logic, values::numbers, values::texts, values::collections];
    families.iter().find_map(|family| family(&call, &lower)).unwrap_or_else(|| {
        let hint = if lower.starts_with("list") { " (keys are never given out through templates)" } else { "" };
        Err(at.wrong(format!("the template function '{name}' is not known{hint}")))
    })
}

fn lazy(at: &Evaluator<'_>, name: &str, arguments: &[Expression]) -> Option<Result<Value, Halt>> {
    let truth = |argument: &Expression| match at.expression(argument)? {
        Value::Bool(truth) => Ok(truth),
        other => Err(at.wrong(format!("'{name}' takes booleans, not {}", kind(&other)))),
    };
    Some(match (name, arguments) {
        ("if", [condition, yes, no]) => truth(condition).and_then(|holds| at.expression(if holds { yes } else { no })),
        ("if", _) => Err(at.wrong("'if' takes three arguments")),
        ("and" | "or", [_, _, ..]) => {
            let decisive = name == "or";
            let decide = || {
                for argument in arguments {
                    if truth(argument)? == decisive {
                        return Ok(decisive);
                    }
                }
                Ok(!decisive)
            };
            decide().map(Value::Bool)
        }
        ("and" | "or", _) => Err(at.wrong(format!("'{name}' takes two or more arguments"))),
        ("coalesce", [_, ..]) => {
            let mut values = arguments.iter().map(|argument| at.expression(argument));
            values.find(|value| !matches!(value, Ok(Value::Null))).unwrap_or(Ok(Value::Null))
        }
        _ => return None,
    })
}

struct Call<'a> {
    at: &'a Evaluator<'a>,
    name: &'a str,
    values: &'a [Value],
}

impl Call<'_> {
    fn wrong(&self, why: &str) -> Halt {
        self.at.wrong(format!("the function '{}' {why}", self.name))
    }

    fn count<const N: usize>(&self) -> Result<&[Value; N], Halt> {
        let wrong = || self.wrong(&format!("takes {N} argument(s), not {}", self.values.len()));
        self.values.try_into().map_err(|_| wrong())
    }

    fn text<'v>(&self, value: &'v Value) -> Result<&'v str, Halt> {
        value.as_str().ok_or_else(|| self.wrong(&format!("takes a text here, not {}", kind(value))))
    }

    fn number(&self, value: &Value) -> Result<i64, Halt> {
        value.as_i64().ok_or_else(|| self.wrong(&format!("takes a whole number here, not {}", kind(value))))
    }

    fn texts(&self) -> Result<Vec<&str>, Halt> {
        self.values.iter().map(|value| self.text(value)).collect()
    }

    /// Texts, with numbers and booleans written out.
    fn written(&self) -> Result<Vec<String>, Halt> {
        self.values.iter().map(|value| self.write(value)).collect()
    }

    fn write(&self, value: &Value) -> Result<String, Halt> {
        match value {
            Value::String(text) => Ok(text.clone()),
            Value::Bool(true) => Ok("True".to_owned()),
            Value::Bool(false) => Ok("False".to_owned()),
            Value::Number(number) => Ok(number.to_string()),
            other => Err(self.wrong(&format!("takes texts and numbers, not {}", kind(other)))),
        }
    }

    fn made(&self, text: impl Into<String>) -> Result<Value, Halt> {
        self.at.made(text.into())
    }
}

/// What the deployment, its parameters and its place know.
fn context(call: &Call<'_>, name: &str) -> Option<Result<Value, Halt>> {
    let place = &call.at.deployment.place;
    Some(match name {
        "parameters" => call.count().and_then(|[name]| call.at.parameter(call.text(name)?)),
        "variables" => call.count().and_then(|[name]| call.at.variable(call.text(name)?)),
        "subscription" => call.count().map(|[]| place.subscription_object()),
        "tenant" => {
            call.count().map(|[]| json!({"tenantId": place.tenant, "id": format!("/tenants/{}", place.tenant)}))
        }
        "deployment" => call.count().map(|[]| json!({"name": place.deployment_name, "location": place.location})),
        "resourcegroup" => call.count().and_then(|[]| {
            place.group.clone().ok_or_else(|| call.wrong("has no value: the deployment is not in a resource group"))
        }),
        "copyindex" => copy_index(call),
        "newguid" => call.count().and_then(|[]| {
            call.at.only_in_default(call.name)?;
            call.made(Uuid::new_v4().to_string())
        }),
        "utcnow" => utc_now(call),
        _ => return None,
    })
}

fn copy_index(call: &Call<'_>) -> Result<Value, Halt> {
    let Some((loop_name, index)) = call.at.copy else {
        return Err(call.wrong("has no value: the resource has no 'copy'"));
    };
    let (wanted, offset) = match call.values {
        [] => (loop_name, 0),
        [Value::String(name)] => (name.as_str(), 0),
        [Value::String(name), offset] => (name.as_str(), call.number(offset)?),
        [offset] => (loop_name, call.number(offset)?),
        _ => return Err(call.wrong("takes the loop's name and an offset")),
    };
    if !wanted.eq_ignore_ascii_case(loop_name) {
        return Err(call.wrong(&format!("names the loop '{wanted}'; this resource's loop is '{loop_name}'")));
    }
    Ok(index.saturating_add(offset).into())
}

fn utc_now(call: &Call<'_>) -> Result<Value, Halt> {
    call.at.only_in_default(call.name)?;
    let now = call.at.deployment.place.now;
    let shown = match call.texts()?.as_slice() {
        [] => now.strftime("%Y%m%dT%H%M%SZ").to_string(),
        ["u"] => now.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        ["d"] => now.strftime("%m/%d/%Y").to_string(),
        ["yyyy-MM-dd"] => now.strftime("%Y-%m-%d").to_string(),
        ["yyyyMMdd"] => now.strftime("%Y%m%d").to_string(),
        ["yyyyMMddHHmmss"] => now.strftime("%Y%m%d%H%M%S").to_string(),
        other => {
            let known = "none, 'u', 'd', 'yyyy-MM-dd', 'yyyyMMdd' and 'yyyyMMddHHmmss'";
            return Err(call.wrong(&format!("knows the formats {known}, not {other:?}")));
        }
    };
    call.made(shown)
}

/// Ids and the state of resources.
fn resources(call: &Call<'_>, name: &str) -> Option<Result<Value, Halt>> {
    let place = &call.at.deployment.place;
    Some(match name {
        "resourceid" => resource_id(call, place),
        "subscriptionresourceid" => subscription_resource_id(call, place),
        "tenantresourceid" => typed_id(call, "", call.values),
        "extensionresourceid" => match call.values {
            [scope, rest @ ..] if !rest.is_empty() => call.text(scope).and_then(|scope| typed_id(call, scope, rest)),
            _ => Err(call.wrong("takes a resource id, a type and names")),
        },
        "reference" => reference(call),
        _ => return None,
    })
}

/// `scope/providers/type/name/…` from a type and as many names as it has parts after the namespace.
fn typed_id(call: &Call<'_>, scope: &str, values: &[Value]) -> Result<Value, Halt> {
    let texts = values.iter().map(|value| call.text(value)).collect::<Result<Vec<_>, _>>()?;
    let Some((resource_type, names)) = texts.split_first() else {
        return Err(call.wrong("takes a resource type and names"));
    };
    let mut parts = resource_type.split('/');
    let namespace = parts.next().unwrap_or_default();
    let types: Vec<&str> = parts.collect();
    if types.len() != names.len() || names.is_empty() {
        let (wanted, given) = (types.len(), names.len());
        return Err(call.wrong(&format!("needs {wanted} name(s) for the type '{resource_type}', not {given}")));
    }
    let mut id = format!("{scope}/providers/{namespace}");
    for (part, name) in types.iter().zip(names) {
        id.push_str(&format!("/{part}/{name}"));
    }
    call.made(id)
}

fn resource_id(call: &Call<'_>, place: &Place) -> Result<Value, Halt> {
    let texts = call.texts()?;
    let type_at = texts.iter().position(|text| text.contains('/'));
    let Some(type_at) = type_at.filter(|at| *at <= 2) else {
        return Err(call.wrong("takes [subscription id,] [resource group,] a type with a '/', and names"));
    };
    let own_subscription = place.subscription_text();
    let subscription = if type_at == 2 { texts[0] } else { own_subscription.as_str() };
    let own_group = place.group_name();
    let group = match type_at {
        0 => own_group,
        at => Some(texts[at - 1]),
    };
    let scope = match group {
        Some(group) => format!("/subscriptions/{subscription}/resourceGroups/{group}"),
        None => format!("/subscriptions/{subscription}"),
    };
    typed_id(call, &scope, &call.values[type_at..])
}

fn subscription_resource_id(call: &Call<'_>, place: &Place) -> Result<Value, Halt> {
    let texts = call.texts()?;
    let own = texts.first().is_some_and(|first| first.contains('/'));
    let own_subscription = place.subscription_text();
    let subscription = if own { Some(own_subscription.as_str()) } else { texts.first().copied() };
    let subscription = subscription.ok_or_else(|| call.wrong("takes a resource type and names"))?;
    typed_id(call, &format!("/subscriptions/{subscription}"), &call.values[usize::from(!own)..])
}

fn reference(call: &Call<'_>) -> Result<Value, Halt> {
    let texts = call.texts()?;
    let (target, full) = match texts.as_slice() {
        [target] | [target, _] => (*target, false),
        [target, _, full] if full.eq_ignore_ascii_case("full") => (*target, true),
        _ => return Err(call.wrong("takes a name or id, an api version, and 'Full'")),
    };
    let id = if target.starts_with('/') {
        ResourceId::parse(target).map_err(|fault| call.wrong(&format!("can't read its target: {}", fault.message)))?
    } else {
        let named = call.at.deployment.declared_name(target);
        named.ok_or_else(|| call.wrong(&format!("refers to '{target}', which no resource of the template is named")))?
    };
    match call.at.known.get(&id) {
        None => Err(Halt::Needs(id)),
        Some(None) => Err(call.wrong(&format!("refers to {id}, which does not exist"))),
        Some(Some(resource)) if full => call.at.copied(resource),
        Some(Some(resource)) => call.at.copied(resource.get("properties").unwrap_or(&Value::Null)),
    }
}

fn logic(call: &Call<'_>, name: &str) -> Option<Result<Value, Halt>> {
    Some(match name {
        "not" => call.count().and_then(|[value]| match value {
            Value::Bool(truth) => Ok((!truth).into()),
            other => Err(call.wrong(&format!("takes a boolean, not {}", kind(other)))),
        }),
        "true" => call.count().map(|[]| true.into()),
        "false" => call.count().map(|[]| false.into()),
        "null" => call.count().map(|[]| Value::Null),
        "bool" => call.count().and_then(|[value]| match value {
            Value::Bool(_) => Ok(value.clone()),
            Value::Number(number) => Ok((number.as_i64() != Some(0)).into()),
            Value::String(text) if text.eq_ignore_ascii_case("true") || text == "1" => Ok(true.into()),
            Value::String(text) if text.eq_ignore_ascii_case("false") || text == "0" => Ok(false.into()),
            other => Err(call.wrong(&format!("can't make a boolean of {other}"))),
        }),
        "equals" => call.count().map(|[left, right]| equal(left, right).into()),
        "empty" => call.count().and_then(|[value]| match value {
            Value::Null => Ok(true.into()),
            Value::String(text) => Ok(text.is_empty().into()),
            Value::Array(items) => Ok(items.is_empty().into()),
            Value::Object(map) => Ok(map.is_empty().into()),
            other => Err(call.wrong(&format!("takes a text, an array or an object, not {}", kind(other)))),
        }),
        "greater" | "less" | "greaterorequals" | "lessorequals" => compare(call, name),
        _ => return None,
    })
}

/// Equality of the original: texts in any case.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::String(left), Value::String(right)) => left.to_lowercase() == right.to_lowercase(),
        _ => left == right,
    }
}

fn compare(call: &Call<'_>, name: &str) -> Result<Value, Halt> {
    let [left, right] = call.count()?;
    let order = match (left, right) {
        (Value::String(left), Value::String(right)) => left.cmp(right),
        _ => call.number(left)?.cmp(&call.number(right)?),
    };
    let holds = match name {
        "greater" => order.is_gt(),
        "less" => order.is_lt(),
        "greaterorequals" => order.is_ge(),
        _ => order.is_le(),
    };
    Ok(holds.into())
}
