//! Bad models: each scoring script that can't work fails its deployment with the right code and the script's own words,
//! and the platform serves on.

use anyhow::Result;
use casemate_testkit::{
    Platform,
    sample::{SUM, Sample},
};
use serde_json::json;

struct Bad {
    name: &'static str,
    score: &'static str,
    code: &'static str,
    words: &'static str,
}

const BAD: [Bad; 5] = [
    Bad {
        name: "import",
        score: "import not_there\ndef init(): pass\ndef run(d): return 1\n",
        code: "UserScriptImportError",
        words: "not_there",
    },
    Bad {
        name: "raises",
        score: "def init(): raise ValueError('no luck today')\ndef run(d): return 1\n",
        code: "UserScriptInitFailed",
        words: "no luck today",
    },
    Bad { name: "norun", score: "def init(): pass\n", code: "UserScriptFunctionNotFound", words: "run" },
    Bad {
        name: "exits",
        score: "import os\ndef init(): os._exit(7)\ndef run(d): return 1\n",
        code: "UserScriptInitFailed",
        words: "7",
    },
    Bad { name: "syntax", score: "def init(:\n", code: "UserScriptImportError", words: "SyntaxError" },
];

#[tokio::test]
async fn scripts_that_cannot_work_fail_with_their_own_words() -> Result<()> {
    let platform = Platform::start()?;
    platform.workspace()?;
    let dir = tempfile::tempdir()?;
    let good = Sample::new(dir.path(), "good", SUM)?;
    platform.casemate(&format!("ml online-endpoint create -f {}", good.path("endpoint.yml").display()))?;
    platform.casemate(&format!("ml online-deployment create -f {} --all-traffic", good.path("blue.yml").display()))?;
    for bad in &BAD {
        let sample = Sample::new(dir.path(), bad.name, bad.score)?;
        let yaml = sample.deployment(bad.name, "")?;
        let output = platform.command(["ml", "online-deployment", "create", "-f", &yaml.to_string_lossy()]).output()?;
        let stderr = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(1), "{}: {stderr}", bad.name);
        assert!(stderr.contains(bad.code) && stderr.contains(bad.words), "{}: {stderr}", bad.name);
        let state = platform.casemate(&format!(
            "ml online-deployment show -n {} -e sample --query provisioning_state -o tsv",
            bad.name
        ))?;
        assert_eq!(state.trim(), "Failed", "{}", bad.name);
        platform.casemate(&format!("ml online-deployment delete -n {} -e sample --yes", bad.name))?;
    }
    let target = platform.scoring("sample")?;
    let (status, body) = target.score(&target.client()?, &json!({"data": [4, 5]})).await?;
    assert_eq!((status, &body["sum"]), (200, &json!(9)));
    Ok(())
}

#[tokio::test]
async fn scripts_that_fail_at_run_time_answer_424_and_the_next_call_works() -> Result<()> {
    let platform = Platform::start()?;
    platform.workspace()?;
    let dir = tempfile::tempdir()?;
    let score = "import json, os, time\n\
        def init(): pass\n\
        def run(data):\n    \
            what = json.loads(data).get('do')\n    \
            if what == 'raise': raise ValueError('as asked')\n    \
            if what == 'exit': os._exit(3)\n    \
            if what == 'hang': time.sleep(60)\n    \
            if what == 'binary': print('\\x00\\x1b[31m', flush=True)\n    \
            return {'did': what}\n";
    let sample = Sample::new(dir.path(), "moody", score)?;
    let yaml =
        sample.deployment("blue", "request_settings:\n  request_timeout_ms: 2000\n  max_queue_wait_ms: 2000\n")?;
    platform.casemate(&format!("ml online-endpoint create -f {}", sample.path("endpoint.yml").display()))?;
    platform.casemate(&format!("ml online-deployment create -f {} --all-traffic", yaml.display()))?;
    let target = platform.scoring("sample")?;
    let client = target.client()?;
    for (what, status) in [("nothing", 200), ("raise", 424), ("binary", 200), ("exit", 424), ("hang", 408)] {
        let (seen, body) = target.score(&client, &json!({"do": what})).await?;
        assert_eq!(seen, status, "{what}: {body}");
        // A worker that exited or hangs is replaced; the deployment answers again within a bounded time.
        let mut again = 0;
        for _ in 0..60 {
            (again, _) = target.score(&client, &json!({"do": "nothing"})).await?;
            if again == 200 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        assert_eq!(again, 200, "after {what}: {}", platform.log());
    }
    Ok(())
}

#[test]
fn wrong_files_and_arguments_are_named() -> Result<()> {
    let platform = Platform::start()?;
    platform.workspace()?;
    let dir = tempfile::tempdir()?;
    let write = |name: &str, text: &str| -> Result<String> {
        let path = dir.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    };
    platform.casemate("ml online-endpoint create -n sample")?;
    let unknown = write("unknown.yml", "name: blue\nendpoint_name: sample\ninstanc_count: 2\n")?;
    let missing = write("missing.yml", "name: blue\nendpoint_name: sample\nmodel:\n  path: nowhere\n")?;
    let wrong_type = write("type.yml", "name: blue\nendpoint_name: sample\ninstance_count: many\n")?;
    let broken = write("broken.yml", "name: [\n")?;
    let cases: [(&[&str], i32, &[&str]); 9] = [
        (
            &["ml", "online-deployment", "create", "-f", &unknown],
            1,
            &["instanc_count", "instance_count", "unknown.yml:3:1"],
        ),
        (&["ml", "online-deployment", "create", "-f", &missing], 1, &["nowhere"]),
        (&["ml", "online-deployment", "create", "-f", &wrong_type], 1, &["instance_count", "many", "type.yml:3:17"]),
        (&["ml", "online-deployment", "create", "-f", &broken], 1, &["broken.yml"]),
        (&["ml", "online-endpoint", "create", "-n", "ab"], 1, &["at least 3"]),
        (&["ml", "online-endpoint", "show", "-n", "absent"], 3, &["absent"]),
        (&["ml", "online-endpoint", "update", "-n", "sample", "--traffic", "blue=100"], 1, &["blue"]),
        (&["ml", "online-endpoint", "shwo"], 2, &["show"]),
        (&["ml", "workspace", "show", "-n", "other"], 3, &["other"]),
    ];
    for (arguments, code, words) in cases {
        let output = platform.command(arguments).output()?;
        let stderr = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{arguments:?} should say '{word}': {stderr}");
        }
        assert!(output.stdout.is_empty(), "{arguments:?}: stdout is for data");
    }
    Ok(())
}
