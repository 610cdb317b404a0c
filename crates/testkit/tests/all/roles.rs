//! Who may do what: roles at each scope from outside, and everything that is no valid token.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use casemate_testkit::{
    Platform,
    rest::{Answer, Identity, Rest},
    sample::{SUM, Sample},
};
use reqwest::Method;
use serde_json::{Value, json};

const ML: &str = "https://ml.azure.com";
/// How long the router may take to hear of a role that was given or taken away.
const SOON: Duration = Duration::from_secs(5);

/// A workspace with the deployed sample behind an endpoint with identity-provider tokens.
struct Stage {
    platform: Platform,
    rest: Rest,
    workspace: String,
    endpoint: String,
    scoring: String,
    _dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Result<Self> {
        let platform = Platform::start()?;
        platform.workspace()?;
        let dir = tempfile::tempdir()?;
        let sample = Sample::new(dir.path(), "sum", SUM)?;
        platform.casemate("ml online-endpoint create -n sample --auth-mode aad_token")?;
        platform
            .casemate(&format!("ml online-deployment create -f {} --all-traffic", sample.path("blue.yml").display()))?;
        let show =
            |query: &str| platform.casemate(&format!("ml online-endpoint show -n sample --query {query} -o tsv"));
        let (endpoint, scoring) = (show("id")?.trim().to_owned(), show("scoring_uri")?.trim().to_owned());
        let workspace = endpoint.split("/onlineEndpoints/").next().unwrap_or_default().to_owned();
        let rest = Rest::new(&platform)?;
        Ok(Self { platform, rest, workspace, endpoint, scoring, _dir: dir })
    }

    fn principal(&self, name: &str) -> Result<Identity> {
        let made: Value = serde_json::from_str(&self.platform.casemate(&format!("sp create -n {name}"))?)?;
        let text = |key: &str| made[key].as_str().map(str::to_owned).with_context(|| format!("{key} in {made}"));
        Ok(Identity { app_id: text("appId")?, object_id: text("objectId")?, secret: text("password")? })
    }

    /// Gives a role; the assignment's id.
    fn give(&self, to: &Identity, role: &str, scope: &str) -> Result<String> {
        let words = ["role", "assignment", "create", "--assignee", &to.app_id, "--role", role, "--scope", scope];
        let output = self.platform.command(words).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let made: Value = serde_json::from_slice(&output.stdout)?;
        Ok(made["id"].as_str().context("an assignment has an id")?.to_owned())
    }

    async fn score(&self, token: &str) -> Result<Answer> {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.rest.send(Method::POST, &self.scoring, &headers, r#"{"data": [1, 2]}"#).await
    }

    /// Scores until the status is the wanted one.
    async fn scores_soon(&self, token: &str, wanted: u16) -> Result<Answer> {
        let began = Instant::now();
        loop {
            let answer = self.score(token).await?;
            if answer.status == wanted {
                return Ok(answer);
            }
            ensure!(began.elapsed() < SOON, "{} instead of {wanted}: {}", answer.status, answer.body);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The id that a short form means.
    fn placed(&self, short: &str) -> String {
        let bases = [('.', &self.endpoint), ('w', &self.workspace), ('s', &self.rest.subscription)];
        let found = bases.iter().find_map(|(mark, base)| Some(format!("{base}{}", short.strip_prefix(*mark)?)));
        found.unwrap_or_default()
    }

    /// Checks calls in the form `METHOD PATH`, with the paths below the endpoint (`.`), workspace (`w`) or subscription
    /// (`s`); an action means that the call must be refused, naming it.
    async fn may(&self, who: &str, token: &str, calls: &[(&str, &str, Option<&str>)]) -> Result<()> {
        for (line, scope, refused) in calls {
            let (method, path) = line.split_once(' ').context("METHOD PATH")?;
            let path = self.placed(path);
            let path = path.trim_end_matches('/');
            let body = match method {
                "PUT" => Some(json!({"location": "local", "properties": {"authMode": "AADToken"}})),
                "PATCH" => Some(json!({"tags": {"by": who}})),
                "POST" => Some(json!({"keyType": "Primary", "tail": 5})),
                _ => None,
            };
            let answer = self.rest.call(token, method.parse()?, path, body.as_ref()).await?;
            let Some(action) = refused else {
                assert!(answer.status < 300, "{who}: {line}: {} {}", answer.status, answer.body);
                continue;
            };
            assert_eq!(answer.status, 403, "{who}: {line}: {}", answer.body);
            let error = answer.error();
            let scope = self.placed(scope);
            let (lower, action) = (error.to_lowercase(), action.to_lowercase());
            assert!(lower.starts_with("authorizationfailed "), "{who}: {line}: {error}");
            assert!(lower.contains(&action), "{who}: {line} should name {action}: {error}");
            assert!(lower.contains(&scope.to_lowercase()), "{who}: {line} should name {scope}: {error}");
        }
        Ok(())
    }
}

const ENDPOINTS: &str = "Microsoft.MachineLearningServices/workspaces/onlineEndpoints";

// The commands block their thread; that is as good as waiting.
#[tokio::test]
async fn each_role_may_what_it_says_and_no_more() -> Result<()> {
    let stage = Stage::new()?;
    let action = |tail: &str| format!("{ENDPOINTS}/{tail}");
    let (write, delete, list_keys, token, regenerate) = (
        action("write"),
        action("delete"),
        action("listKeys/action"),
        action("token/action"),
        action("regenerateKeys/action"),
    );

    let reader = stage.principal("reader")?;
    stage.give(&reader, "Reader", &stage.workspace)?;
    let sign = stage.rest.token(&reader, &stage.rest.url).await?;
    let reads = [
        ("GET w/", "", None),
        ("GET w/onlineEndpoints", "", None),
        ("GET ./", "", None),
        ("GET ./deployments", "", None),
        ("GET ./deployments/blue", "", None),
        ("GET w/models", "", None),
    ];
    stage.may("reader", &sign, &reads).await?;
    let deployment_write = action("deployments/write");
    let deployment_logs = action("deployments/getLogs/action");
    let refused = [
        ("PUT w/onlineEndpoints/other", "w/onlineEndpoints/other", Some(write.as_str())),
        ("PATCH ./", ".", Some(write.as_str())),
        ("DELETE ./", ".", Some(delete.as_str())),
        ("POST ./listKeys", ".", Some(list_keys.as_str())),
        ("POST ./token", ".", Some(token.as_str())),
        ("POST ./regenerateKeys", ".", Some(regenerate.as_str())),
        ("PATCH ./deployments/blue", "./deployments/blue", Some(deployment_write.as_str())),
        ("POST ./deployments/blue/getLogs", "./deployments/blue", Some(deployment_logs.as_str())),
        ("PATCH w/", "w", Some("Microsoft.MachineLearningServices/workspaces/write")),
        ("DELETE w/", "w", Some("Microsoft.MachineLearningServices/workspaces/delete")),
        ("PUT s/resourcegroups/mine", "s", Some("Microsoft.Resources/subscriptions/resourceGroups/write")),
        (
            "POST w/datastores/workspaceblobstore/listSecrets",
            "w",
            Some("Microsoft.MachineLearningServices/workspaces/datastores/listSecrets/action"),
        ),
    ];
    stage.may("reader", &sign, &refused).await?;
    assert_eq!(stage.score(&stage.rest.token(&reader, ML).await?).await?.status, 403, "reading is not scoring");

    let contributor = stage.principal("contributor")?;
    stage.give(&contributor, "Contributor", &stage.workspace)?;
    let sign = stage.rest.token(&contributor, &stage.rest.url).await?;
    let assignment = "Microsoft.Authorization/roleAssignments/write";
    let calls = [
        ("PUT w/onlineEndpoints/other", "", None),
        ("PATCH ./", "", None),
        ("POST ./deployments/blue/getLogs", "", None),
        ("DELETE w/onlineEndpoints/other", "", None),
        (
            "PUT ./providers/Microsoft.Authorization/roleAssignments/6f74ecf9-101b-4549-b529-068821bbbf90",
            ".",
            Some(assignment),
        ),
        ("PUT s/resourcegroups/mine", "s", Some("Microsoft.Resources/subscriptions/resourceGroups/write")),
    ];
    stage.may("contributor", &sign, &calls).await?;
    Ok(())
}

#[tokio::test]
async fn a_scoring_role_scores_and_nothing_else_until_it_is_taken_away() -> Result<()> {
    let stage = Stage::new()?;
    let scorer = stage.principal("scorer")?;
    let scoring = stage.rest.token(&scorer, ML).await?;
    let refused = stage.score(&scoring).await?;
    assert_eq!(refused.status, 403, "{}", refused.body);
    let error = refused.error();
    assert!(error.contains("onlineEndpoints/score/action") && error.contains(&stage.endpoint), "{error}");

    let assignment = stage.give(&scorer, "AzureML Endpoint Scorer", &stage.endpoint)?;
    assert_eq!(stage.scores_soon(&scoring, 200).await?.body["sum"], json!(3));
    let sign = stage.rest.token(&scorer, &stage.rest.url).await?;
    let (list_keys, write) = (format!("{ENDPOINTS}/listKeys/action"), format!("{ENDPOINTS}/write"));
    let calls = [
        ("GET ./", "", None),
        ("POST ./listKeys", ".", Some(list_keys.as_str())),
        ("PATCH ./", ".", Some(write.as_str())),
        (
            "GET ./deployments",
            ".",
            Some("Microsoft.MachineLearningServices/workspaces/onlineEndpoints/deployments/read"),
        ),
        ("GET w/", "w", Some("Microsoft.MachineLearningServices/workspaces/read")),
        ("GET w/models", "w", Some("Microsoft.MachineLearningServices/workspaces/models/read")),
    ];
    stage.may("scorer", &sign, &calls).await?;
    let listed = stage.rest.call(&sign, Method::GET, "/subscriptions", None).await?;
    assert_eq!(listed.status, 200, "{}", listed.body);

    // A token for one door opens no other.
    let owner = stage.rest.owner.clone();
    let (management, data) = (stage.rest.token(&owner, &stage.rest.url).await?, stage.rest.token(&owner, ML).await?);
    assert_eq!(stage.score(&management).await?.status, 401);
    assert_eq!(stage.score(&data).await?.status, 200, "the owner may score");
    let answer = stage.rest.call(&data, Method::GET, &stage.workspace, None).await?;
    assert_eq!(answer.status, 401, "{}", answer.body);

    stage.platform.casemate(&format!("role assignment delete --ids {assignment} --yes"))?;
    let gone = stage.rest.call(&sign, Method::GET, &stage.endpoint, None).await?;
    assert_eq!(gone.status, 403, "at once: {}", gone.body);
    stage.scores_soon(&scoring, 403).await?;

    // A principal that is deleted takes its roles along, and its tokens are worth nothing.
    stage.give(&scorer, "Owner", &stage.endpoint)?;
    stage.scores_soon(&scoring, 200).await?;
    stage.platform.casemate(&format!("sp delete --id {}", scorer.app_id))?;
    let gone = stage.rest.call(&sign, Method::GET, &stage.endpoint, None).await?;
    assert_eq!(gone.status, 401, "{}", gone.body);
    stage.scores_soon(&scoring, 403).await?;
    assert!(stage.rest.token(&scorer, ML).await.is_err(), "a deleted principal can't sign in");
    Ok(())
}

#[tokio::test]
async fn what_is_no_valid_token_is_refused_with_a_challenge() -> Result<()> {
    let platform = Platform::start()?;
    let rest = Rest::new(&platform)?;
    let good = rest.token(&rest.owner, &rest.url).await?;
    let other = Platform::start()?;
    let strange = Rest::new(&other)?;
    let foreign = strange.token(&strange.owner, &strange.url).await?;
    let parts: Vec<&str> = good.split('.').collect();
    let flipped = |text: &str| {
        let middle = text.len() / 2;
        let swap = if text.as_bytes()[middle] == b'A' { "B" } else { "A" };
        format!("{}{swap}{}", &text[..middle], &text[middle + 1..])
    };
    // {"alg":"none","typ":"JWT"}
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.", parts[1]);
    let cases = [
        ("none", String::new()),
        ("of another platform", foreign),
        ("with another payload", format!("{}.{}.{}", parts[0], flipped(parts[1]), parts[2])),
        ("with another signature", format!("{}.{}.{}", parts[0], parts[1], flipped(parts[2]))),
        ("unsigned", unsigned),
        ("without a signature", format!("{}.{}", parts[0], parts[1])),
        ("for another audience", rest.token(&rest.owner, ML).await?),
        ("no token at all", "nonsense".to_owned()),
        ("much too long", format!("{}.{}.{}", parts[0], "A".repeat(20_000), parts[2])),
    ];
    for (name, token) in &cases {
        let answer = rest.call(token, Method::GET, &rest.subscription, None).await?;
        assert_eq!(answer.status, 401, "{name}: {}", answer.body);
        let challenge = answer.header("www-authenticate");
        assert!(challenge.starts_with("Bearer authorization_uri=\"https://"), "{name}: {challenge}");
        assert_eq!(challenge.contains("invalid_token"), !token.is_empty(), "{name}: {challenge}");

        assert!(
            answer.error().starts_with("AuthenticationFailed")
                || answer.error().starts_with("InvalidAuthenticationToken")
                || answer.error().starts_with("ExpiredAuthenticationToken"),
            "{name}: {}",
            answer.body
        );
        assert!(!answer.header("x-ms-request-id").is_empty(), "{name}");
        assert!(!answer.body.to_string().contains(parts[2]), "{name}: an answer repeats no token");
    }
    let address = format!("{}{}", rest.url, rest.subscription);
    let basic = rest.send(Method::GET, &address, &[("authorization", "Basic eDp5")], "").await?;
    assert_eq!((basic.status, basic.header("www-authenticate").is_empty()), (401, false), "{}", basic.body);
    let fine = rest.call(&good, Method::GET, &rest.subscription, None).await?;
    assert_eq!(fine.status, 200, "{}", fine.body);
    Ok(())
}
