//! `dns …`.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};

/// What the platform's DNS says.
#[derive(Debug, Subcommand)]
pub(crate) enum DnsCommand {
    /// List the records that clients of a virtual network get, or those of everybody.
    #[command(after_help = "Examples:
  casemate dns records -o table
  casemate dns records --network my-vnet -g my-group --query \"[?type=='A']\"")]
    Records(DnsView),
    /// Write what a company's own DNS needs: zone files, or a snippet for dnsmasq, unbound or BIND.
    #[command(after_help = "Examples:
  casemate dns export --network my-vnet --format unbound --file /etc/unbound/unbound.conf.d/casemate.conf
  casemate dns export --network my-vnet --format dnsmasq --static
  casemate dns export --network my-vnet --format zone --file zones/

A snippet forwards the platform's zones to its DNS server, so that new endpoints are found at once. With --static it
holds the records themselves: nothing else need be reached, and it has to be written again after each change.")]
    Export(DnsExport),
}

/// Whose answers.
#[derive(Debug, Clone, Args)]
pub(crate) struct DnsView {
    /// Name or id of the virtual network (default: none, what everybody gets).
    #[arg(long, alias = "vnet", value_name = "NAME_OR_ID")]
    pub(crate) network: Option<String>,
    /// Resource group of the network (default: the configured one).
    #[arg(short = 'g', long, value_name = "NAME")]
    pub(crate) resource_group: Option<String>,
    /// Address of the front door, where clients reach it (default: the one in the platform's URL).
    #[arg(long, value_name = "IP")]
    pub(crate) address: Option<IpAddr>,
}

/// `dns export`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DnsExport {
    #[command(flatten)]
    pub(crate) view: DnsView,
    /// What to write.
    #[arg(long, value_enum, default_value = "zone", value_name = "FORMAT")]
    pub(crate) format: DnsFormat,
    /// Address, and port if it is not 53, of the platform's DNS server (default: the network's own).
    #[arg(long, value_name = "IP[:PORT]")]
    pub(crate) server: Option<String>,
    /// Write the records themselves instead of forwarding.
    #[arg(long = "static")]
    pub(crate) fixed: bool,
    /// File to write (default: stdout); for zone files, and for BIND with --static, a directory.
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Forms of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DnsFormat {
    /// Zone files as of RFC 1035.
    Zone,
    /// A file for /etc/dnsmasq.d.
    Dnsmasq,
    /// A file for /etc/unbound/unbound.conf.d.
    Unbound,
    /// A file to include in named.conf.
    Bind,
}
