//! The processes of a sandbox as `/proc` on the host shows them: who they are, and what they use. For hosts where no
//! control group counts.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use crate::sys;

/// More are not looked at: the process limit is far below.
const MAX_PROCESSES: usize = 65_536;

/// The first process and everything below it. Orphans become the first process's children, so none is missed but one
/// that is born at this moment.
pub fn members(first: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut pending = VecDeque::from([first]);
    while let Some(pid) = pending.pop_front() {
        if found.len() >= MAX_PROCESSES {
            break;
        }
        found.push(pid);
        let Ok(threads) = std::fs::read_dir(proc_path(pid, "task")) else { continue };
        for thread in threads.flatten() {
            let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            pending.extend(children.split_whitespace().filter_map(|word| word.parse::<i32>().ok()));
        }
    }
    found
}

/// Bytes of anonymous and shared memory in use. Memory that several processes share counts once for each.
pub fn resident(members: &[i32]) -> u64 {
    sum_fields(members, "status", &["RssAnon:", "RssShmem:"])
}

/// The same with shared memory divided among its users: exact, and slow.
pub fn proportional(members: &[i32]) -> u64 {
    sum_fields(members, "smaps_rollup", &["Pss_Anon:", "Pss_Shmem:"])
}

/// Processor time of the living and of the dead that they waited for.
pub fn cpu(members: &[i32]) -> Duration {
    let ticks: u64 = members.iter().filter_map(|pid| cpu_ticks(&read(*pid, "stat")?)).sum();
    Duration::from_micros(ticks.saturating_mul(1_000_000) / sys::clock_ticks())
}

fn sum_fields(members: &[i32], file: &str, fields: &[&str]) -> u64 {
    members.iter().filter_map(|pid| read(*pid, file)).map(|text| kilobytes(&text, fields)).sum::<u64>() * 1024
}

fn kilobytes(text: &str, fields: &[&str]) -> u64 {
    text.lines()
        .filter(|line| fields.iter().any(|field| line.starts_with(field)))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}

/// Fields 14 to 17 of `stat`, counted after the name, which may contain anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    Some(after_name.split_whitespace().skip(11).take(4).filter_map(|word| word.parse::<u64>().ok()).sum())
}

fn read(pid: i32, file: &str) -> Option<String> {
    std::fs::read_to_string(proc_path(pid, file)).ok()
}

fn proc_path(pid: i32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{file}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_past_a_hostile_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 0 0 0 0 0 10 20 30 40 20 0 1 0 5";
        assert_eq!(cpu_ticks(stat), Some(100));
        assert_eq!(cpu_ticks("no name"), None);
        assert_eq!(kilobytes("RssAnon:\t  12 kB\nRssFile:\t 5 kB\nRssShmem:\t 3 kB\n", &["RssAnon:", "RssShmem:"]), 15);
    }

    #[test]
    fn this_process_and_its_child_are_found() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let me = std::process::id() as i32;
        let found = members(me);
        assert!(found.contains(&me) && found.contains(&(child.id() as i32)), "{found:?}");
        assert!(resident(&found) > 0 && proportional(&found) > 0);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
