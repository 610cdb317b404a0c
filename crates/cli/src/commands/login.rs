//! `login` and `logout`.

use casemate_model::Secret;

use super::{Found, account};
use crate::{
    config::{self, Settings, write_private},
    failure::Failure,
    grammar::{Globals, Login},
    output::Output,
    session::{Session, StoredLogin, ca_from_variables, login_path},
    state::Target,
    terminal,
};

pub(super) async fn login(args: Login, globals: &Globals) -> Found {
    let directory = config::directory(globals);
    let variable = || std::env::var("CASEMATE_URL").ok().filter(|url| !url.is_empty());
    let Some(url) = args.url.or_else(variable) else {
        return Err(Failure::usage("Which platform? Give its address with --url or the variable CASEMATE_URL."));
    };
    let ca_pem = match &args.ca_file {
        Some(file) => Some(
            std::fs::read(file)
                .map_err(|error| Failure::here(format!("The CA file '{}' can't be read: {error}.", file.display())))?,
        ),
        None => ca_from_variables()?,
    };
    let client_secret = secret(&args.password)?;
    let target = Target {
        url,
        tenant: args.tenant,
        client_id: args.username,
        client_secret: Secret::from(client_secret.as_str()),
        subscription: None,
        ca_pem,
    };
    let session = Session::with(target.clone(), Settings::read(&directory)?, globals)?;
    let listed = account::list(&session).await?;
    let ca_pem =
        target.ca_pem.map(String::from_utf8).transpose().map_err(|_| Failure::here("The CA file is no PEM text."))?;
    let login = StoredLogin {
        url: session.client().base().to_owned(),
        tenant_id: target.tenant,
        client_id: target.client_id,
        client_secret,
        ca_pem,
    };
    let text = serde_json::to_vec_pretty(&login).map_err(|error| Failure::here(error.to_string()))?;
    write_private(&login_path(&directory), &text)?;
    Ok(listed)
}

/// The secret itself, or from the file that `@FILE` names.
fn secret(given: &str) -> Result<String, Failure> {
    let Some(file) = given.strip_prefix('@') else { return Ok(given.to_owned()) };
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::here(format!("The secret's file '{file}' can't be read: {error}.")))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

pub(super) fn logout(globals: &Globals) -> Found {
    let path = login_path(&config::directory(globals));
    match std::fs::remove_file(&path) {
        Ok(()) => Ok(Output::Nothing),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            terminal::note("There was no sign-in to forget.");
            Ok(Output::Nothing)
        }
        Err(error) => Err(Failure::here(format!("'{}' can't be removed: {error}.", path.display()))),
    }
}
