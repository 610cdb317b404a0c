//! What must hold for whatever arrives over the helper's socket, and for whatever is asked of a sandbox. The target in
//! `fuzz/` runs these on raw bytes, the tests below on generated ones; each panics when a promise is broken.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};

use crate::plan::{Plan, Report, read_frame, write_frame};
use crate::spec::SandboxSpec;

/// Bytes are read as one frame or refused, without waiting for more than was announced; what was read is written in a
/// form that reads the same.
pub fn frame(bytes: &[u8]) {
    if let Some(plan) = stable::<Plan>(bytes) {
        spec(plan);
    }
    stable::<Report>(bytes);
}

fn stable<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let value: T = received(bytes)?;
    let (near, far) = UnixStream::pair().expect("a pair of sockets");
    near.set_nonblocking(true).expect("a socket has modes");
    // What does not fit the socket's buffer was checked up to there.
    if write_frame(&near, &value).is_err() {
        return Some(value);
    }
    drop(near);
    let again: T = read_frame(&far).expect("a frame of ours is readable").expect("a frame of ours is there");
    let texts = [serde_json::to_string(&value), serde_json::to_string(&again)].map(|text| text.expect("plain data"));
    assert_eq!(texts[0], texts[1]);
    Some(value)
}

fn received<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (mut near, far) = UnixStream::pair().expect("a pair of sockets");
    near.set_nonblocking(true).expect("a socket has modes");
    let whole = near.write(bytes).is_ok_and(|written| written == bytes.len());
    drop(near);
    if whole { read_frame(&far).ok().flatten() } else { None }
}

/// A specification that is accepted has plain absolute paths, no mount over what the sandbox makes itself, and no zero
/// byte.
fn spec(plan: Plan) {
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").expect("/dev/null"));
    let spec = SandboxSpec {
        name: plan.name,
        program: plan.program.unwrap_or_default(),
        args: plan.args,
        env: plan.env,
        cwd: plan.cwd,
        mounts: plan.mounts,
        network: plan.network,
        installer_config: plan.installer_config,
        limits: plan.limits,
        stdout: null(),
        stderr: null(),
    };
    if spec.check().is_err() {
        return;
    }
    let plain = |path: &Path| {
        let text = path.to_str().unwrap_or_default();
        text.starts_with('/') && !text.contains('\0') && !format!("{text}/").contains("/../")
    };
    assert!(plain(&spec.program) && plain(&spec.cwd));
    for mount in &spec.mounts {
        let target = &mount.target;
        assert!(plain(target) && target.components().count() > 1, "{}", target.display());
        assert!(["/proc", "/sys", "/dev"].iter().all(|own| !target.starts_with(own)), "{}", target.display());
    }
    assert!(spec.args.iter().all(|text| !text.contains('\0')));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn framed(text: &str) -> Vec<u8> {
        [&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat()
    }

    fn plan(program: &str, target: &str) -> String {
        json!({"name": "n", "program": program, "args": ["a"], "env": [["A", "b"]], "cwd": "/", "network": "Isolated", "installer_config": true,
            "mounts": [{"source": "/srv", "target": target, "access": "ReadOnly"}],
            "limits": {"memory_bytes": 1_u64 << 30, "milli_cpus": 1000, "pids": 10, "scratch_bytes": 1},
            "scratch": "/tmp", "home": null, "ids": {"payload": 1, "init": null}, "unmapped_memory_refused": false})
        .to_string()
    }

    #[test]
    fn frames_of_all_sorts() {
        for target in ["/srv", "/", "//", "/proc", "/dev/", "/sys/../srv", "/a/./b", "/a\0", "x", ""] {
            frame(&framed(&plan("/bin/true", target)));
            frame(&framed(&plan(target, "/srv")));
        }
        frame(&framed(r#"{"Created":{"pid":7}}"#));
        frame(&framed(r#"{"Exited":{"code":null,"signal":9}}"#));
        frame(&framed(r#""Started""#));
        for bytes in [&b""[..], b"\0", b"\0\0\0\0", b"\xff\xff\xff\xff{}", b"\x05\0\0\0{}"] {
            frame(bytes);
        }
    }

    #[test]
    fn every_byte_of_a_frame_matters_to_nobody_else() {
        let good = framed(&plan("/bin/true", "/srv"));
        for at in 0..good.len() {
            for byte in [0, b'"', b'/', b'9', 0xff] {
                let mut spoilt = good.clone();
                spoilt[at] = byte;
                frame(&spoilt);
            }
        }
    }
}
