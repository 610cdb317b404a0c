//! The same platform for an ordinary user: user namespaces instead of root.

use anyhow::Result;
use casemate_testkit::{
    Platform,
    sample::{SUM, Sample},
};
use serde_json::json;

#[tokio::test]
async fn an_ordinary_user_deploys_and_scores() -> Result<()> {
    let platform = Platform::start_unprivileged()?;
    platform.workspace()?;
    let dir = tempfile::tempdir()?;
    let sample = Sample::new(dir.path(), "sum", SUM)?;
    platform.casemate(&format!("ml online-endpoint create -f {}", sample.path("endpoint.yml").display()))?;
    platform
        .casemate(&format!("ml online-deployment create -f {} --all-traffic", sample.path("blue.yml").display()))?;
    let target = platform.scoring("sample")?;
    let (status, body) = target.score(&target.client()?, &json!({"data": [1, 2]})).await?;
    assert_eq!((status, &body["sum"]), (200, &json!(3)));
    Ok(())
}
