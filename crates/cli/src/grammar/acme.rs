//! Options of `up` about an ACME certificate authority.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};
use url::Url;

/// How names are proven to an ACME authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum AcmeChallenge {
    /// By a file at port 80; needs --http-listen.
    #[default]
    #[value(name = "http-01")]
    Http01,
    /// By a certificate at port 443; needs nothing else.
    #[value(name = "tls-alpn-01")]
    TlsAlpn01,
    /// By a TXT record; needs --dns.
    #[value(name = "dns-01")]
    Dns01,
}

/// Where the certificates of endpoints, computes and services come from; without a directory, from the built-in
/// authority. Those of the platform's own names always come from there.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Certificates from an ACME authority")]
pub struct AcmeArgs {
    /// The authority's directory; certificates of endpoints, computes and services are got there.
    #[arg(long, value_name = "URL", value_parser = directory)]
    pub acme_directory: Option<String>,
    /// File of the certificates that the authority's own server must come from, PEM (default: those this machine trusts).
    #[arg(long, value_name = "FILE", requires = "acme_directory")]
    pub acme_root: Option<PathBuf>,
    /// Mail addresses that the authority may write to.
    #[arg(long, value_delimiter = ',', value_name = "MAIL", requires = "acme_directory")]
    pub acme_contact: Vec<String>,
    /// How names are proven (default: http-01).
    #[arg(long, value_enum, value_name = "CHALLENGE", requires = "acme_directory")]
    pub acme_challenge: Option<AcmeChallenge>,
    /// Key id of the account at the authority that the platform's is bound to.
    #[arg(long, value_name = "ID", requires = "acme_directory", requires = "acme_eab_key_file")]
    pub acme_eab_kid: Option<String>,
    /// File of that account's key, base64url as the authority shows it.
    #[arg(long, value_name = "FILE", requires = "acme_eab_kid")]
    pub acme_eab_key_file: Option<PathBuf>,
    /// Which of the authority's kinds of certificates is wanted, such as shortlived (default: its own choice).
    #[arg(long, value_name = "NAME", requires = "acme_directory")]
    pub acme_profile: Option<String>,
}

impl AcmeArgs {
    /// How names are proven; none without an authority.
    #[must_use]
    pub fn challenge(&self) -> Option<AcmeChallenge> {
        self.acme_directory.as_ref().map(|_| self.acme_challenge.unwrap_or_default())
    }

    /// Whether the challenge can be answered by a platform that listens at these addresses.
    ///
    /// # Errors
    /// Naming the option that is missing.
    pub(crate) fn check(&self, http_listen: Option<SocketAddr>, dns: &[SocketAddr]) -> Result<(), String> {
        match self.challenge() {
            Some(AcmeChallenge::Http01) if http_listen.is_none() => Err(
                "With http-01, the authority gets a file at port 80: give --http-listen ADDRESS:PORT, to which port 80 of the names leads, or another --acme-challenge."
                    .to_owned(),
            ),
            Some(AcmeChallenge::Dns01) if dns.is_empty() => Err(
                "With dns-01, the authority asks the platform's DNS server: give --dns ADDRESS:PORT, to which the domain is delegated, or another --acme-challenge."
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }
}

fn directory(text: &str) -> Result<String, String> {
    let example = "give an address such as https://acme-v02.api.letsencrypt.org/directory";
    let url = Url::parse(text).map_err(|error| format!("{error}; {example}"))?;
    if url.scheme() == "https" && url.host_str().is_some_and(|host| !host.is_empty()) {
        Ok(text.to_owned())
    } else {
        Err(format!("it must begin with https://; {example}"))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        acme: AcmeArgs,
    }

    fn read(words: &str) -> Result<AcmeArgs, String> {
        let words = ["up"].into_iter().chain(words.split_whitespace());
        Line::try_parse_from(words).map(|line| line.acme).map_err(|error| error.to_string())
    }

    #[test]
    fn options_that_need_each_other() {
        let at = "--acme-directory https://ca.example/dir";
        for (words, told) in [
            ("--acme-challenge dns-01", "--acme-directory"),
            ("--acme-contact a@b.c", "--acme-directory"),
            ("--acme-directory http://ca.example/dir", "https://"),
            ("--acme-directory ca.example", "relative URL"),
            (&format!("{at} --acme-eab-kid k"), "--acme-eab-key-file"),
            (&format!("{at} --acme-eab-key-file f"), "--acme-eab-kid"),
            (&format!("{at} --acme-challenge ftp-01"), "tls-alpn-01"),
        ] {
            let refused = read(words).unwrap_err();
            assert!(refused.contains(told), "{words}: {refused}");
        }
        let args = read(&format!("{at} --acme-contact a@b.c,d@e.f --acme-eab-kid k --acme-eab-key-file f")).unwrap();
        assert_eq!((args.challenge(), args.acme_contact.len()), (Some(AcmeChallenge::Http01), 2));
        assert_eq!(read("").unwrap().challenge(), None);
    }

    #[test]
    fn challenges_need_somebody_who_answers() {
        let somewhere: SocketAddr = ([127, 0, 0, 1], 80).into();
        for (challenge, http, dns, told) in [
            ("http-01", None, &[somewhere][..], Some("--http-listen")),
            ("http-01", Some(somewhere), &[], None),
            ("tls-alpn-01", None, &[], None),
            ("dns-01", Some(somewhere), &[], Some("--dns")),
            ("dns-01", None, &[somewhere], None),
        ] {
            let args = read(&format!("--acme-directory https://ca.example/ --acme-challenge {challenge}")).unwrap();
            match (args.check(http, dns), told) {
                (Ok(()), None) => {}
                (Err(message), Some(told)) => assert!(message.contains(told), "{message}"),
                (found, _) => panic!("{challenge}: {found:?}"),
            }
        }
        assert_eq!(AcmeArgs::default().check(None, &[]), Ok(()));
    }
}
