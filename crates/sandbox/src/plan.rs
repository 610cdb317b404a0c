//! What travels between the platform, the helper and the sandbox's first process over their one socket: a plan down,
//! then single-byte commands; reports up. Frames are JSON behind a 32-bit length, and bounded.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::StepFailure;
use crate::spec::{Limits, Mount, Network};

/// The payload's user and group id inside every sandbox.
pub const PAYLOAD_ID: u32 = 1000;

/// Platform to first process: the platform holds what it needs, start the payload.
pub const COMMAND_GO: u8 = b'G';
/// Platform to first process: send SIGTERM to the payload.
pub const COMMAND_TERMINATE: u8 = b'T';

/// Larger frames are refused on both sides.
const MAX_FRAME: usize = 4 << 20;

/// Everything the helper needs to know. The helper trusts it: it comes from the platform that started it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    pub name: String,
    /// `None` is the probe: do everything, then end with code 0 in place of executing a program.
    pub program: Option<PathBuf>,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: PathBuf,
    pub mounts: Vec<Mount>,
    pub network: Network,
    pub installer_config: bool,
    pub limits: Limits,
    /// The directory over which the new root is mounted (privately).
    pub scratch: PathBuf,
    /// The home directory of the platform's user, for the package installer's configuration.
    pub home: Option<PathBuf>,
    pub ids: Ids,
    /// No control group bounds this sandbox: memory that no process maps must be refused instead.
    pub unmapped_memory_refused: bool,
}

/// The identities on the platform's side that the sandbox's two users map to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// User and group of the payload (1000 inside).
    pub payload: u32,
    /// User and group of the first process (0 inside); `None` when a single id is all there is to map, and the first
    /// process shares the payload's.
    pub init: Option<u32>,
}

/// From the helper and the first process to the platform.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The first process exists under this id.
    Created { pid: i32 },
    /// The payload executes.
    Started,
    /// The payload ended.
    Exited { code: Option<i32>, signal: Option<i32> },
    /// A step failed; nothing runs.
    Failed(StepFailure),
}

/// Sends one frame.
pub fn write_frame<T: Serialize>(mut stream: &UnixStream, value: &T) -> io::Result<()> {
    let body = serde_json::to_vec(value)?;
    if body.len() > MAX_FRAME {
        return Err(io::Error::other(format!("{} bytes are more than {MAX_FRAME}", body.len())));
    }
    let mut frame = Vec::with_capacity(body.len() + 4);
    frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    frame.extend_from_slice(&body);
    stream.write_all(&frame)
}

/// Receives one frame; `None` when the other side has gone.
pub fn read_frame<T: DeserializeOwned>(mut stream: &UnixStream) -> io::Result<Option<T>> {
    let mut length = [0_u8; 4];
    match stream.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::other(format!("a frame of {length} bytes")));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_whole_and_the_end_is_told_apart() {
        let (left, right) = UnixStream::pair().unwrap();
        write_frame(&left, &Report::Created { pid: 7 }).unwrap();
        drop(left);
        assert!(matches!(read_frame(&right).unwrap(), Some(Report::Created { pid: 7 })));
        assert!(read_frame::<Report>(&right).unwrap().is_none());
    }

    #[test]
    fn an_oversized_or_cut_frame_is_an_error() {
        for bytes in [&[0xff, 0xff, 0xff, 0x7f][..], &[10, 0, 0, 0, b'{'][..]] {
            let (mut left, right) = UnixStream::pair().unwrap();
            left.write_all(bytes).unwrap();
            drop(left);
            assert!(read_frame::<Report>(&right).is_err());
        }
    }
}
