//! The commands themselves.

mod account;
mod assets;
mod ca;
mod computetarget;
mod configure;
mod deployment;
mod dns;
mod dns_files;
mod endpoint;
mod group;
mod invoke;
mod keyvault;
mod login;
mod network;
mod outbound;
mod principals;
mod tls;
mod workspace;

use std::future::Future;

use clap::ValueEnum;
use serde_json::json;

use crate::{
    config::{self, Settings},
    failure::Failure,
    grammar::{EnvArgs, Extension, Format, Globals, Ml, Top, Yes},
    output::{self, Output, Query},
    session::Session,
    state::{self, state_dir},
    terminal,
};

/// What every command gives back.
type Found = Result<Output, Failure>;

/// Runs a command; its exit code.
pub(crate) fn run(command: Top, globals: &Globals) -> u8 {
    match try_run(command, globals) {
        Ok(()) => 0,
        Err(failure) => {
            failure.print();
            failure.exit_code()
        }
    }
}

fn try_run(command: Top, globals: &Globals) -> Result<(), Failure> {
    // A query that can't be read must not be noticed after the work is done.
    let query = globals.query.as_deref().map(Query::parse).transpose()?;
    let output = dispatch(command, globals)?;
    output::print(output, query.as_ref(), format(globals)?)
}

/// The format given, else the configured one, else JSON.
fn format(globals: &Globals) -> Result<Format, Failure> {
    if let Some(format) = globals.output {
        return Ok(format);
    }
    let directory = config::directory(globals);
    let kept = Settings::read(&directory)?.get("core", "output");
    Ok(kept.and_then(|text| Format::from_str(&text, true).ok()).unwrap_or(Format::Json))
}

fn dispatch(command: Top, globals: &Globals) -> Found {
    match command {
        Top::Env(args) => environment(&args, globals),
        Top::Version => Ok(json!({"casemate": env!("CARGO_PKG_VERSION")}).into()),
        Top::Extension(extension) => Ok(extensions(extension, globals)),
        Top::Configure(args) => configure::configure(args, globals),
        Top::Config(command) => configure::config(command, globals),
        Top::Logout => login::logout(globals),
        Top::Login(args) => block_on(login::login(args, globals)),
        Top::Group(command) => with_session(globals, async |session| group::run(command, session, globals).await),
        Top::Dns(command) => with_session(globals, async |session| dns::run(command, session).await),
        Top::Tls(command) => with_session(globals, async |session| tls::run(command, session, globals).await),
        Top::Ca(command) => with_session(globals, async |session| ca::run(command, session, globals).await),
        Top::Network(command) => with_session(globals, async |session| network::run(*command, session).await),
        Top::KeyVault(command) => with_session(globals, async |session| keyvault::run(*command, session).await),
        Top::Acr(command) => with_session(globals, async |session| network::acr(command, session).await),
        Top::Account(command) => with_session(globals, async |session| account::run(command, session).await),
        Top::Sp(command) => with_session(globals, async |session| principals::run(command, session).await),
        Top::Role(command) => with_session(globals, async |session| principals::role(command, session, globals).await),
        Top::Ml(noun) => with_session(globals, async |session| match *noun {
            Ml::Workspace(command) => workspace::run(command, session, globals).await,
            Ml::OnlineEndpoint(command) => endpoint::run(command, session, globals).await,
            Ml::OnlineDeployment(command) => deployment::run(command, session, globals).await,
            Ml::Model(command) => assets::model(command, session, globals).await,
            Ml::ComputeTarget(command) => computetarget::run(command, session, globals).await,
            Ml::Environment(command) => assets::environment(command, session, globals).await,
        }),
        // The binary runs these itself.
        Top::Up(_) | Top::Demo(_) => Ok(Output::Nothing),
    }
}

fn environment(args: &EnvArgs, globals: &Globals) -> Found {
    let state = state_dir(globals.state.as_deref());
    state::environment_lines(&state, args.format, args.private).map(Output::Raw).map_err(Failure::here)
}

fn extensions(extension: Extension, globals: &Globals) -> Output {
    let built_in = || json!({"name": "ml", "version": env!("CARGO_PKG_VERSION"), "extensionType": "built-in"});
    match extension {
        Extension::Add { name, .. } => {
            if !globals.only_show_errors {
                let name = name.unwrap_or_else(|| "ml".to_owned());
                terminal::note(&format!(
                    "casemate has its machine learning commands built in; nothing to do for the extension '{name}'."
                ));
            }
            Output::Nothing
        }
        Extension::List => json!([built_in()]).into(),
        Extension::Show { .. } => built_in().into(),
    }
}

/// Runs something that waits, on this thread alone.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::here(format!("The command can't start: {error}.")))?;
    runtime.block_on(future)
}

fn with_session(globals: &Globals, run: impl AsyncFnOnce(&Session) -> Found) -> Found {
    let session = Session::open(globals)?;
    block_on(run(&session))
}

/// Asks before something is destroyed.
///
/// # Errors
/// When the answer is no, or nobody can be asked and `--yes` was not given.
fn confirmed(yes: Yes) -> Result<(), Failure> {
    if yes.yes {
        return Ok(());
    }
    match terminal::confirm("Are you sure you want to perform this operation?") {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::here("Operation cancelled.")),
        None => Err(Failure::here("Unable to prompt for confirmation as no tty available. Use --yes.")),
    }
}

/// Reads `KEY=VALUE` arguments; one argument may hold several, separated by spaces.
fn pairs(what: &str, arguments: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let words = arguments.iter().flat_map(|argument| {
        // A value may hold spaces when it is an argument of its own: only cut where another KEY= follows.
        let several = argument.split_whitespace().all(|word| word.contains('='));
        if several { argument.split_whitespace().collect::<Vec<_>>() } else { vec![argument.as_str()] }
    });
    words
        .map(|word| match word.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Failure::usage(format!("{what} '{word}' is not of the form KEY=VALUE."))),
        })
        .collect()
}

/// Turns down `--local`, which stands for a mode that this platform has no use for.
fn refuse_local(local: bool) -> Result<(), Failure> {
    if local {
        return Err(Failure::here(
            "--local is not supported by casemate: the platform itself runs on your machine. Leave the option out.",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_one_or_several_arguments() {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        for (arguments, expected) in [
            (&["blue=90 green=10"][..], &[("blue", "90"), ("green", "10")][..]),
            (&["blue=90", "green=10"], &[("blue", "90"), ("green", "10")]),
            (&["green=10"], &[("green", "10")]),
            (&["note=two words"], &[("note", "two words")]),
            (&["a=b=c"], &[("a", "b=c")]),
            (&["a="], &[("a", "")]),
            (&[""], &[]),
        ] {
            let found = pairs("--traffic", &owned(arguments)).unwrap();
            let found: Vec<(&str, &str)> = found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            assert_eq!(found, expected, "{arguments:?}");
        }
        for bad in ["blue", "=90", "blue 90"] {
            assert_eq!(pairs("--traffic", &owned(&[bad])).unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
