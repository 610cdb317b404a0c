//! The demo's second half: what the model may reach, and who may reach the model.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RData, RecordType},
};
use serde_json::{Value, json};

use super::{Demo, ENDPOINT, GROUP, WORKSPACE, steps::Steps};

/// A name that no rule approves; it is reserved for examples.
const UNAPPROVED: &str = "example.com:443";
const NETWORK: &str = "demo-net";
const PRIVATE_ENDPOINT: &str = "demo-pe";
/// Of the loopback network: every address of 127.0.0.0/8 is there already, so no privilege is needed.
const PREFIX: &str = "127.77.0.0/24";
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A port that is free for datagrams now, for the platform's DNS server.
pub fn free_dns_port() -> Result<u16> {
    Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

impl Demo<'_> {
    /// Shows an approved and a refused connection from inside a model, a private and a public call from outside, and
    /// what the endpoint's name means to each.
    pub(super) async fn isolation(&self, steps: &mut Steps) -> Result<()> {
        steps.say("\nWhat the model may reach (the workspace allows only approved outbound):");
        self.outbound(steps).await?;
        steps.say("\nWho may reach the model (its public network access gets disabled):");
        self.inbound(steps).await
    }

    async fn outbound(&self, steps: &mut Steps) -> Result<()> {
        let scope = format!("-g {GROUP} -w {WORKSPACE}");
        let line = format!("ml online-deployment create -n reach -e {ENDPOINT} -f reach-deployment.yml {scope}");
        steps.run("create the deployment 'reach', whose code tries to connect", self.casemate(&line)).await?;
        let storage = self.field(&format!("ml workspace show -n {WORKSPACE} -g {GROUP}"), "storage_account").await?;
        let account = storage.rsplit('/').next().unwrap_or_default().to_lowercase();
        let storage = format!("{account}.blob.core.{}:443", super::DOMAIN);
        let request = json!({"destinations": [storage, UNAPPROVED]}).to_string();
        std::fs::write(self.files.join("reach-request.json"), request)?;
        let line = format!(
            "ml online-endpoint invoke -n {ENDPOINT} --deployment-name reach --request-file reach-request.json {scope}"
        );
        let said = steps.run("let it try", self.casemate(&line)).await?;
        let said = super::answer(&said)?;
        let outcome = |destination: &str| said[destination].as_str().unwrap_or_default().to_owned();
        for (destination, why) in [(storage.as_str(), "the workspace's storage"), (UNAPPROVED, "no rule")] {
            steps.say(&format!("    {destination} ({why}): {}", outcome(destination)));
        }
        ensure!(outcome(&storage).starts_with("reached"), "the approved destination was not reached: {said}");
        ensure!(outcome(UNAPPROVED).starts_with("refused"), "an unapproved destination was reached: {said}");
        let log = format!("ml workspace outbound-log -n {WORKSPACE} -g {GROUP} --denied -o json");
        let log: Value = serde_json::from_str(&steps.run("read the outbound log", self.casemate(&log)).await?)?;
        let last = log.as_array().and_then(|entries| entries.last()).context("the refusal is not in the log")?;
        steps.say(&format!(
            "    refused: {} — {}",
            last["name"].as_str().unwrap_or("?"),
            last["reason"].as_str().unwrap_or("?")
        ));
        Ok(())
    }

    async fn inbound(&self, steps: &mut Steps) -> Result<()> {
        let show = format!("ml workspace show -n {WORKSPACE} -g {GROUP} --query id -o tsv");
        let workspace = self.casemate(&show).await?;
        let made = [
            (
                "create a virtual network on the loopback interface",
                format!(
                    "network vnet create -g {GROUP} -n {NETWORK} --address-prefixes {PREFIX} --subnet-name default \
                     --subnet-prefixes {PREFIX}"
                ),
            ),
            (
                "create the workspace's private endpoint in it",
                format!(
                    "network private-endpoint create -g {GROUP} -n {PRIVATE_ENDPOINT} --vnet-name {NETWORK} --subnet default \
                     --private-connection-resource-id {} --group-id amlworkspace --connection-name {PRIVATE_ENDPOINT}",
                    workspace.trim()
                ),
            ),
            (
                "disable the endpoint's public network access",
                format!(
                    "ml online-endpoint update -n {ENDPOINT} -g {GROUP} -w {WORKSPACE} --set public_network_access=disabled"
                ),
            ),
        ];
        for (what, line) in &made {
            steps.run(what, self.casemate(line)).await?;
        }
        let show = format!("ml online-endpoint show -n {ENDPOINT} -g {GROUP} -w {WORKSPACE}");
        let uri: reqwest::Url = self.field(&show, "scoring_uri").await?.parse()?;
        let name = uri.host_str().context("a scoring address has a host")?.to_owned();
        let dns =
            self.field(&format!("network vnet show -g {GROUP} -n {NETWORK}"), "casemate.status.dnsAddress").await?;
        let public = self.answer_of(Ipv4Addr::LOCALHOST.into(), &name).await?;
        let private = self.answer_of(dns.parse()?, &name).await?;
        steps.say(&format!("    DNS: {name} is {public} to everybody, {private} inside {NETWORK}"));
        ensure!(public != private, "both views of the name gave {public}");
        for (what, address, expected) in
            [("call it from outside", public, 403), ("call it through the private endpoint", private, 200)]
        {
            let (status, said) = steps.run(what, self.call(&uri, address)).await?;
            steps.say(&format!("    {status}: {}", said.trim()));
            ensure!(status == expected, "expected {expected}, got {status}: {said}");
        }
        let line = format!(
            "ml online-endpoint update -n {ENDPOINT} -g {GROUP} -w {WORKSPACE} --set public_network_access=enabled"
        );
        steps.run("enable it again, to go on by hand", self.casemate(&line)).await?;
        Ok(())
    }

    /// Scores at `uri`, whose name leads to `address`, with the certificate verified.
    async fn call(&self, uri: &reqwest::Url, address: IpAddr) -> Result<(u16, String)> {
        let credentials = format!("ml online-endpoint get-credentials -n {ENDPOINT} -g {GROUP} -w {WORKSPACE}");
        let key = self.field(&credentials, "primaryKey").await?;
        let root = reqwest::Certificate::from_pem(&std::fs::read(self.state.join("ca.pem"))?)?;
        let (host, port) = (uri.host_str().unwrap_or_default(), uri.port_or_known_default().unwrap_or(443));
        let client = reqwest::Client::builder()
            .tls_certs_only([root])
            .resolve(host, SocketAddr::new(address, port))
            .timeout(PATIENCE)
            .build()?;
        let body = std::fs::read(self.files.join("sample-request.json"))?;
        let answer = client.post(uri.clone()).bearer_auth(key).body(body).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// What the platform's DNS server at `server` says of a name.
    async fn answer_of(&self, server: IpAddr, name: &str) -> Result<IpAddr> {
        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii(name)?, RecordType::A));
        let socket = tokio::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.connect((server, self.dns_port)).await?;
        socket.send(&question.to_vec()?).await?;
        let mut answer = [0; 1232];
        let length = tokio::time::timeout(PATIENCE, socket.recv(&mut answer)).await??;
        let answer = Message::from_vec(&answer[..length])?;
        let address = answer.answers.iter().find_map(|record| match &record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            _ => None,
        });
        match address {
            Some(address) => Ok(address),
            None => bail!("the DNS server at {server} knows no address of {name}"),
        }
    }
}
