//! Deployments: from YAML to the body and back, and bad input.

use super::*;

const WORKSPACE: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w";

fn files() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for part in ["code", "model", "environment", "online"] {
        std::fs::create_dir(dir.path().join(part)).unwrap();
    }
    std::fs::write(dir.path().join("code/score.py"), "").unwrap();
    std::fs::write(dir.path().join("environment/conda.yaml"), "name: e\ndependencies: [python=3.12]\n").unwrap();
    dir
}

fn document(dir: &tempfile::TempDir, text: &str) -> Document {
    let path = dir.path().join("online/blue.yml");
    std::fs::write(&path, text).unwrap();
    let mut document = Document::from_file(&path).unwrap();
    document.name = "blue.yml".to_owned();
    document
}

const BLUE: &str = "\
$schema: https://x/managedOnlineDeployment.schema.json
name: blue
endpoint_name: my-endpoint
model:
  path: ../model/
code_configuration:
  code: ../code/
  scoring_script: score.py
environment:
  conda_file: ../environment/conda.yaml
  image: registry/image:latest
instance_type: Standard_DS3_v2
instance_count: 1
environment_variables: {A: 1, B: text}
request_settings: {request_timeout_ms: 90500, max_queue_wait_ms: 500}
liveness_probe: {initial_delay: 5, failure_threshold: 3}
egress_public_network_access: disabled
";

#[test]
fn from_yaml_to_the_body() {
    let dir = files();
    let deployment = Deployment::read(&document(&dir, BLUE)).unwrap();
    let Some(Source::Inline(model)) = &deployment.model else { panic!("{:?}", deployment.model) };
    let root = dir.path().canonicalize().unwrap();
    assert_eq!(model.path, Some(crate::entity::ModelPath::Local(root.join("model"))));
    assert_eq!(deployment.code.as_ref().unwrap().code, Some(Code::Local(root.join("code"))));
    deployment.check_script().unwrap();
    let assets = ResolvedAssets { code: Some("C".into()), environment: Some("E".into()), model: Some("M".into()) };
    assert_eq!(
        deployment.to_arm("local", &assets),
        json!({"location": "local", "tags": {}, "sku": {"name": "Default", "capacity": 1},
            "properties": {"endpointComputeType": "Managed", "properties": {},
                "codeConfiguration": {"codeId": "C", "scoringScript": "score.py"}, "environmentId": "E", "model": "M",
                "environmentVariables": {"A": "1", "B": "text"}, "appInsightsEnabled": false,
                "scaleSettings": {"scaleType": "Default"},
                "requestSettings": {"requestTimeout": "PT90.5S", "maxQueueWait": "PT0.5S"},
                "livenessProbe": {"initialDelay": "PT5S", "failureThreshold": 3},
                "instanceType": "Standard_DS3_v2", "egressPublicNetworkAccess": "Disabled"}})
    );
}

#[test]
fn what_is_shown_can_be_changed_and_written_back() {
    let arm = json!({"id": format!("{WORKSPACE}/onlineEndpoints/ep/deployments/blue"), "name": "blue", "location": "local", "tags": {},
        "sku": {"name": "Default", "capacity": 1},
        "systemData": {"createdAt": "2025-01-01T00:00:00Z", "createdBy": "me"},
        "properties": {"endpointComputeType": "Managed", "properties": {},
            "codeConfiguration": {"codeId": format!("{WORKSPACE}/codes/c/versions/1"), "scoringScript": "score.py"},
            "environmentId": format!("{WORKSPACE}/environments/e/versions/1"), "model": format!("{WORKSPACE}/models/m/versions/1"),
            "instanceType": "Standard_DS3_v2", "environmentVariables": {"A": "b"}, "appInsightsEnabled": false,
            "scaleSettings": {"scaleType": "Default"},
            "requestSettings": {"requestTimeout": "PT5S", "maxConcurrentRequestsPerInstance": 1, "maxQueueWait": "PT0.5S"},
            "livenessProbe": {"initialDelay": "PT10S", "period": "PT10S", "timeout": "PT2S", "successThreshold": 1, "failureThreshold": 30},
            "readinessProbe": null, "egressPublicNetworkAccess": "Enabled", "provisioningState": "Succeeded",
            "dataCollector": {"collections": {"model_inputs": {"dataCollectionMode": "Enabled", "samplingRate": 0.5}}, "rollingRate": "Hour",
                "requestLogging": {"captureHeaders": ["a"]}}}});
    let shown = Deployment::show(&arm);
    assert_eq!(shown["endpoint_name"], "ep");
    assert_eq!(shown["model"], format!("azureml:{WORKSPACE}/models/m/versions/1"));
    assert_eq!(shown["request_settings"]["max_queue_wait_ms"], 500);
    assert_eq!(shown["liveness_probe"]["initial_delay"], 10);
    assert_eq!(shown["type"], "managed");
    let mut document = Document::from_shown(&shown, "blue");
    document.set(&["instance_count=2".to_owned(), "environment_variables.C=d".to_owned()]).unwrap();
    let deployment = Deployment::read(&document).unwrap();
    assert_eq!(
        deployment.environment,
        Some(Source::Ref(AssetRef::Id(format!("{WORKSPACE}/environments/e/versions/1"))))
    );
    let assets = ResolvedAssets {
        code: Some(format!("{WORKSPACE}/codes/c/versions/1")),
        environment: Some(format!("{WORKSPACE}/environments/e/versions/1")),
        model: Some(format!("{WORKSPACE}/models/m/versions/1")),
    };
    let body = deployment.to_arm("local", &assets);
    assert_eq!(body["sku"]["capacity"], 2);
    let mut wanted = arm["properties"].clone();
    let map = wanted.as_object_mut().unwrap();
    map.remove("provisioningState");
    map.remove("readinessProbe");
    map["environmentVariables"]["C"] = json!("d");
    assert_eq!(body["properties"], wanted);
}

#[test]
fn kubernetes_and_scaling() {
    let dir = files();
    let text = "name: green\ntype: kubernetes\nresources: {requests: {cpu: '0.1', memory: 0.1Gi}, limits: {nvidia.com/gpu: 1}}\n\
                scale_settings: {type: target_utilization, min_instances: 1, max_instances: 3, polling_interval: 10, target_utilization_percentage: 70}\n";
    let body = Deployment::read(&document(&dir, text)).unwrap().to_arm("local", &ResolvedAssets::default());
    assert_eq!(body["properties"]["endpointComputeType"], "Kubernetes");
    assert_eq!(
        body["properties"]["containerResourceRequirements"],
        json!({"containerResourceRequests": {"cpu": "0.1", "memory": "0.1Gi"}, "containerResourceLimits": {"gpu": "1"}})
    );
    assert_eq!(body["properties"]["scaleSettings"]["pollingInterval"], "PT10S");
    let shown = Deployment::show(&json!({"id": "/a/b/ep/deployments/green", "properties": body["properties"]}));
    assert_eq!(shown["scale_settings"]["target_utilization_percentage"], 70);
    assert_eq!(shown["resources"]["requests"]["cpu"], "0.1");
}

#[test]
fn bad_input() {
    let dir = files();
    std::fs::write(dir.path().join("file"), "").unwrap();
    for (text, said) in [
        (
            "name: blue\ninstance_cuont: 2\n",
            "blue.yml:2:1: 'instance_cuont' is not a field of the deployment; did you mean 'instance_count'?",
        ),
        (
            "instance_count: two\n",
            "blue.yml:1:17: 'instance_count' in the deployment must be a whole number from 0 up, not 'two'.",
        ),
        ("model: azureml:m\n", "blue.yml:1:8: 'azureml:m' is no reference to a model: it has no version"),
        ("model: ../model\n", "To use local files, write a mapping instead of a text."),
        ("model: {path: ../nowhere}\n", "blue.yml:1:15: 'path' names '../nowhere'"),
        ("model: [a]\n", "the deployment → model must be a mapping, not a list"),
        (
            "environment: {conda_fiel: x, image: i}\n",
            "'conda_fiel' is not a field of the deployment → environment; did you mean 'conda_file'?",
        ),
        (
            "code_configuration:\n  code: ../nowhere\n  scoring_script: score.py\n",
            "blue.yml:2:9: 'code' names '../nowhere'",
        ),
        ("code_configuration: {code: ../file, scoring_script: score.py}\n", "'code' must name a directory"),
        ("code_configuration: {code: ../code}\n", "needs the field 'scoring_script'"),
        ("code_configuration: {code: 'https://x/y', scoring_script: s.py}\n", "not supported by casemate yet"),
        ("request_settings: {request_timeout: 5000}\n", "did you mean 'request_timeout_ms'?"),
        ("liveness_probe: {period: -1}\n", "must be a whole number from 0 up"),
        ("scale_settings: {type: auto}\n", "must be one of default, target_utilization"),
        ("scale_settings: {type: default, min_instances: 1}\n", "'min_instances' is not a field"),
        ("data_collector: {collections: {model_inputs: {}}}\n", "needs the field 'enabled'"),
        ("data_collector: {sampling_rate: 2}\n", "must be from 0 to 1"),
        ("egress_public_network_access: maybe\n", "must be one of enabled, disabled"),
        ("private_network_connection: true\n", "not supported by casemate yet"),
        ("- a\n", "the deployment must be a mapping, not a list"),
    ] {
        let fault = Deployment::read(&document(&dir, text)).expect_err(text);
        assert!(fault.message.contains(said), "{} lacks {said}", fault.message);
    }
}

#[test]
fn the_script_must_exist() {
    let dir = files();
    let text = "code_configuration:\n  code: ../code\n  scoring_script: scoer.py\n";
    let fault = Deployment::read(&document(&dir, text)).unwrap().check_script().unwrap_err();
    assert!(fault.message.starts_with("3:19: there is no file 'scoer.py'"), "{}", fault.message);
}
