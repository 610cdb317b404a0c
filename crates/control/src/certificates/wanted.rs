//! Who owns certificates, and what each wishes, read from the rows.

use casemate_model::{
    Fault, Resource, ResourceId,
    endpoint::ENDPOINT_TYPE,
    tls::{CERTIFICATE_FIELD, TlsWish},
};

use super::Wanted;
use crate::{ControlConfig, routes};

/// The type of computes.
pub const COMPUTE_TYPE: &str = "Microsoft.MachineLearningServices/workspaces/computes";

/// The owners among `rows`, and the platform itself. An owner whose wish can't be read is left out and said so in the log:
/// one bad row must not stop the others.
pub fn wanted<'a>(
    config: &ControlConfig,
    platform: (&'a ResourceId, Option<&'a Resource>),
    rows: impl IntoIterator<Item = &'a Resource>,
) -> Vec<Wanted<'a>> {
    let (owner, row) = platform;
    let wish = TlsWish::platform(config.platform_names.clone());
    let mut wanted = vec![Wanted { owner, wish, generation: 0, row }];
    for row in rows.into_iter().filter(|row| !row.deleting) {
        match wish_of(config, row) {
            Ok(Some(wish)) => {
                wanted.push(Wanted { owner: &row.id, wish, generation: row.generation, row: Some(row) });
            }
            Ok(None) => {}
            Err(fault) => tracing::error!(owner = %row.id, %fault, "left out of the certificates"),
        }
    }
    wanted
}

/// What an owner wishes; none when it has nothing to do with TLS. An endpoint that says nothing has its own name.
pub fn wish_of(config: &ControlConfig, row: &Resource) -> Result<Option<TlsWish>, Fault> {
    Ok(match TlsWish::of(row)? {
        None if row.id.is_type(ENDPOINT_TYPE) => Some(TlsWish::platform(vec![routes::host_name(config, row.name())])),
        // One that had TLS, and has it no more, is told so.
        None if row.observed.contains_key(CERTIFICATE_FIELD) => Some(TlsWish::off()),
        wish => wish,
    })
}
