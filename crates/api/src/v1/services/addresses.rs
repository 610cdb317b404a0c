//! Where a service is called.

use casemate_model::{
    Resource,
    service::{self, ServiceKind},
    tls::{TlsMode, TlsWish},
};

use crate::ApiState;

/// The scoring address: by the certificate's name over TLS; by the machine's address and the plain port without; and if
/// there is no plain port, over TLS at the platform's own address.
pub(super) fn scoring(state: &ApiState, kind: ServiceKind, row: &Resource, compute: Option<&Resource>) -> String {
    let (config, name) = (&state.config, row.name());
    if service::has_tls(row, compute) {
        let own = certified_name(row);
        let path = if own.is_some() && kind == ServiceKind::Aci { "/score".to_owned() } else { path(name) };
        let host = own.or_else(|| compute.and_then(certified_name)).unwrap_or_default();
        let port = config.url.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()).unwrap_or(443);
        let port = if port == 443 { String::new() } else { format!(":{port}") };
        return format!("https://{host}{port}{path}");
    }
    let Some(plain) = config.http_listen else { return format!("{}{}", config.url, path(name)) };
    let host = if plain.ip().is_unspecified() { public_host(&config.url).to_owned() } else { address(plain) };
    let port = if plain.port() == 80 { String::new() } else { format!(":{}", plain.port()) };
    format!("http://{host}{port}{}", path(name))
}

fn path(name: &str) -> String {
    format!("/api/v1/service/{name}/score")
}

fn certified_name(owner: &Resource) -> Option<String> {
    let wish = TlsWish::of(owner).ok().flatten().filter(|wish| wish.mode != TlsMode::Off)?;
    wish.names.into_iter().next()
}

/// The host of the platform's own address.
pub(super) fn public_host(url: &str) -> &str {
    let host = url.trim_start_matches("https://");
    host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(host, _)| host)
}

fn address(plain: std::net::SocketAddr) -> String {
    if plain.is_ipv6() { format!("[{}]", plain.ip()) } else { plain.ip().to_string() }
}
