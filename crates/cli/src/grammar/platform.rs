//! Running the platform and finding it.

use std::{net::SocketAddr, path::PathBuf};

use casemate_model::inbound::AllowList;
use clap::{Args, ValueEnum};

use super::{Globals, acme::AcmeArgs};
use crate::state::state_dir;

/// What to do when the host has no interpreter of the version that a conda file asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EnvironmentPython {
    /// Fail, naming the ways out.
    Exact,
    /// Take the nearest minor version and warn.
    Nearest,
}

/// `up`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  casemate up
  casemate up --state /var/lib/casemate --listen 0.0.0.0:8443 --domain ml.example.org
  casemate up --listen 0.0.0.0:443 --http-listen 0.0.0.0:80 --domain ml.example.org \\
    --acme-directory https://acme-v02.api.letsencrypt.org/directory --acme-contact ops@example.org

It prints one line `ready https://…` when it serves, and stops on SIGTERM or Ctrl-C after the requests in flight.")]
pub struct UpArgs {
    /// Where everything is kept; filled in from the global options.
    #[arg(skip)]
    pub state: PathBuf,
    /// Address and port to listen on.
    #[arg(long, default_value = "127.0.0.1:8443", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Address and port of HTTP without TLS, for web services that are open without it and for the challenges of
    /// certificate authorities (default: none).
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub http_listen: Option<SocketAddr>,
    /// Domain of the platform's names.
    #[arg(long, default_value = "casemate.internal", value_name = "NAME", value_parser = dns_name)]
    pub domain: String,
    /// The platform's region.
    #[arg(long, default_value = "local", value_name = "NAME", value_parser = dns_label)]
    pub region: String,
    /// When a conda file asks for a Python that the host has not: fail, or take the nearest.
    #[arg(long, value_enum, default_value = "exact", value_name = "CHOICE")]
    pub environment_python: EnvironmentPython,
    /// Addresses and ports at which names are answered for everybody; networks have their own.
    #[arg(long, value_delimiter = ',', value_name = "ADDRESS:PORT")]
    pub dns: Vec<SocketAddr>,
    /// Port of the networks' own DNS addresses (default: 53, or where that needs a privilege the first port of --dns).
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub dns_port: Option<u16>,
    /// Who is asked about names that are not the platform's, by networks and by models (default: whom this machine asks).
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub upstream_dns: Option<SocketAddr>,
    /// From where the public listener may be called; all others are closed before TLS. Private endpoints take their
    /// network's callers whatever this says.
    #[arg(long, value_delimiter = ',', value_name = "PREFIX", value_parser = prefix)]
    pub allow_from: Vec<String>,
    /// Where certificates come from.
    #[command(flatten)]
    pub acme: Box<AcmeArgs>,
}

/// `demo`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  casemate demo
  casemate demo --keep        leave it running, to go on by hand")]
pub struct DemoArgs {
    /// Where everything is kept; filled in from the global options.
    #[arg(skip)]
    pub state: PathBuf,
    /// Leave the platform running.
    #[arg(long)]
    pub keep: bool,
    /// When a conda file asks for a Python that the host has not: fail, or take the nearest.
    #[arg(long, value_enum, default_value = "exact", value_name = "CHOICE")]
    pub environment_python: EnvironmentPython,
}

/// `env`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  eval \"$(casemate env)\"
  casemate env --format dotenv > .env
  casemate env --state /var/lib/casemate --format json
  eval \"$(casemate env --private)\"        inside a virtual network with a private endpoint")]
pub struct EnvArgs {
    /// Reach the platform by its name `management.DOMAIN`, which leads to the workspace's private endpoint where the
    /// platform's DNS answers for the virtual network.
    #[arg(long)]
    pub private: bool,
    /// How to write the variables.
    #[arg(long, value_enum, default_value = "shell", value_name = "FORMAT")]
    pub format: EnvFormat,
}

/// Forms of the variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EnvFormat {
    /// `export` lines for a shell.
    Shell,
    /// A JSON object.
    Json,
    /// Lines of a `.env` file.
    Dotenv,
}

impl UpArgs {
    pub(crate) fn with_state(mut self, globals: &Globals) -> Self {
        self.state = state_dir(globals.state.as_deref());
        self
    }

    /// What is wrong with options that are each right by themselves.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.acme.check(self.http_listen, &self.dns)
    }
}

impl DemoArgs {
    pub(crate) fn with_state(mut self, globals: &Globals) -> Self {
        self.state = state_dir(globals.state.as_deref());
        self
    }
}

fn prefix(text: &str) -> Result<String, String> {
    AllowList::parse([text]).map(|_| text.to_owned()).map_err(|fault| fault.message)
}

fn dns_label(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if fits { Ok(text.to_owned()) } else { Err("give 1 to 63 lower-case letters, digits and inner '-'".to_owned()) }
}

fn dns_name(text: &str) -> Result<String, String> {
    if text.len() > 200 {
        return Err("give at most 200 characters".to_owned());
    }
    text.split('.').try_for_each(|label| dns_label(label).map(drop))?;
    Ok(text.to_owned())
}
