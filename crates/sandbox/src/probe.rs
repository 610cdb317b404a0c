//! Whether this machine has what a sandbox is made of. What is missing is named together with the way to get it;
//! there is no weaker sandbox.

use std::io;

use crate::error::{LANDLOCK, SANDBOX_CHILDREN, SECCOMP, SandboxError};
use crate::{landlock, sys};

/// What the kernel said when asked. [`KernelFeatures::detect`] asks; tests say what they like.
#[derive(Debug)]
pub struct KernelFeatures {
    /// The Landlock ABI version, or why there is none.
    pub landlock_abi: io::Result<u32>,
    /// Whether seccomp filters can be used.
    pub seccomp: io::Result<()>,
    /// Whether the kernel lists a process's children, by which the sandbox's processes are found.
    pub process_children: io::Result<()>,
}

impl KernelFeatures {
    /// Asks the kernel.
    pub fn detect() -> Self {
        Self {
            landlock_abi: sys::landlock_abi(),
            seccomp: sys::seccomp_available(),
            process_children: std::fs::metadata("/proc/thread-self/children").map(drop),
        }
    }

    /// Fails with the first missing feature.
    pub(crate) fn require(&self) -> Result<(), SandboxError> {
        match &self.landlock_abi {
            Ok(abi) if *abi >= landlock::REQUIRED_ABI => {}
            Ok(abi) => return missing(LANDLOCK, format!("the kernel speaks ABI {abi}")),
            Err(error) => return missing(LANDLOCK, error.to_string()),
        }
        if let Err(error) = &self.seccomp {
            return missing(SECCOMP, error.to_string());
        }
        if let Err(error) = &self.process_children {
            return missing(SANDBOX_CHILDREN, error.to_string());
        }
        Ok(())
    }
}

fn missing<T>((feature, fix): (&'static str, &'static str), evidence: String) -> Result<T, SandboxError> {
    Err(SandboxError::Missing { feature, evidence, fix })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> KernelFeatures {
        KernelFeatures { landlock_abi: Ok(4), seccomp: Ok(()), process_children: Ok(()) }
    }

    #[test]
    fn a_complete_kernel_passes() {
        complete().require().unwrap();
    }

    #[test]
    fn each_missing_feature_is_named() {
        let gone = || io::Error::from_raw_os_error(libc::ENOSYS);
        let table = [
            (KernelFeatures { landlock_abi: Err(gone()), ..complete() }, "Landlock"),
            (KernelFeatures { landlock_abi: Ok(1), ..complete() }, "ABI 1"),
            (KernelFeatures { seccomp: Err(gone()), ..complete() }, "seccomp"),
            (KernelFeatures { process_children: Err(gone()), ..complete() }, "children"),
        ];
        for (features, word) in table {
            let message = features.require().unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
