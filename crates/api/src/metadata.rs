//! The cloud's description, which clients fetch (without a token, many times) before anything else.

use axum::response::Response;
use serde_json::{Value, json};

use crate::{call::Query, respond, state::ApiConfig};

/// The name that older clients look for when they are told of no cloud.
const DEFAULT_CLOUD_NAME: &str = "AzureCloud";

/// Answers `GET /metadata/endpoints`: a list of two for 2019-05-01 (and before), else one object.
///
/// The list names the same endpoints twice, since one client takes the first entry and another looks for the
/// default name. In it the authority has a part after `/adfs`: the older client that reads lists puts its tenant in the
/// place of the last part, and would else lose `/adfs`.
pub(crate) fn answer(config: &ApiConfig, base: &str, query: &Query) -> Response {
    let version = query.get("api-version").unwrap_or_default();
    if version < "2020-01-01" {
        let listed = |name: &str| {
            let mut cloud = cloud(config, base, name);
            cloud["authentication"]["loginEndpoint"] = format!("{base}/adfs/{}", config.tenant).into();
            cloud
        };
        return respond::ok(&json!([listed(&config.cloud_name), listed(DEFAULT_CLOUD_NAME)]));
    }
    respond::ok(&cloud(config, base, &config.cloud_name))
}

/// One cloud. `resourceManager` must be a part of the URL that the client fetched, hence `base`; the authority's first
/// part is `/adfs`, which keeps clients from asking the public login host about it.
fn cloud(config: &ApiConfig, base: &str, name: &str) -> Value {
    let root = format!("{base}/");
    let host = base.split_once("://").map_or(base, |(_, host)| host);
    json!({
        "name": name,
        "portal": base,
        "authentication": {
            "loginEndpoint": format!("{base}/adfs"),
            "audiences": [root, base],
            "tenant": config.tenant.to_string(),
            "identityProvider": "ADFS",
        },
        "resourceManager": root,
        "graph": root,
        "graphAudience": root,
        "microsoftGraphResourceId": root,
        "media": root,
        "batch": root,
        "gallery": root,
        "sqlManagement": root,
        "vmImageAliasDoc": root,
        "activeDirectoryDataLake": root,
        "ossrdbmsResourceId": root,
        "appInsightsResourceId": root,
        "appInsightsTelemetryChannelResourceId": root,
        "attestationResourceId": root,
        "synapseAnalyticsResourceId": root,
        "logAnalyticsResourceId": root,
        "suffixes": {
            "storage": config.storage_suffix(),
            "keyVaultDns": format!("vault.{}", config.domain),
            "acrLoginServer": format!("registry.{}", config.domain),
            "sqlServerHostname": format!("database.{}", config.domain),
            "azureDataLakeStoreFileSystem": format!("datalake.{}", config.domain),
            "azureDataLakeAnalyticsCatalogAndJob": format!("datalakeanalytics.{}", config.domain),
            "storageSyncEndpointSuffix": format!("afs.{}", config.domain),
            "mhsmDns": format!("managedhsm.{}", config.domain),
            "mysqlServerEndpoint": format!("mysql.{}", config.domain),
            "postgresqlServerEndpoint": format!("postgres.{}", config.domain),
            "mariadbServerEndpoint": format!("mariadb.{}", config.domain),
            "synapseAnalytics": format!("synapse.{}", config.domain),
            "attestationEndpoint": host,
        },
    })
}

/// The audience that the v2 SDK makes up for the data plane of a cloud whose portal is at `base`: `https://ml.azure.`
/// and the portal's name after its second dot, without slashes.
pub(crate) fn derived_ml_audience(base: &str) -> String {
    let suffix = base.split('.').skip(2).collect::<Vec<_>>().join(".").replace('/', "");
    format!("https://ml.azure.{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_audiences() {
        for (base, audience) in [
            ("https://127.0.0.1:8443", "https://ml.azure.0.1:8443"),
            ("https://localhost:8443", "https://ml.azure."),
            ("https://a.b.example.com", "https://ml.azure.example.com"),
        ] {
            assert_eq!(derived_ml_audience(base), audience);
        }
    }
}
