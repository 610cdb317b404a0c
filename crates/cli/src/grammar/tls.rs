//! `tls …` and `ca …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Certificates of the names that are served.
#[derive(Debug, Subcommand)]
pub(crate) enum TlsCommand {
    /// List every name that is served: issuer, serial, fingerprint, end, next renewal, how it stands, last result.
    #[command(after_help = "Examples:
  casemate tls status -o table
  casemate tls status --name www.example.org
  casemate tls status --query \"[?state!='Ok'].[name, lastResult.message]\" -o tsv

States: Ok; Renewing (a newer certificate is on its way); Danger (close to its end: somebody should look); Failed (the last
attempt failed, and will be repeated); Provisional (the built-in authority stands in for the issuer of the name).")]
    Status(TlsStatus),
    /// Say what a renewal will do, or a replacement by a certificate of one's own, without doing it.
    #[command(after_help = "Examples:
  casemate tls plan my-endpoint.local.inference.casemate.internal
  casemate tls plan www.example.org --cert cert.pem --key key.pem")]
    Plan(TlsPlan),
    /// Check a certificate and its key for a name, without using them.
    #[command(after_help = "Examples:
  casemate tls check --cert cert.pem --key key.pem --cname www.example.org

It ends with 1 when the certificate would be refused.")]
    Check(TlsCheck),
    /// Renew a certificate now and wait until the new one was seen to be served.
    #[command(after_help = "Examples:
  casemate tls renew my-endpoint.local.inference.casemate.internal --force

Without --force a certificate that is still valid, and not due, is left alone.")]
    Renew(TlsRenew),
}

/// `tls status`.
#[derive(Debug, Clone, Args)]
pub(crate) struct TlsStatus {
    /// One name (default: all).
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// `tls plan`.
#[derive(Debug, Clone, Args)]
pub(crate) struct TlsPlan {
    /// The host name.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Certificate chain that is to replace the present one, PEM.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
}

/// `tls check`.
#[derive(Debug, Clone, Args)]
pub(crate) struct TlsCheck {
    /// Certificate chain, PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: PathBuf,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// The host name that it is to be served for.
    #[arg(long, value_name = "NAME")]
    pub(crate) cname: String,
}

/// `tls renew`.
#[derive(Debug, Clone, Args)]
pub(crate) struct TlsRenew {
    /// The host name.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Renew it also when it is still valid.
    #[arg(long)]
    pub(crate) force: bool,
}

/// The built-in certificate authority.
#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Show the root and the issuing intermediate: subjects, serials, fingerprints, ends.
    #[command(after_help = "Examples:
  casemate ca show
  casemate ca show --query root.sha256 -o tsv")]
    Show,
    /// Write what callers must trust, PEM: the root, and roots before it that have not ended.
    #[command(after_help = "Examples:
  casemate ca export > casemate-ca.pem
  casemate ca export --file /usr/local/share/ca-certificates/casemate.crt")]
    Export(CaExport),
    /// Make a new issuing intermediate, or a new root.
    #[command(after_help = "Examples:
  casemate ca rotate
  casemate ca rotate --root

A new intermediate breaks nobody: what was issued before stays valid, and callers trust the root as before. It is made by
itself when two thirds of the old one's life are over.

A new root comes with an intermediate of its own. The old root signs it, so callers who know only the old one accept what
the new one issues until the old one ends; ca.pem and ca-bundle.pem in the state directory hold both. Give the output of
`casemate ca export` to callers on other machines before the old root ends. Nothing that was issued before is renewed for
it: that happens in its own time, or with `casemate tls renew NAME --force`.")]
    Rotate(CaRotate),
}

/// `ca export`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CaExport {
    /// File to write (default: stdout).
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// `ca rotate`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CaRotate {
    /// Make a new root, too.
    #[arg(long)]
    pub(crate) root: bool,
}
