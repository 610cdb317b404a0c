//! What a token costs: the router checks one with each request that is signed in by token.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::time::{Duration, Instant};

use casemate_identity::{AUDIENCE_ML, Principal, TokenAuthority};
use casemate_model::Clock;
use uuid::Uuid;

const CALLS: usize = 2_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let key = TokenAuthority::generate_key();
    let authority = TokenAuthority::new(&key, Uuid::nil(), "https://127.0.0.1".to_owned(), Clock::system())?;
    let principal = Principal { object_id: Uuid::nil(), app_id: Uuid::nil(), display_name: "bench".to_owned() };
    let token = authority.issue(&principal, AUDIENCE_ML).token.expose_str()?.to_owned();
    let endpoint_token = authority.issue_for_endpoint("/endpoint").token.expose_str()?.to_owned();
    measure("issue", || drop(authority.issue(&principal, AUDIENCE_ML)));
    measure("check", || assert!(authority.check(&token, &[AUDIENCE_ML]).is_ok()));
    measure("check at endpoint", || assert!(authority.check_for_endpoint(&endpoint_token, "/endpoint").is_ok()));
    measure("refuse", || assert!(authority.check(&endpoint_token, &[AUDIENCE_ML]).is_err()));
    Ok(())
}

fn measure(what: &str, call: impl Fn()) {
    let time = |_| {
        let start = Instant::now();
        call();
        start.elapsed()
    };
    let mut times: Vec<Duration> = (0..CALLS).map(time).collect();
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e6;
    println!("{what:<18} median {:>7.1} us   p99 {:>7.1} us", at(50), at(99));
}
