//! The forms of output, against what `az` prints.

use serde_json::json;

use super::*;

fn shown(value: Value, query: Option<&str>, format: Format) -> String {
    let query = query.map(|text| Query::parse(text).unwrap());
    render(value, None, query.as_ref(), format).unwrap()
}

fn endpoint() -> Value {
    json!({"name": "ep", "id": "/x", "tags": {"a": "b"}, "kind": null, "up": true, "count": 2,
        "properties": {"azureml.onlineendpointid": "Q"}, "traffic": {"blue": 100}})
}

#[test]
fn tab_separated() {
    for (value, query, text) in [
        (endpoint(), Some("name"), "ep\n"),
        (endpoint(), Some("up"), "true\n"),
        (endpoint(), Some("count"), "2\n"),
        (endpoint(), Some("kind"), ""),
        (endpoint(), Some("nothing.here"), ""),
        (endpoint(), Some("properties.\"azureml.onlineendpointid\""), "Q\n"),
        (endpoint(), Some("[up, kind, name]"), "true\nNone\nep\n"),
        (endpoint(), Some("{up: up, kind: kind, name: name}"), "True\tNone\tep\n"),
        (json!([{"a": 1, "b": [1, 2], "c": {}}, {"a": "x"}]), None, "1\t2\t\nx\n"),
        (
            json!([{"name": "group", "value": "g"}, {"name": "workspace", "value": "w"}]),
            Some("[?name=='workspace'].value | [0]"),
            "w\n",
        ),
        (json!([{"name": "group", "value": "g"}]), Some("[?name == 'group'].value"), "g\n"),
        (json!([{"name": "n", "id": "i"}]), Some("[].{name:name, id:id}"), "n\ti\n"),
        (json!([]), None, ""),
        (json!("text"), None, "text\n"),
        (json!(1.5), None, "1.5\n"),
    ] {
        assert_eq!(shown(value, query, Format::Tsv), text, "{query:?}");
    }
}

#[test]
fn json_and_yaml() {
    assert_eq!(
        shown(json!({"b": [], "a": {"c": "ü"}}), None, Format::Json),
        "{\n  \"a\": {\n    \"c\": \"ü\"\n  },\n  \"b\": []\n}\n"
    );
    assert_eq!(shown(json!("[1.0, 2.0]"), None, Format::Json), "\"[1.0, 2.0]\"\n");
    assert_eq!(shown(json!({"a": [1, "1"]}), None, Format::Jsonc), "{\n  \"a\": [\n    1,\n    \"1\"\n  ]\n}\n");
    assert_eq!(shown(endpoint(), Some("traffic"), Format::Json), "{\n  \"blue\": 100\n}\n");
    assert_eq!(shown(json!(null), None, Format::Json), "");
    let yaml = shown(json!({"a": [1, "1"]}), None, Format::Yaml);
    assert_eq!(casemate_wire::yaml::parse(&yaml, "y").unwrap().to_json(), json!({"a": [1, "1"]}));
    assert_eq!(shown(endpoint(), None, Format::None), "");
}

#[test]
fn tables() {
    assert_eq!(
        shown(endpoint(), None, Format::Table),
        "Count    Name    Up\n-------  ------  ----\n2        ep      True\n"
    );
    assert_eq!(
        shown(
            json!([{"name": "longer", "b": 1}, {"name": "x", "c": 2}]),
            Some("[].{name: name, c: c, b: b}"),
            Format::Table
        ),
        "Name    B    C\n------  ---  ---\nlonger  1\nx            2\n"
    );
    assert_eq!(shown(json!(["a", "b"]), None, Format::Table), "Result\n--------\na\nb\n");
    assert_eq!(
        shown(json!([["a", 1]]), None, Format::Table),
        "Column1    Column2\n---------  ---------\na          1\n"
    );
}

#[test]
fn bad_queries_are_usage() {
    for text in ["[?", "a b", "name ==", "foo(@)"] {
        let failure = match Query::parse(text) {
            Err(failure) => failure,
            Ok(query) => query.apply(&json!({})).unwrap_err(),
        };
        assert!(failure.message().contains("--query"), "{}", failure.message());
    }
}
