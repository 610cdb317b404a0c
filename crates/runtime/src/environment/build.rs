//! One build from beginning to end.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Instant,
};

use casemate_model::Fault;
use tokio::sync::watch;

use super::{
    BUILD_TIMEOUT, BUILDER_VERSION, Inner, Order, audience::Audience, default_index, destinations::Destinations,
    failure, install::Installer, resolve::Resolver, session::Session, shelf::Manifest, toolbox::Uv, workshop::Workshop,
};
use crate::outbound::Outbound;

/// Hexadecimal digits of the digest that name a build's sandboxes.
const SHORT: usize = 12;

impl Inner {
    /// Builds an environment and puts it on the shelf. What a failed build has made is removed.
    pub(super) async fn build(&self, order: Order, audience: Arc<Audience>) -> Result<Manifest, Fault> {
        let started = Instant::now();
        let uv = self.cancel.run_until_cancelled(self.toolbox.uv(&order.settings, &self.pythons, &audience)).await;
        let uv = uv.ok_or_else(super::stopped)?;
        let destinations =
            self.cancel.run_until_cancelled(self.destinations(&order, uv.as_ref().ok(), &audience)).await;
        let destinations = destinations.ok_or_else(super::stopped)??;
        let shared_cache = self.state_dir.join("cache/uv");
        std::fs::create_dir_all(&shared_cache).map_err(|error| failure::io("making the package cache", &error))?;
        let draft = self.shelf.begin(&order.digest);
        let draft = draft.map_err(|error| failure::io("making the environment's directory", &error))?;
        let name = format!("environment-{}", &order.digest[..SHORT]);
        let workshop = Workshop {
            launcher: Arc::clone(&self.launcher),
            name: name.clone(),
            audience: Arc::clone(&audience),
            outbound: Outbound {
                gateway: self.gateway.clone(),
                scope: order.scope.clone(),
                deployment: name,
                policy: watch::channel(Arc::new(destinations.policy())).1,
                identity: None,
            },
            on_loopback: destinations.on_loopback(),
            refused: Mutex::new(BTreeSet::new()),
            deadline: tokio::time::Instant::now() + BUILD_TIMEOUT,
            cancel: self.cancel.clone(),
            mounts: Vec::new(),
            env: Vec::new(),
        };
        let venv = self.shelf.venv(&order.digest);
        let mut session = Session {
            workshop,
            draft,
            python: order.python.clone(),
            settings: order.settings.clone(),
            venv,
            shared_cache,
        };
        let built = self.build_in(&mut session, &order, uv).await;
        let shelf = self.shelf.clone();
        let audience_of_end = Arc::clone(&audience);
        let finished = tokio::task::spawn_blocking(move || match built {
            Ok(manifest) => {
                audience_of_end.line("Storing the environment…");
                let stored = shelf.finish(&session.draft, &manifest);
                stored.map(|()| manifest).map_err(|error| failure::io("storing the environment", &error))
            }
            Err(fault) => {
                if let Err(error) = session.draft.discard() {
                    tracing::warn!(%error, "what a failed build left can't be removed");
                }
                Err(fault)
            }
        });
        let result = finished.await.map_err(|_| super::stopped())?;
        match &result {
            Ok(manifest) => {
                let seconds = started.elapsed().as_secs_f64();
                audience
                    .line(&format!("The environment is ready: {} packages in {seconds:.1} s.", manifest.packages.len()))
            }
            Err(fault) => audience.line(&fault.message),
        };
        result
    }

    /// What the build may reach, said in the log.
    ///
    /// # Errors
    /// `ImageBuildFailure` when the conda file names a place that the operator hasn't.
    async fn destinations(&self, order: &Order, uv: Option<&Uv>, audience: &Audience) -> Result<Destinations, Fault> {
        let default = match uv {
            _ if !order.operator.needs_default() => None,
            Some(uv) => default_index::of_uv(&uv.program).await,
            None => default_index::of_pip(&order.python.executable).await,
        };
        let mut destinations = Destinations::configured(&order.operator, default.as_deref());
        destinations.check(&order.plan)?;
        destinations.learn(&order.operator, default.as_deref(), &order.plan, audience).await;
        Ok(destinations)
    }

    async fn build_in(&self, session: &mut Session, order: &Order, uv: Result<Uv, String>) -> Result<Manifest, Fault> {
        let audience = Arc::clone(&session.workshop.audience);
        audience.line(&format!("Building the environment with Python {}…", order.python.full_version()));
        session.prepare(uv.as_ref().ok(), &self.state_dir)?;
        let installer = Installer { session };
        let mut warnings = Vec::new();
        let installer_name = match uv {
            Ok(uv) => {
                let resolution = Resolver { session, plan: &order.plan }.resolve().await?;
                warnings = resolution.warnings;
                installer.create_with_uv().await?;
                installer.install_with_uv(&order.plan, &resolution.packages).await?;
                format!("uv {}", uv.version)
            }
            Err(reason) => {
                audience.line(&format!("uv can't be had ({reason}); using pip."));
                if order.plan.requirements().any(|requirement| requirement.pin) {
                    let warning = "Without uv, packages without a version are taken at their newest, whatever the age of the others.";
                    audience.line(warning);
                    warnings.push(warning.to_owned());
                }
                installer.with_pip(&order.plan).await?;
                "pip".to_owned()
            }
        };
        installer.compile().await?;
        let packages = installer.verify().await?;
        Ok(Manifest {
            digest: order.digest.clone(),
            builder: BUILDER_VERSION,
            installer: installer_name,
            python_version: order.python.full_version(),
            python_executable: order.python.executable.clone(),
            requirements: order.plan.requirements().map(|requirement| audience.masked(&requirement.text)).collect(),
            packages,
            warnings,
        })
    }
}
