//! The way out of a sandbox: whatever the runtime starts with a network has the egress gateway at the other end of it.
//!
//! Nothing else in this room opens a way out. A sandbox that the gateway doesn't serve has none: its connections hang
//! until it is ended.

use std::sync::Arc;

use aws_lc_rs::rand;
use casemate_egress::{Attachment, EgressSockets, Gateway, IdentityToken, InstanceIdentity, Owner};
use casemate_model::{Fault, ResourceId, Secret, egress::EgressPolicy, workspace::WORKSPACE_TYPE};
use casemate_sandbox::Sandbox;
use tokio::sync::watch;

/// Where a process finds tokens of its identity, in the shape of an app service.
pub(crate) const IDENTITY_ENDPOINT: &str = "http://169.254.169.254/msi/token";
/// Random bytes in an instance's identity header.
const HEADER_BYTES: usize = 32;

/// What one sandbox may reach, and as whom.
#[derive(Clone)]
pub(crate) struct Outbound {
    pub gateway: Gateway,
    /// The workspace's resource id: its log gets the decisions.
    pub scope: String,
    /// Who it is in the log: `endpoint/deployment`, or the name of the environment that is built.
    pub deployment: String,
    pub policy: watch::Receiver<Arc<EgressPolicy>>,
    pub identity: Option<Arc<dyn InstanceIdentity>>,
}

impl Outbound {
    /// Puts the gateway at the end of a sandbox's way out, until the attachment is dropped.
    ///
    /// # Errors
    /// Why it can't be; the sandbox must be ended then, since it would wait for answers that never come.
    pub(crate) fn attach(&self, sandbox: &mut Sandbox, instance: String) -> Result<Attachment, String> {
        let sockets = sandbox.take_egress().ok_or("it has no sockets for the egress gateway")?;
        let sockets = EgressSockets { tcp: sockets.tcp, dns: sockets.dns };
        let owner = Owner { scope: self.scope.clone(), deployment: self.deployment.clone(), instance };
        let attached = self.gateway.attach(sockets, owner, self.policy.clone(), self.identity.clone());
        attached.map_err(|error| format!("the egress gateway can't serve it: {error}"))
    }
}

/// The workspace that a deployment's decisions are recorded under: the deployment itself, if it lies in none.
pub(crate) fn scope_of(deployment: &ResourceId) -> String {
    deployment.ancestor(WORKSPACE_TYPE).unwrap_or_else(|| deployment.clone()).as_str().to_owned()
}

/// What the decisions call a deployment: two endpoints may each have one of the same name.
pub(crate) fn shown_deployment(deployment: &ResourceId) -> String {
    let endpoint = deployment.parent();
    endpoint
        .map_or_else(|| deployment.name().to_owned(), |endpoint| format!("{}/{}", endpoint.name(), deployment.name()))
}

/// An identity as one instance has it: tokens are given to who shows the header that it was started with.
pub(crate) struct OwnIdentity {
    identity: Arc<dyn InstanceIdentity>,
    header: Secret,
}

impl OwnIdentity {
    /// With a new random header.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub(crate) fn new(identity: Arc<dyn InstanceIdentity>) -> Result<Self, Fault> {
        let mut bytes = [0; HEADER_BYTES];
        rand::fill(&mut bytes).map_err(|_| Fault::internal("The system gives no random numbers."))?;
        let header: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { identity, header: Secret::from(header) })
    }

    /// The variables that tell a process where its tokens are.
    pub(crate) fn variables(&self) -> [(&'static str, String); 2] {
        let header = self.header.expose_str().unwrap_or_default();
        [("IDENTITY_ENDPOINT", IDENTITY_ENDPOINT.to_owned()), ("IDENTITY_HEADER", header.to_owned())]
    }
}

impl InstanceIdentity for OwnIdentity {
    fn token(&self, resource: &str, client_id: Option<&str>) -> Result<IdentityToken, Fault> {
        self.identity.token(resource, client_id)
    }

    fn header(&self) -> Option<Secret> {
        Some(self.header.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl InstanceIdentity for Nobody {
        fn token(&self, resource: &str, _: Option<&str>) -> Result<IdentityToken, Fault> {
            Err(Fault::invalid("NoIdentity", resource))
        }
    }

    #[test]
    fn every_instance_has_a_header_of_its_own() {
        let one = OwnIdentity::new(Arc::new(Nobody)).unwrap();
        let other = OwnIdentity::new(Arc::new(Nobody)).unwrap();
        let [(_, endpoint), (name, header)] = one.variables();
        assert_eq!((endpoint.as_str(), name, header.len()), (IDENTITY_ENDPOINT, "IDENTITY_HEADER", 64));
        assert_eq!(one.header().unwrap().expose_str().unwrap(), header);
        assert_ne!(other.header().unwrap().expose_str().unwrap(), header);
        assert_eq!(one.token("https://x", None).unwrap_err().message, "https://x");
    }

    #[test]
    fn decisions_belong_to_the_workspace_and_name_the_endpoint() {
        let workspace = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w";
        let deployment = ResourceId::parse(&format!("{workspace}/onlineEndpoints/e/deployments/blue")).unwrap();
        assert_eq!(scope_of(&deployment), workspace);
        assert_eq!(shown_deployment(&deployment), "e/blue");
    }
}
