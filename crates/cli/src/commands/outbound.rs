//! `ml workspace outbound-rule …` and `ml workspace outbound-log`.

use std::{fmt::Write as _, time::Duration};

use casemate_model::egress::PortRanges;
use casemate_wire::{
    client::Accepted,
    entity::{Document, OutboundRule},
    yaml::Node,
};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Found, confirmed, format, workspace::scope};
use crate::{
    failure::Failure,
    grammar::{
        Format, Globals, OfDeployment, OutboundLogArgs, RuleArgs, RuleCommand, RuleName, SuggestArgs, TestArgs,
        WorkspaceName,
    },
    output::{self, Output, Query},
    progress::Step,
    session::{ML_API, Session, segment},
};

/// How often `--follow` looks for new entries.
const FOLLOW: Duration = Duration::from_secs(1);
/// Most entries asked for at once.
const PAGE: u64 = 5000;
/// The columns of the log's table.
const LOG_COLUMNS: &str = "[].{Time: time, Deployment: deployment, To: to, Port: port, Allowed: allowed, Rule: rule, \
                           Reason: reason, Sent: bytes_sent, Received: bytes_received}";

/// `outbound-rule …`.
pub(super) async fn rule(command: RuleCommand, session: &Session, globals: &Globals) -> Found {
    let client = session.client();
    match command {
        RuleCommand::Set(args) => set(*args, None, session, globals).await,
        RuleCommand::Update(args) => {
            let found = client.get(&path_of(&args.rule, session).await?).await?;
            set(*args, Some(found), session, globals).await
        }
        RuleCommand::List(within) => {
            let id = session.workspace_id(&scope(within.resource_group, within.workspace_name)).await?;
            let all = client.list(&format!("{id}/outboundRules?{ML_API}")).await?;
            Ok(all.iter().map(shown).collect::<Value>().into())
        }
        RuleCommand::Show(rule) => Ok(shown(&client.get(&path_of(&rule, session).await?).await?).into()),
        RuleCommand::Remove { rule, yes, no_wait } => {
            confirmed(yes)?;
            let path = path_of(&rule, session).await?;
            client.get(&path).await?;
            match client.write(Method::DELETE, &path, None, None).await? {
                Accepted::Running(pending) if !no_wait.no_wait => {
                    drop(client.wait(*pending, Default::default(), &mut |_| {}).await?)
                }
                _ => {}
            }
            Ok(Output::Nothing)
        }
        RuleCommand::Test(args) => test(args, session).await,
        RuleCommand::Suggest(args) => suggest(args, session).await,
    }
}

async fn path_of(rule: &RuleName, session: &Session) -> Result<String, Failure> {
    let within = scope(rule.scope.resource_group.clone(), rule.scope.workspace_name.clone());
    let id = session.workspace_id(&within).await?;
    Ok(format!("{id}/outboundRules/{}?{ML_API}", segment(&rule.rule)))
}

fn shown(answer: &Value) -> Value {
    let name = answer.get("name").and_then(Value::as_str).unwrap_or_default();
    OutboundRule::show(name, answer.get("properties").unwrap_or(&Value::Null))
}

/// `set`, and `update` when the rule as it is stands in `base`.
async fn set(args: RuleArgs, base: Option<Value>, session: &Session, globals: &Globals) -> Found {
    let client = session.client();
    let mut document = match (&args.file, &base) {
        (Some(file), _) => Document::from_file(file)?,
        (None, Some(base)) => Document::from_shown(&shown(base), format!("outbound rule {}", args.rule.rule)),
        (None, None) => Document::from_arguments(),
    };
    document.put("name", Node::text(args.rule.rule.as_str()));
    lay_options(&mut document, &args)?;
    let rule = OutboundRule::read(&document)?;
    let path = path_of(&args.rule, session).await?;
    let etag = base.as_ref().and_then(|base| base.get("etag")).and_then(Value::as_str);
    let body = json!({"properties": rule.body});
    match client.write(Method::PUT, &path, Some(&body), etag).await? {
        Accepted::Running(_) if args.no_wait.no_wait => return Ok(Output::Nothing),
        Accepted::Done(_) => {}
        Accepted::Running(pending) => {
            let mut step = Step::begin(globals, format!("Setting the rule '{}'", rule.name));
            client.wait(*pending, Default::default(), &mut |elapsed| step.tick(elapsed)).await?;
        }
    }
    Ok(shown(&client.get(&path).await?).into())
}

/// The options win over the file. Ports are a part of a tag's destination, but stand beside a host's.
fn lay_options(document: &mut Document, args: &RuleArgs) -> Result<(), Failure> {
    let lists = |text: &String| {
        json!(text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>()).to_string()
    };
    let written = |document: &Document| document.root.get("type").and_then(Node::as_written).map(str::to_owned);
    let kind = args.kind.clone().or_else(|| written(document)).unwrap_or_default();
    let ports = if kind.eq_ignore_ascii_case("fqdn") { "port_ranges" } else { "destination.port_ranges" };
    let mut settings = Vec::new();
    for (path, value) in [
        ("type", args.kind.clone()),
        ("destination", args.destination.clone()),
        ("destination.service_resource_id", args.service_resource_id.clone()),
        ("destination.subresource_target", args.subresource_target.clone()),
        ("destination.spark_enabled", args.spark_enabled.clone()),
        ("destination.service_tag", args.service_tag.clone()),
        ("destination.protocol", args.protocol.clone()),
        (ports, args.port_ranges.as_ref().map(|ports| json!(ports).to_string())),
        ("destination.address_prefixes", args.address_prefixes.as_ref().map(lists)),
        ("fqdns", args.fqdns.as_ref().map(lists)),
    ] {
        settings.extend(value.map(|value| format!("{path}={value}")));
    }
    Ok(document.set(&settings)?)
}

async fn workspace_id(workspace: &WorkspaceName, session: &Session) -> Result<String, Failure> {
    session.workspace_id(&scope(workspace.resource_group.clone(), workspace.name.clone())).await
}

fn of(deployment: &OfDeployment) -> Value {
    json!({"deployment": deployment.deployment, "endpoint": deployment.endpoint})
}

async fn test(args: TestArgs, session: &Session) -> Found {
    let id = workspace_id(&args.workspace, session).await?;
    let mut body = of(&args.of);
    body["destination"] = json!(args.destination);
    let answer = session.client().post(&format!("{id}/testOutboundDestination?{ML_API}"), &body).await?;
    let copy = |key: &str| answer.get(key).cloned().unwrap_or_default();
    let mut shown = json!({
        "destination": copy("destination"),
        "allowed": copy("allowed"),
        "rule": copy("rule"),
        "reason": copy("reason"),
        "route": copy("route"),
        "would_deny": copy("wouldDeny"),
    });
    if let Some(Value::Array(unreadable)) = answer.get("unreadableRules").filter(|rules| rules != &&json!([])) {
        shown["unreadable_rules"] = json!(unreadable);
    }
    Ok(shown.into())
}

async fn suggest(args: SuggestArgs, session: &Session) -> Found {
    let id = workspace_id(&args.workspace, session).await?;
    let answer = session.client().post(&format!("{id}/suggestOutboundRules?{ML_API}"), &of(&args.of)).await?;
    Ok(Output::Raw(suggested_yaml(&answer)))
}

/// What the platform proposes as a file for `ml workspace update`.
fn suggested_yaml(answer: &Value) -> String {
    let count = |value: &Value, key: &str| value.get(key).and_then(Value::as_u64).unwrap_or(0);
    let rules = answer.get("value").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut yaml = format!(
        "# From {} entries of the outbound log. Look through it, then: casemate ml workspace update -n WS -f FILE\n\
         managed_network:\n  isolation_mode: allow_only_approved_outbound\n  outbound_rules:",
        count(answer, "entries")
    );
    if rules.is_empty() {
        yaml.push_str(" []\n# Nothing was let through without a rule. Run the deployment with --audit first.\n");
        return yaml;
    }
    yaml.push('\n');
    for rule in rules {
        let name = rule.get("name").and_then(Value::as_str).unwrap_or_default();
        let properties = rule.get("properties").unwrap_or(&Value::Null);
        let text = |pointer: &str| properties.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        // Writing to a text can't fail.
        let _ = writeln!(yaml, "  # connections: {}", count(rule, "connections"));
        if text("/destination").starts_with("*.") {
            let hosts = rule.get("hosts").and_then(Value::as_array).into_iter().flatten();
            let hosts: Vec<&str> = hosts.filter_map(Value::as_str).collect();
            let _ = writeln!(yaml, "  # seen: {}", hosts.join(", "));
            yaml.push_str("  # a wildcard: make sure that strangers can't have a name below it\n");
        }
        let _ = writeln!(yaml, "  - name: {name}");
        if properties.get("type").and_then(Value::as_str) == Some("FQDN") {
            let _ = writeln!(yaml, "    type: fqdn\n    destination: '{}'", text("/destination"));
            if text("/casemate/portRanges") != PortRanges::web().to_string() {
                let _ = writeln!(yaml, "    port_ranges: '{}'", text("/casemate/portRanges"));
            }
        } else {
            let prefixes = properties.pointer("/destination/addressPrefixes").cloned().unwrap_or_default();
            let _ = writeln!(
                yaml,
                "    type: service_tag\n    destination:\n      protocol: TCP\n      port_ranges: '{}'\n      \
                 address_prefixes: {prefixes}",
                text("/destination/portRanges")
            );
        }
    }
    yaml
}

/// `outbound-log`.
pub(super) async fn log(args: OutboundLogArgs, session: &Session, globals: &Globals) -> Found {
    let id = workspace_id(&args.workspace, session).await?;
    let path = format!("{id}/listOutboundLog?{ML_API}");
    let ask = async |after: Option<u64>, limit: u64| {
        let mut body = of(&args.of);
        body["denied"] = json!(args.denied);
        body["after"] = json!(after);
        body["limit"] = json!(limit);
        let answer = session.client().post(&path, &body).await?;
        let entries = answer.get("value").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let next = answer.get("next").and_then(Value::as_u64).or(after).unwrap_or(0);
        Ok::<_, Failure>((entries.iter().map(shown_entry).collect::<Vec<Value>>(), next))
    };
    let (entries, mut next) = ask(None, u64::from(args.lines)).await?;
    if !args.follow {
        return Ok(Output::Value(Value::Array(entries), Some(LOG_COLUMNS)));
    }
    let query = globals.query.as_deref().map(Query::parse).transpose()?;
    let form = format(globals)?;
    let print =
        |entries: Vec<Value>| entries.into_iter().try_for_each(|entry| follow_line(entry, query.as_ref(), form));
    print(entries)?;
    loop {
        tokio::time::sleep(FOLLOW).await;
        let (entries, newer) = ask(Some(next), PAGE).await?;
        next = newer;
        print(entries)?;
    }
}

/// One entry of a log that is followed: a line of JSON, or as a list of one in the forms that cut and compare.
fn follow_line(entry: Value, query: Option<&Query>, form: Format) -> Result<(), Failure> {
    match form {
        Format::Json | Format::Jsonc if query.is_none() => output::print(Output::Raw(entry.to_string()), None, form),
        // A heading before each line would be in the way.
        Format::Table => output::print(Output::Value(json!([entry]), Some(LOG_COLUMNS)), query, Format::Tsv),
        _ => output::print(Output::Value(json!([entry]), None), query, form),
    }
}

/// An entry in the command line's own spelling, with one field that says where it went.
fn shown_entry(entry: &Value) -> Value {
    let mut shown = serde_json::Map::new();
    for (key, value) in entry.as_object().into_iter().flatten() {
        let mut snake = String::new();
        for c in key.chars() {
            if c.is_ascii_uppercase() {
                snake.push('_');
            }
            snake.push(c.to_ascii_lowercase());
        }
        shown.insert(snake, value.clone());
    }
    let to = ["name", "address"].into_iter().find_map(|key| shown.get(key).filter(|value| value.is_string()).cloned());
    shown.insert("to".to_owned(), to.unwrap_or_default());
    shown.entry("rule").or_insert(Value::Null);
    Value::Object(shown)
}

#[cfg(test)]
mod tests {
    use casemate_wire::entity::Workspace;

    use super::*;

    #[test]
    fn proposals_are_a_file_that_is_read_again() {
        let answer = json!({"entries": 12, "value": [
            {"name": "db", "connections": 3, "properties": {"type": "FQDN", "destination": "db.example.com", "casemate": {"portRanges": "5432"}}},
            {"name": "web", "connections": 3, "properties": {"type": "FQDN", "destination": "packages.example.org", "casemate": {"portRanges": "80,443"}}},
            {"name": "any", "connections": 5, "hosts": ["a.cdn.example", "b.cdn.example"],
                "properties": {"type": "FQDN", "destination": "*.cdn.example", "casemate": {"portRanges": "443"}}},
            {"name": "raw", "connections": 1, "properties": {"type": "ServiceTag",
                "destination": {"protocol": "TCP", "portRanges": "853", "addressPrefixes": ["1.1.1.1/32", "8.8.8.8/32"], "action": "Allow"}}},
        ]});
        let yaml = suggested_yaml(&answer);
        assert!(yaml.contains("# seen: a.cdn.example, b.cdn.example\n"), "{yaml}");
        let root = casemate_wire::yaml::parse(&yaml, "rules.yml").unwrap();
        let document = Document { root, name: "rules.yml".to_owned(), base: ".".into() };
        let network = Workspace::read(&document).unwrap().managed_network.unwrap();
        assert_eq!(network.isolation_mode, Some("AllowOnlyApprovedOutbound"));
        let ports: Vec<&Value> =
            network.rules[..3].iter().map(|rule| rule.body.pointer("/casemate/portRanges").unwrap()).collect();
        assert_eq!(ports, ["5432", "80,443", "443"]);
        assert_eq!(network.rules[3].body["destination"]["addressPrefixes"], json!(["1.1.1.1/32", "8.8.8.8/32"]));
        let nothing = suggested_yaml(&json!({"entries": 0, "value": []}));
        assert!(nothing.contains("outbound_rules: []\n") && nothing.contains("--audit"), "{nothing}");
    }

    #[test]
    fn entries_say_where_they_went() {
        let entry = json!({"name": null, "address": "1.2.3.4", "port": 443, "bytesSent": 5, "wouldDeny": true});
        let shown = shown_entry(&entry);
        assert_eq!((shown["to"].as_str(), shown["bytes_sent"].as_u64()), (Some("1.2.3.4"), Some(5)));
        assert_eq!((shown["would_deny"].clone(), shown["rule"].clone()), (json!(true), Value::Null));
    }
}
