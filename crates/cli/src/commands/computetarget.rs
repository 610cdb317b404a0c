//! `ml computetarget …`.

use std::{fs, path::Path};

use casemate_model::{Fault, FaultKind};
use casemate_wire::{client::Accepted, entity::add_resource_group};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Found, endpoint};
use crate::{
    failure::Failure,
    grammar::{
        AksAttach, AksCreate, AksUpdate, AttachKind, BalancerArgs, ComputeEnd, ComputeName, ComputeTargetCommand,
        CreateKind, Globals, SslArgs, UpdateKind,
    },
    output::Output,
    progress::Step,
    session::{Session, segment},
    terminal,
};

/// Version of the compute API that is spoken.
const COMPUTE_API: &str = "api-version=2020-02-02";
/// The largest PEM file that is sent, in bytes.
const MAX_PEM: u64 = 1 << 20;

pub(super) async fn run(command: ComputeTargetCommand, session: &Session, globals: &Globals) -> Found {
    match command {
        ComputeTargetCommand::Create(CreateKind::Aks(args)) => create(*args, session, globals).await,
        ComputeTargetCommand::Attach(AttachKind::Aks(args)) => attach(*args, session, globals).await,
        ComputeTargetCommand::Update(UpdateKind::Aks(args)) => update(*args, session, globals).await,
        ComputeTargetCommand::Show(name) => {
            let path = path(session, &name).await?;
            Ok(shown(session.client().get(&format!("{path}?{COMPUTE_API}")).await?).into())
        }
        ComputeTargetCommand::List { scope } => {
            let workspace = session.workspace_id(&scope).await?;
            let all = session.client().list(&format!("{workspace}/computes?{COMPUTE_API}")).await?;
            Ok(shown(Value::Array(all)).into())
        }
        ComputeTargetCommand::Delete(end) => remove(end, "Delete", "Deleting", session, globals).await,
        ComputeTargetCommand::Detach(end) => remove(end, "Detach", "Detaching", session, globals).await,
    }
}

async fn path(session: &Session, compute: &ComputeName) -> Result<String, Failure> {
    Ok(format!("{}/computes/{}", session.workspace_id(&compute.scope).await?, segment(&compute.name)))
}

fn shown(mut arm: Value) -> Value {
    add_resource_group(&mut arm);
    arm
}

async fn create(args: AksCreate, session: &Session, globals: &Globals) -> Found {
    let mut pool = Map::new();
    lay(&mut pool, "agentCount", args.agent_count.map(Value::from));
    lay(&mut pool, "agentVmSize", args.vm_size.clone().map(Value::from));
    lay(&mut pool, "clusterPurpose", args.cluster_purpose.clone().map(Value::from));
    lay(&mut pool, "aksNetworkingConfiguration", networking(&args, session).await?);
    balancer(&mut pool, &args.balancer);
    lay(&mut pool, "sslConfiguration", ssl(&args.ssl)?);
    let mut properties = Map::from_iter([("properties".to_owned(), Value::Object(pool))]);
    lay(&mut properties, "computeLocation", args.location.clone().map(Value::from));
    let path = new_path(session, &args.compute).await?;
    let what = format!("Creating the compute '{}'", args.compute.name);
    write(session, globals, &path, properties, what, args.no_wait.no_wait).await
}

async fn attach(args: AksAttach, session: &Session, globals: &Globals) -> Found {
    let mut pool = Map::new();
    lay(&mut pool, "clusterPurpose", args.cluster_purpose.clone().map(Value::from));
    balancer(&mut pool, &args.balancer);
    lay(&mut pool, "sslConfiguration", ssl(&args.ssl)?);
    let properties = Map::from_iter([
        ("resourceId".to_owned(), Value::from(args.compute_resource_id.as_str())),
        ("properties".to_owned(), Value::Object(pool)),
    ]);
    let path = new_path(session, &args.compute).await?;
    let what = format!("Attaching the compute '{}'", args.compute.name);
    write(session, globals, &path, properties, what, args.no_wait.no_wait).await
}

/// The path of a compute that must not be there yet.
async fn new_path(session: &Session, compute: &ComputeName) -> Result<String, Failure> {
    let path = path(session, compute).await?;
    if !session.client().exists(&format!("{path}?{COMPUTE_API}")).await? {
        return Ok(path);
    }
    let message = format!(
        "There is a compute '{}' already. Change it with `casemate ml computetarget update aks`, or give another name.",
        compute.name
    );
    Err(Fault::new(FaultKind::Conflict, "ComputeExists", message).into())
}

async fn update(args: AksUpdate, session: &Session, globals: &Globals) -> Found {
    let mut wanted = ssl(&args.ssl)?;
    if args.ssl_renew == Some(true) {
        let fields = wanted.get_or_insert_with(|| json!({}));
        fields["renew"] = true.into();
    }
    if args.ssl_disable == Some(true) {
        if wanted.is_some() {
            return Err(Failure::usage("--ssl-disable turns TLS off; leave out the other --ssl options."));
        }
        wanted = Some(json!({"status": "Disabled"}));
    }
    let mut pool = Map::new();
    balancer(&mut pool, &args.balancer);
    lay(&mut pool, "sslConfiguration", wanted);
    if pool.is_empty() {
        return Err(Failure::usage(
            "What shall change? Give --ssl-leaf-domain-label, --ssl-renew, --ssl-cname with --ssl-cert-file and \
             --ssl-key-file, --ssl-disable, or --load-balancer-type.",
        ));
    }
    let path = path(session, &args.compute).await?;
    session.client().get(&format!("{path}?{COMPUTE_API}")).await?;
    let properties = Map::from_iter([("properties".to_owned(), Value::Object(pool))]);
    let what = format!("Updating the compute '{}'", args.compute.name);
    write(session, globals, &path, properties, what, args.no_wait.no_wait).await
}

/// PUT and, unless told otherwise, wait and show; what the owner should know goes to stderr.
async fn write(
    session: &Session,
    globals: &Globals,
    path: &str,
    mut properties: Map<String, Value>,
    what: String,
    no_wait: bool,
) -> Found {
    properties.insert("computeType".to_owned(), "AKS".into());
    let body = json!({"properties": properties});
    let path = format!("{path}?{COMPUTE_API}");
    let arm = match session.client().write(Method::PUT, &path, Some(&body), None).await? {
        Accepted::Running(_) if no_wait => return Ok(Output::Nothing),
        Accepted::Done(arm) => arm,
        Accepted::Running(pending) => {
            let mut step = Step::begin(globals, what);
            session.client().wait(*pending, Default::default(), &mut |elapsed| step.tick(elapsed)).await?
        }
    };
    let warnings = arm.pointer("/properties/casemate/warnings").and_then(Value::as_array);
    for warning in warnings.into_iter().flatten().filter_map(Value::as_str).filter(|_| !globals.only_show_errors) {
        terminal::note(&format!("WARNING: {warning}"));
    }
    Ok(shown(arm).into())
}

async fn remove(end: ComputeEnd, action: &str, doing: &str, session: &Session, globals: &Globals) -> Found {
    let path = path(session, &end.compute).await?;
    session.client().get(&format!("{path}?{COMPUTE_API}")).await?;
    let path = format!("{path}?{COMPUTE_API}&underlyingResourceAction={action}");
    let what = format!("{doing} the compute '{}'", end.compute.name);
    endpoint::delete(session, globals, &path, what, end.no_wait.no_wait).await
}

fn lay(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), value);
    }
}

fn balancer(pool: &mut Map<String, Value>, args: &BalancerArgs) {
    lay(pool, "loadBalancerType", args.load_balancer_type.clone().map(Value::from));
    lay(pool, "loadBalancerSubnet", args.load_balancer_subnet.clone().map(Value::from));
}

/// The TLS configuration that the options ask for; none when there are none. What contradicts what is the platform's to
/// say, but for what can't be sent.
fn ssl(args: &SslArgs) -> Result<Option<Value>, Failure> {
    let mut given = Map::new();
    lay(&mut given, "leafDomainLabel", args.ssl_leaf_domain_label.clone().map(Value::from));
    lay(&mut given, "overwriteExistingDomain", args.ssl_overwrite_domain.map(Value::from));
    lay(&mut given, "cname", args.ssl_cname.clone().map(Value::from));
    for (key, option, file) in
        [("cert", "--ssl-cert-file", &args.ssl_cert_file), ("key", "--ssl-key-file", &args.ssl_key_file)]
    {
        lay(&mut given, key, file.as_deref().map(|file| pem(option, file)).transpose()?.map(Value::from));
    }
    Ok((!given.is_empty()).then_some(Value::Object(given)))
}

/// A PEM file's text.
fn pem(option: &str, file: &Path) -> Result<String, Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::here(format!("The file '{}' given with {option} can't be read: {why}.", file.display()))
    };
    let size = fs::metadata(file).map_err(|error| failed(&error))?.len();
    if size > MAX_PEM {
        return Err(failed(&format!("it has {size} bytes, and PEM files are small")));
    }
    let bytes = fs::read(file).map_err(|error| failed(&error))?;
    String::from_utf8(bytes).map_err(|_| {
        failed(&"it is not text, so it is not PEM; convert it: openssl x509 -inform der -in FILE -out cert.pem")
    })
}

/// The network's options, which come together or not at all.
async fn networking(args: &AksCreate, session: &Session) -> Result<Option<Value>, Failure> {
    let given = [
        &args.vnet_resourcegroup_name,
        &args.vnet_name,
        &args.subnet_name,
        &args.service_cidr,
        &args.dns_service_ip,
        &args.docker_bridge_cidr,
    ];
    if given.iter().all(|one| one.is_none()) {
        return Ok(None);
    }
    let [Some(group), Some(network), Some(subnet), Some(services), Some(dns), Some(bridge)] = given else {
        return Err(Failure::usage(
            "A virtual network needs --vnet-resourcegroup-name, --vnet-name, --subnet-name, --service-cidr, \
             --dns-service-ip and --docker-bridge-cidr together.",
        ));
    };
    let network =
        format!("{}/providers/Microsoft.Network/virtualNetworks/{network}", session.group_id(Some(group)).await?);
    Ok(Some(json!({
        "subnetId": format!("{network}/subnets/{subnet}"),
        "serviceCidr": services,
        "dnsServiceIP": dns,
        "dockerBridgeCidr": bridge,
    })))
}
