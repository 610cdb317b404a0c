//! The sizes an instance can have, by the original's names, and the limits each gives to one instance.

use crate::fault::Fault;

/// Limits of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceSize {
    /// CPU time in thousandths of a core.
    pub milli_cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

const GIB: u64 = 1 << 30;

/// Name, cores, memory in GiB (the published figures of the sizes that online endpoints accept).
const SIZES: &[(&str, u32, u64)] = &[
    ("Standard_DS1_v2", 1, 3),
    ("Standard_DS2_v2", 2, 7),
    ("Standard_DS3_v2", 4, 14),
    ("Standard_DS4_v2", 8, 28),
    ("Standard_DS5_v2", 16, 56),
    ("Standard_D2as_v4", 2, 8),
    ("Standard_D4as_v4", 4, 16),
    ("Standard_D2a_v4", 2, 8),
    ("Standard_D4a_v4", 4, 16),
    ("Standard_E2s_v3", 2, 16),
    ("Standard_E4s_v3", 4, 32),
    ("Standard_E8s_v3", 8, 64),
    ("Standard_E16s_v3", 16, 128),
    ("Standard_E32s_v3", 32, 256),
    ("Standard_F2s_v2", 2, 4),
    ("Standard_F4s_v2", 4, 8),
    ("Standard_F8s_v2", 8, 16),
    ("Standard_F16s_v2", 16, 32),
    ("Standard_F32s_v2", 32, 64),
    ("Standard_F48s_v2", 48, 96),
    ("Standard_F64s_v2", 64, 128),
    ("Standard_F72s_v2", 72, 144),
    ("Standard_FX4mds", 4, 84),
    ("Standard_FX12mds", 12, 252),
];

/// The size used when a deployment names none.
pub const DEFAULT_INSTANCE_TYPE: &str = "Standard_DS3_v2";

/// The limits of a named size (any case).
///
/// # Errors
/// `BadArgument` listing the known sizes.
pub fn instance_size(name: &str) -> Result<InstanceSize, Fault> {
    let known = SIZES.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name));
    let Some((_, cores, gib)) = known else {
        let names: Vec<&str> = SIZES.iter().map(|(name, ..)| *name).collect();
        return Err(Fault::invalid(
            "BadArgument",
            format!("The instance type '{name}' is not known. Choose one of: {}.", names.join(", ")),
        )
        .at("instanceType"));
    };
    Ok(InstanceSize { milli_cpus: cores * 1000, memory_bytes: gib * GIB })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_by_name_in_any_case() {
        assert_eq!(
            instance_size("standard_ds3_V2").unwrap(),
            InstanceSize { milli_cpus: 4000, memory_bytes: 14 * GIB }
        );
        assert!(instance_size("Standard_Nope").unwrap_err().message.contains("Standard_DS3_v2"));
    }
}
