//! `ca …`: the built-in certificate authority.

use serde_json::Value;

use super::{Found, tls};
use crate::{
    failure::Failure,
    grammar::{CaCommand, Globals},
    output::Output,
    session::Session,
};

const API: &str = "api-version=2025-01-01";

pub(super) async fn run(command: CaCommand, session: &Session, globals: &Globals) -> Found {
    match command {
        CaCommand::Show => {
            let mut authority = authority(session).await?;
            // Texts for files are for `export`.
            if let Some(shown) = authority.as_object_mut() {
                shown.remove("trustedRoots");
                shown.remove("intermediateChain");
            }
            Ok(authority.into())
        }
        CaCommand::Export(export) => {
            let authority = authority(session).await?;
            let roots = authority["trustedRoots"].as_str().unwrap_or_default();
            match &export.file {
                None => Ok(Output::Raw(roots.to_owned())),
                Some(file) => {
                    let written = std::fs::write(file, roots).map(|()| Output::Nothing);
                    written.map_err(|error| Failure::here(format!("'{}' can't be written: {error}.", file.display())))
                }
            }
        }
        CaCommand::Rotate(rotate) => {
            let root = if rotate.root { "&root=true" } else { "" };
            let path = format!("{}/authority/rotate?{API}{root}", base(session).await?);
            let what = if rotate.root { "Making a new root" } else { "Making a new issuing intermediate" };
            Ok(tls::wait(session, globals, &path, what.to_owned()).await?.into())
        }
    }
}

async fn authority(session: &Session) -> Result<Value, Failure> {
    Ok(session.client().get(&format!("{}/authority?{API}", base(session).await?)).await?)
}

/// Where the platform's own affairs lie.
pub(super) async fn base(session: &Session) -> Result<String, Failure> {
    Ok(format!("{}/providers/Casemate.Platform", session.subscription_id().await?))
}
