//! `ml computetarget …`: the computes of the first generation, with the options of its command line.

use std::path::PathBuf;

use clap::{ArgAction, Args, Subcommand};

use super::{NoWait, Scope};

/// Computes that services of the first generation run on.
#[derive(Debug, Subcommand)]
pub(crate) enum ComputeTargetCommand {
    /// Create a compute.
    #[command(subcommand)]
    Create(CreateKind),
    /// Attach a cluster as a compute.
    #[command(subcommand)]
    Attach(AttachKind),
    /// Change a compute's TLS or load balancer.
    #[command(subcommand)]
    Update(UpdateKind),
    /// Show a compute: its TLS configuration, and the certificate that is served.
    #[command(after_help = "Examples:
  casemate ml computetarget show -n myaks
  casemate ml computetarget show -n myaks --query properties.properties.sslConfiguration.cname -o tsv
  casemate ml computetarget show -n myaks --query properties.casemate.certificate.sha256 -o tsv")]
    Show(ComputeName),
    /// List the computes of a workspace.
    #[command(after_help = "Example:
  casemate ml computetarget list -g my-group -w my-workspace --query \"[].name\" -o tsv")]
    List {
        #[command(flatten)]
        scope: Scope,
    },
    /// Delete a compute that was created.
    #[command(after_help = "Example:\n  casemate ml computetarget delete -n myaks")]
    Delete(ComputeEnd),
    /// Detach a compute: the cluster stays what it is.
    #[command(after_help = "Example:\n  casemate ml computetarget detach -n myaks")]
    Detach(ComputeEnd),
}

/// `create …`.
#[derive(Debug, Subcommand)]
pub(crate) enum CreateKind {
    /// A pool for services, with one TLS configuration for all of them.
    #[command(after_help = "Examples:
  casemate ml computetarget create aks -n myaks
  casemate ml computetarget create aks -n myaks --ssl-leaf-domain-label contoso
  casemate ml computetarget create aks -n myaks --ssl-cname www.contoso.com --ssl-cert-file cert.pem --ssl-key-file key.pem")]
    Aks(Box<AksCreate>),
}

/// `attach …`.
#[derive(Debug, Subcommand)]
pub(crate) enum AttachKind {
    /// A cluster that exists; it is kept on record, and its services are served by this platform.
    #[command(after_help = "Example:
  casemate ml computetarget attach aks -n myaks -i /subscriptions/S/resourceGroups/G/providers/Microsoft.ContainerService/managedClusters/C --ssl-leaf-domain-label contoso")]
    Aks(Box<AksAttach>),
}

/// `update …`.
#[derive(Debug, Subcommand)]
pub(crate) enum UpdateKind {
    /// A pool for services.
    #[command(after_help = "Examples:
  casemate ml computetarget update aks -g my-group -w my-workspace -n myaks --ssl-leaf-domain-label \"myaks\" --ssl-overwrite-domain True --ssl-renew
  casemate ml computetarget update aks -g my-group -w my-workspace -n myaks --ssl-cname \"myaks\" --ssl-cert-file \"cert.pem\" --ssl-key-file \"key.pem\"
  casemate ml computetarget update aks -n myaks --ssl-disable

The name of a leaf domain label stays what it is when its certificate is renewed, six characters included. Without
--ssl-renew a certificate that is still good is left alone.")]
    Aks(Box<AksUpdate>),
}

/// A compute of a workspace.
#[derive(Debug, Args)]
pub(crate) struct ComputeName {
    /// Name of the compute.
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) scope: Scope,
}

/// A compute that goes.
#[derive(Debug, Args)]
pub(crate) struct ComputeEnd {
    #[command(flatten)]
    pub(crate) compute: ComputeName,
    #[command(flatten)]
    pub(crate) no_wait: NoWait,
}

/// TLS at creation.
#[derive(Debug, Args)]
pub(crate) struct SslArgs {
    /// Label of a name of the platform's, which gets a certificate: LABEL######.REGION.cloudapp.DOMAIN.
    #[arg(long, value_name = "LABEL")]
    pub(crate) ssl_leaf_domain_label: Option<String>,
    /// Take the label over when another compute uses it.
    #[arg(long, value_name = "TRUE_OR_FALSE", num_args = 0..=1, default_missing_value = "true",
          value_parser = parse_truth, action = ArgAction::Set)]
    pub(crate) ssl_overwrite_domain: Option<bool>,
    /// Name that clients use, for a certificate of your own.
    #[arg(long, value_name = "NAME")]
    pub(crate) ssl_cname: Option<String>,
    /// PEM file with your certificate and those above it.
    #[arg(long, value_name = "FILE")]
    pub(crate) ssl_cert_file: Option<PathBuf>,
    /// PEM file with its private key.
    #[arg(long, value_name = "FILE")]
    pub(crate) ssl_key_file: Option<PathBuf>,
}

/// The load balancer.
#[derive(Debug, Args)]
pub(crate) struct BalancerArgs {
    /// PublicIp or InternalLoadBalancer.
    #[arg(long, value_name = "TYPE")]
    pub(crate) load_balancer_type: Option<String>,
    /// Subnet of an internal load balancer.
    #[arg(long, value_name = "NAME")]
    pub(crate) load_balancer_subnet: Option<String>,
}

/// `create aks`.
#[derive(Debug, Args)]
pub(crate) struct AksCreate {
    #[command(flatten)]
    pub(crate) compute: ComputeName,
    #[command(flatten)]
    pub(crate) ssl: SslArgs,
    #[command(flatten)]
    pub(crate) balancer: BalancerArgs,
    /// Number of agents; on record.
    #[arg(short = 'a', long, value_name = "COUNT")]
    pub(crate) agent_count: Option<u64>,
    /// Size of the agents; on record.
    #[arg(short = 's', long, value_name = "SIZE")]
    pub(crate) vm_size: Option<String>,
    /// FastProd, DenseProd or DevTest.
    #[arg(long, value_name = "PURPOSE")]
    pub(crate) cluster_purpose: Option<String>,
    /// Region (default: the workspace's).
    #[arg(short = 'l', long, value_name = "REGION")]
    pub(crate) location: Option<String>,
    /// Group of the virtual network; on record, as all of the network's options.
    #[arg(long, value_name = "NAME")]
    pub(crate) vnet_resourcegroup_name: Option<String>,
    /// Virtual network.
    #[arg(long, value_name = "NAME")]
    pub(crate) vnet_name: Option<String>,
    /// Its subnet.
    #[arg(long, value_name = "NAME")]
    pub(crate) subnet_name: Option<String>,
    /// Addresses of the cluster's services.
    #[arg(long, value_name = "CIDR")]
    pub(crate) service_cidr: Option<String>,
    /// Address of the cluster's DNS.
    #[arg(long, value_name = "IP")]
    pub(crate) dns_service_ip: Option<String>,
    /// Addresses of the containers' bridge.
    #[arg(long, value_name = "CIDR")]
    pub(crate) docker_bridge_cidr: Option<String>,
    #[command(flatten)]
    pub(crate) no_wait: NoWait,
}

/// `attach aks`.
#[derive(Debug, Args)]
pub(crate) struct AksAttach {
    #[command(flatten)]
    pub(crate) compute: ComputeName,
    /// Id of the cluster.
    #[arg(short = 'i', long, value_name = "ID")]
    pub(crate) compute_resource_id: String,
    #[command(flatten)]
    pub(crate) ssl: SslArgs,
    #[command(flatten)]
    pub(crate) balancer: BalancerArgs,
    /// FastProd, DenseProd or DevTest.
    #[arg(long, value_name = "PURPOSE")]
    pub(crate) cluster_purpose: Option<String>,
    #[command(flatten)]
    pub(crate) no_wait: NoWait,
}

/// `update aks`.
#[derive(Debug, Args)]
pub(crate) struct AksUpdate {
    #[command(flatten)]
    pub(crate) compute: ComputeName,
    #[command(flatten)]
    pub(crate) ssl: SslArgs,
    /// Get a new certificate of the platform, also when the present one is still good.
    #[arg(long, value_name = "TRUE_OR_FALSE", num_args = 0..=1, default_missing_value = "true",
          value_parser = parse_truth, action = ArgAction::Set)]
    pub(crate) ssl_renew: Option<bool>,
    /// Turn TLS off.
    #[arg(long, value_name = "TRUE_OR_FALSE", num_args = 0..=1, default_missing_value = "true",
          value_parser = parse_truth, action = ArgAction::Set)]
    pub(crate) ssl_disable: Option<bool>,
    #[command(flatten)]
    pub(crate) balancer: BalancerArgs,
    #[command(flatten)]
    pub(crate) no_wait: NoWait,
}

/// `True`, `false` and the like, as scripts in Python and in shells write it.
fn parse_truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => Err("give True or False".to_owned()),
    }
}
