use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

const SCHEMA: &str = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#";

fn place() -> Place {
    Place {
        subscription: Uuid::from_u128(5),
        tenant: Uuid::from_u128(7),
        subscription_name: "Test".to_owned(),
        group: Some(json!({"id": "/subscriptions/s/resourceGroups/rg", "name": "rg", "location": "local"})),
        deployment_name: "dep".to_owned(),
        location: None,
        now: Timestamp::UNIX_EPOCH,
    }
}

fn deployment(document: Value, parameters: Value) -> Result<Deployment, String> {
    let mut whole = json!({"$schema": SCHEMA, "contentVersion": "1.0.0.0", "resources": []});
    whole.as_object_mut().unwrap().extend(document.as_object().unwrap().clone());
    let template = Template::parse(&whole).map_err(|fault| fault.message)?;
    Deployment::new(template, &parameters, place()).map_err(|fault| fault.message)
}

/// The value of an expression, as an output.
fn value(expression: &str) -> Result<Value, String> {
    let document = json!({
        "parameters": {"p": {"type": "object", "defaultValue": {"Name": "n", "list": [1, 2]}}, "id": {"type": "string", "defaultValue": "[newGuid()]"}},
        "variables": {"v": "[concat('a', variables('w'))]", "w": "b"},
        "outputs": {"o": {"type": "string", "value": expression}},
    });
    let outputs = deployment(document, Value::Null)?.outputs(&Known::new());
    match outputs {
        Ok(outputs) => Ok(outputs["o"]["value"].clone()),
        Err(Halt::Fault(fault)) => Err(fault.message),
        Err(Halt::Needs(id)) => Err(format!("needs {id}")),
    }
}

#[test]
fn values_of_expressions() {
    for (expression, wanted) in [
        ("plain", json!("plain")),
        ("[[literal]", json!("[literal]")),
        ("[not closed", json!("[not closed")),
        ("['it''s']", json!("it's")),
        ("[variables('v')]", json!("ab")),
        ("[parameters('P').name]", json!("n")),
        ("[parameters('p').list[1]]", json!(2)),
        ("[parameters('p')['Name']]", json!("n")),
        ("[if(equals('A', 'a'), 'yes', variables('nowhere'))]", json!("yes")),
        ("[If(true(), 1, 2)]", json!(1)),
        ("[and(true(), not(false()))]", json!(true)),
        ("[or(false(), false())]", json!(false)),
        ("[and(false(), variables('nowhere'))]", json!(false)),
        ("[coalesce(null(), json('null'), 3)]", json!(3)),
        ("[empty('')]", json!(true)),
        ("[empty(createArray())]", json!(true)),
        ("[greater(3, 2)]", json!(true)),
        ("[lessOrEquals('a', 'b')]", json!(true)),
        ("[concat('a', 1, true())]", json!("a1True")),
        ("[concat(createArray(1), array('x'))]", json!([1, "x"])),
        ("[contains(createArray('a', 'b'), 'b')]", json!(true)),
        ("[contains('abc', 'bc')]", json!(true)),
        ("[contains(createObject('Key', 1), 'key')]", json!(true)),
        ("[length('äb')]", json!(2)),
        ("[format('{0}-{1}-{{x}}', 'a', 5)]", json!("a-5-{x}")),
        ("[toUpper(toLower('aB'))]", json!("AB")),
        ("[string(createObject('a', createArray(1, 'x')))]", json!("{\"a\":[1,\"x\"]}")),
        ("[json('{\"a\": [1]}').a[0]]", json!(1)),
        ("[replace('a-b-c', '-', '+')]", json!("a+b+c")),
        ("[substring('abcdef', 2, 3)]", json!("cde")),
        ("[split('a,b', ',')]", json!(["a", "b"])),
        ("[join(createArray('a', 2), '/')]", json!("a/2")),
        ("[first('xyz')]", json!("x")),
        ("[last(createArray(1, 2))]", json!(2)),
        ("[union(createArray(1), createArray(1, 2))]", json!([1, 2])),
        ("[range(3, 2)]", json!([3, 4])),
        ("[add(2, sub(5, mul(2, 2)))]", json!(3)),
        ("[int('42')]", json!(42)),
        ("[bool('True')]", json!(true)),
        ("[max(1, 3, 2)]", json!(3)),
        ("[subscription().subscriptionId]", json!("00000000-0000-0000-0000-000000000005")),
        ("[resourceGroup().location]", json!("local")),
        ("[deployment().name]", json!("dep")),
        (
            "[resourceId('A.B/c', 'n')]",
            json!("/subscriptions/00000000-0000-0000-0000-000000000005/resourceGroups/rg/providers/A.B/c/n"),
        ),
        (
            "[resourceId('other', 'A.B/c/d', 'n', 'm')]",
            json!("/subscriptions/00000000-0000-0000-0000-000000000005/resourceGroups/other/providers/A.B/c/n/d/m"),
        ),
        ("[resourceId('s2', 'g2', 'A.B/c', 'n')]", json!("/subscriptions/s2/resourceGroups/g2/providers/A.B/c/n")),
        (
            "[subscriptionResourceId('A.B/c', 'n')]",
            json!("/subscriptions/00000000-0000-0000-0000-000000000005/providers/A.B/c/n"),
        ),
        ("[extensionResourceId('/x', 'A.B/c', 'n')]", json!("/x/providers/A.B/c/n")),
        ("[tenantResourceId('A.B/c', 'n')]", json!("/providers/A.B/c/n")),
        ("[length(uniqueString('a', 'b'))]", json!(13)),
        ("[equals(uniqueString('a', 'b'), uniqueString('a', 'c'))]", json!(false)),
        ("[equals(guid('a', 'b'), guid('a', 'b'))]", json!(true)),
        ("[equals(parameters('id'), parameters('id'))]", json!(true)),
    ] {
        assert_eq!(value(expression), Ok(wanted), "{expression}");
    }
    let expression = json!({"[concat('k', '1')]": ["[variables('w')]", 7, null]});
    let document = json!({"variables": {"w": "b"}, "outputs": {"o": {"type": "object", "value": expression}}});
    let outputs = deployment(document, Value::Null).unwrap().outputs(&Known::new()).unwrap();
    assert_eq!(outputs["o"]["value"], json!({"k1": ["b", 7, null]}));
}

#[test]
fn wrong_expressions_name_the_place_and_the_cause() {
    for (expression, said) in [
        ("[]", "ends where a value should stand"),
        ("[nope()]", "the template function 'nope' is not known"),
        ("[nope]", "the name 'nope' is not followed by '('"),
        ("[concat('a']", "a ',' is missing before the end"),
        ("[concat('a')) ]", "')' follows after its end"),
        ("['a]", "does not end"),
        ("[concat('a', )]", "')' stands where a value should stand"),
        ("[1.x]", "has no property 'x'"),
        ("[parameters('p').]", "not followed by a property"),
        ("[parameters('p').none]", "there is no property 'none'; there are: Name, list"),
        ("[parameters('p').list[2]]", "the index 2 is outside an array of 2 items"),
        ("[parameters('p').list[-1]]", "outside an array"),
        ("[parameters('none')]", "no parameter 'none'"),
        ("[variables('none')]", "no variable 'none'"),
        ("[99999999999999999999]", "fits 64 bits"),
        ("[add(9223372036854775807, 1)]", "no result that fits"),
        ("[div(1, 0)]", "no result"),
        ("[if('x', 1, 2)]", "takes booleans, not a text"),
        ("[not(1)]", "takes a boolean, not a number"),
        ("[newGuid()]", "only be used in the default value"),
        ("[utcNow()]", "only be used in the default value"),
        ("[copyIndex()]", "has no 'copy'"),
        ("[resourceId('A.B/c', 'n', 'm')]", "needs 1 name(s)"),
        ("[resourceId('a', 'b')]", "a type with a '/'"),
        ("[substring('abc', 2, 5)]", "reaches outside a text of 3 characters"),
        ("[format('{1}', 'a')]", "no argument for '{1}'"),
        ("[format('{', 'a')]", "single brace"),
        ("[split('a', '')]", "empty text"),
        ("[range(0, 99999999)]", "a count from 0 to 10000"),
        ("[json('{')]", "as JSON"),
        ("[reference('nothing')]", "no resource of the template is named"),
        ("[reference('/bad')]", "can't read its target"),
        ("[reference('/subscriptions/s/providers/A.B/c/n')]", "needs /subscriptions/s/providers/A.B/c/n"),
        ("[concat('a', createArray(1))]", "not an array"),
        ("[;]", "';' at position 0 has no meaning"),
    ] {
        let message = value(expression).unwrap_err();
        assert!(message.contains(said), "{expression}: {message}");
        assert!(message.contains("outputs.o.value") || message.starts_with("needs"), "{message}");
    }
}

#[test]
fn work_is_bounded() {
    let nested = |depth: usize| format!("[{}1{}]", "array(".repeat(depth), ")".repeat(depth));
    assert!(value(&nested(20)).is_ok());
    assert!(value(&nested(500)).unwrap_err().contains("nests deeper"));
    assert!(value(&format!("[parameters('p'){}]", "['a']".repeat(3000))).unwrap_err().contains("too many properties"));
    assert!(value(&format!("['{}']", "x".repeat(30_000))).unwrap_err().contains("at most 24576"));
    let doubling: serde_json::Map<String, Value> = (1..60)
        .map(|at| (format!("v{at}"), format!("[concat(variables('v{}'), variables('v{}'))]", at - 1, at - 1).into()))
        .chain([("v0".to_owned(), json!("xxxxxxxxxx"))])
        .collect();
    let document = json!({"variables": doubling, "outputs": {"o": {"type": "string", "value": "[variables('v59')]"}}});
    let outcome = deployment(document, Value::Null).unwrap().outputs(&Known::new());
    assert!(matches!(outcome, Err(Halt::Fault(_))));
    // A value that grows deeper, one level with each variable, none of them deep by itself.
    let deepening: serde_json::Map<String, Value> = (1..200)
        .map(|at| (format!("v{at:03}"), json!([format!("[variables('v{:03}')]", at - 1)])))
        .chain([("v000".to_owned(), json!("x"))])
        .collect();
    let uses: Vec<String> = (0..200).map(|at| format!("[variables('v{at:03}')]")).collect();
    let document = json!({"variables": deepening, "outputs": {"o": {"type": "array", "value": uses}}});
    let outcome = deployment(document, Value::Null).unwrap().outputs(&Known::new());
    assert!(matches!(outcome, Err(Halt::Fault(fault)) if fault.message.contains("nests deeper")));
    let circle = json!({"variables": {"a": "[variables('b')]", "b": "[variables('a')]"}, "outputs": {"o": {"type": "string", "value": "[variables('a')]"}}});
    let outcome = deployment(circle, Value::Null).unwrap().outputs(&Known::new());
    assert!(matches!(outcome, Err(Halt::Fault(fault)) if fault.message.contains("needs its own value")));
    let many: Vec<Value> = (0..900).map(|at| json!({"type": "A.B/c", "name": at.to_string()})).collect();
    assert!(deployment(json!({"resources": many}), Value::Null).unwrap_err().contains("at most 800"));
}

#[test]
fn parameters_are_checked() {
    let with = |definition: Value, given: Value| {
        deployment(json!({"parameters": {"p": definition}}), given)
            .map(|deployment| deployment.shown_parameters().unwrap())
    };
    let given = |value: Value| json!({"P": {"value": value}});
    assert_eq!(with(json!({"type": "int", "defaultValue": 3}), Value::Null).unwrap()["p"]["value"], 3);
    assert_eq!(with(json!({"type": "int", "defaultValue": 3}), given(Value::Null)).unwrap()["p"]["value"], 3);
    // What is given is no expression.
    assert_eq!(with(json!({"type": "string"}), given(json!("[x]"))).unwrap()["p"]["value"], "[x]");
    for (definition, given, said) in [
        (json!({"type": "string"}), Value::Null, "no default value, and none is given"),
        (json!({"type": "string"}), given(json!(1)), "the value is a number"),
        (json!({"type": "Bool"}), given(json!("true")), "the value is a text"),
        (json!({"type": "float"}), given(json!(1)), "'float' is not known"),
        (
            json!({"type": "string", "allowedValues": ["a"]}),
            given(json!("b")),
            "\"b\" is not part of the allowed values: \"a\"",
        ),
        (json!({"type": "string", "minLength": 3}), given(json!("ab")), "minLength"),
        (json!({"type": "array", "maxLength": 1}), given(json!([1, 2])), "maxLength"),
        (json!({"type": "int", "maxValue": 5}), given(json!(6)), "maxValue"),
        (json!({"type": "string"}), json!({"q": {"value": 1}}), "it defines: p"),
        (json!({"type": "string"}), json!({"p": {"reference": {}}}), "vault secrets"),
        (json!({"type": "string"}), json!([]), "not an object"),
        (
            json!({"type": "string", "defaultValue": "[reference('/subscriptions/s/providers/A.B/c/n').x]"}),
            Value::Null,
            "not allowed",
        ),
    ] {
        let message = with(definition.clone(), given).unwrap_err();
        assert!(message.contains(said), "{definition}: {message}");
    }
    let secret = with(json!({"type": "secureString", "allowedValues": ["a"]}), given(json!("hush"))).unwrap_err();
    assert!(!secret.contains("hush"), "{secret}");
}

#[test]
fn documents_are_checked() {
    for (document, said) in [
        (json!([]), "not a JSON object"),
        (json!({"$schema": "x"}), "$schema"),
        (json!({"$schema": SCHEMA}), "needs this array"),
        (json!({"$schema": SCHEMA, "resources": {}}), "not an array"),
        (json!({"$schema": SCHEMA, "resources": [1]}), "resources[0]"),
        (json!({"$schema": SCHEMA, "resources": [{"name": "x"}]}), "needs 'type'"),
        (json!({"$schema": SCHEMA, "resources": [], "functions": []}), "'functions'"),
        (json!({"$schema": SCHEMA, "resources": [], "variables": []}), "an array, not an object"),
        (json!({"$schema": SCHEMA, "resources": [], "variables": {"copy": []}}), "loops over variables"),
    ] {
        let message = Template::parse(&document).unwrap_err().message;
        assert!(message.contains(said), "{document}: {message}");
    }
    for (resource, said) in [
        (json!({"type": "A.B/c/d", "name": "n"}), "needs a name of 2 part(s)"),
        (json!({"type": "A.B/c", "name": "[1]"}), "not a text"),
        (json!({"type": "A.B/c", "name": "a b<"}), "forbidden character"),
        (json!({"type": "A.B/c", "name": "n", "condition": "maybe"}), "true or false"),
        (json!({"type": "A.B/c", "name": "n", "dependsOn": "x"}), "not an array"),
        (json!({"type": "A.B/c", "name": "n", "copy": {"count": 2}}), "'name'"),
        (json!({"type": "A.B/c", "name": "n", "copy": {"name": "l", "count": 2}}), "declared twice"),
        (json!({"type": "A.B/c", "name": "n", "copy": {"name": "l", "count": -1}}), "0 to 800"),
    ] {
        let message = deployment(json!({"resources": [resource]}), Value::Null).unwrap_err();
        assert!(message.contains(said) && message.contains("resources[0]"), "{resource}: {message}");
    }
}

#[test]
fn resources_children_loops_and_order() {
    let document = json!({"resources": [
        {"type": "A.B/c", "name": "p", "dependsOn": ["loop"], "resources": [
            {"type": "d", "name": "[concat('k', 'id')]", "dependsOn": ["[resourceId('A.B/c', 'p')]"]},
        ]},
        {"type": "A.B/x", "name": "[concat('x', copyIndex())]", "copy": {"name": "loop", "count": 2}, "properties": {"at": "[copyIndex(5)]"}},
        {"type": "A.B/y", "name": "y", "condition": false, "dependsOn": ["nowhere"]},
        {"type": "E.F/g", "name": "on", "scope": "[resourceId('A.B/c', 'p')]", "dependsOn": ["A.B/c/p", "y"]},
    ]});
    let deployment = deployment(document, Value::Null).unwrap();
    let declared = deployment.declared();
    let ids: Vec<&str> = declared.iter().map(|one| one.id.as_str().split_once("/rg/").unwrap().1).collect();
    assert_eq!(
        ids,
        [
            "providers/A.B/c/p",
            "providers/A.B/c/p/d/kid",
            "providers/A.B/x/x0",
            "providers/A.B/x/x1",
            "providers/A.B/c/p/providers/E.F/g/on"
        ]
    );
    let after: Vec<&[usize]> = declared.iter().map(|one| one.after.as_slice()).collect();
    assert_eq!(after, [&[2, 3][..], &[0], &[], &[], &[0]]);
    assert_eq!(declared[1].place, "resources[0].resources[0]");
    assert_eq!(deployment.plan(&declared[3], &Known::new()).unwrap().body, json!({"properties": {"at": 6}}));
}
