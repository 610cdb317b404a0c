//! `account …`.

use casemate_model::Secret;
use serde_json::{Value, json};

use super::Found;
use crate::{
    failure::Failure,
    grammar::{Account, TokenArgs},
    output::Output,
    session::Session,
};

/// Columns of the table.
const COLUMNS: &str =
    "[].{Name:name, CloudName:environmentName, SubscriptionId:id, TenantId:tenantId, State:state, IsDefault:isDefault}";

pub(super) async fn run(command: Account, session: &Session) -> Found {
    match command {
        Account::List { .. } => list(session).await,
        Account::Show => show(session).await.map(Output::from),
        Account::Set { name } => set(session, name).await,
        Account::GetAccessToken(args) => token(&args, session).await,
    }
}

/// The subscriptions as `az` prints them.
pub(super) async fn list(session: &Session) -> Found {
    let all = session.subscriptions().await?;
    let current = session.subscription().await.map(str::to_owned).unwrap_or_default();
    let shown: Value = all.iter().map(|one| subscription(one, &current, session)).collect();
    Ok(Output::Value(shown, Some(COLUMNS)))
}

fn subscription(one: &Value, current: &str, session: &Session) -> Value {
    let text = |key: &str| one.get(key).and_then(Value::as_str);
    let id = text("subscriptionId").unwrap_or_default();
    json!({
        "environmentName": "Casemate",
        "homeTenantId": text("tenantId").unwrap_or(session.tenant()),
        "id": id,
        "isDefault": id.eq_ignore_ascii_case(current),
        "managedByTenants": [],
        "name": text("displayName").unwrap_or(id),
        "state": text("state").unwrap_or("Enabled"),
        "tenantId": text("tenantId").unwrap_or(session.tenant()),
        "user": {"name": session.client_id(), "type": "servicePrincipal"},
    })
}

async fn show(session: &Session) -> Result<Value, Failure> {
    let current = session.subscription().await?.to_owned();
    let all = session.subscriptions().await?;
    let found = all.iter().find(|one| {
        one.get("subscriptionId").and_then(Value::as_str).is_some_and(|id| id.eq_ignore_ascii_case(&current))
    });
    found.map(|one| subscription(one, &current, session)).ok_or_else(|| {
        Failure::not_found(format!("The subscription '{current}' doesn't exist here, or you may not see it."))
    })
}

async fn set(session: &Session, name: Option<String>) -> Found {
    let id = match name {
        Some(name) => session.subscription_by_name(&name).await?,
        // `--subscription` is an option of every command; here it names the one to keep.
        None => session.subscription_by_name(session.subscription().await?).await?,
    };
    let mut settings = session.settings().clone();
    settings.set("account", "subscription", &id)?;
    settings.save()?;
    Ok(Output::Nothing)
}

async fn token(args: &TokenArgs, session: &Session) -> Found {
    if let Some(tenant) = &args.tenant
        && !tenant.eq_ignore_ascii_case(session.tenant())
    {
        return Err(Failure::not_found(format!(
            "The tenant '{tenant}' is not the one you signed in to, which is '{}'.",
            session.tenant()
        )));
    }
    if let Some(kind) = &args.resource_type
        && !kind.eq_ignore_ascii_case("arm")
    {
        return Err(Failure::usage(format!("--resource-type {kind} is not supported by casemate yet; arm is.")));
    }
    let scope = args.scope.as_deref().map(|scope| scope.trim_end_matches("/.default"));
    let base = session.client().base().to_owned();
    // The public names of the management API mean this platform's own.
    let resource = args.resource.as_deref().or(scope).filter(|resource| !resource.contains("management."));
    let resource = resource.filter(|resource| resource.trim_end_matches('/') != base);
    let token = session.client().token(resource).await?;
    let local = token.expires_at.to_zoned(jiff::tz::TimeZone::system());
    let secret: &Secret = &token.secret;
    Ok(json!({
        "accessToken": secret.expose_str().map_err(|_| Failure::here("The token is no text."))?,
        "expiresOn": local.strftime("%Y-%m-%d %H:%M:%S.000000").to_string(),
        "expires_on": token.expires_at.as_second(),
        "subscription": session.subscription().await?,
        "tenant": session.tenant(),
        "tokenType": "Bearer",
    })
    .into())
}
