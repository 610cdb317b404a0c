//! How long a write takes until it is on the disk, and a read. Times are medians of single calls.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::time::{Duration, Instant};

use casemate_model::{Clock, ResourceId};
use casemate_store::{Author, Condition, Filter, Store};
use serde_json::json;

const CALLS: usize = 500;
/// Resources in the store while it is measured.
const ROWS: usize = 2_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path(), Clock::system()).await?;
    let author = Author { name: "bench".to_owned(), kind: "Application".to_owned() };
    let group = ResourceId::parse("/subscriptions/s/resourceGroups/g")?;
    let mut tx = store.begin().await?;
    for number in 0..ROWS {
        let id = ResourceId::parse(&format!("{group}/providers/Bench.Rows/rows/row{number}"))?;
        tx.resource_put(&id, body(), &Condition::None, &author).await?;
    }
    tx.commit().await?;
    let id = ResourceId::parse(&format!("{group}/providers/Bench.Rows/rows/row7"))?;
    let mut times = Vec::new();
    for _ in 0..CALLS {
        let start = Instant::now();
        let mut tx = store.begin().await?;
        tx.resource_put(&id, body(), &Condition::None, &author).await?;
        tx.commit().await?;
        times.push(start.elapsed());
    }
    report("put and commit", times);
    let mut times = Vec::new();
    for _ in 0..CALLS {
        let start = Instant::now();
        store.resource_get(&id).await?.ok_or("the row is there")?;
        times.push(start.elapsed());
    }
    report("get", times);
    let filter = Filter::of_type("Bench.Rows/rows").within(&group);
    let mut times = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        let found = store.resource_list(&filter).await?;
        times.push(start.elapsed());
        if found.len() != ROWS {
            return Err("a row is missing".into());
        }
    }
    report("list 2,000", times);
    store.close().await;
    Ok(())
}

fn body() -> serde_json::Value {
    json!({ "location": "local", "tags": {}, "properties": { "description": "x".repeat(1_000), "traffic": { "blue": 100 } } })
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e6;
    println!("{what:<16} median {:>9.1} us   p99 {:>9.1} us", at(50), at(99));
}
