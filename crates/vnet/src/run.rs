//! The loop: looks at what is wanted and what is there, and makes one into the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use casemate_model::{Fault, ResourceId, network::NetworkSnapshot};
use ipnet::IpNet;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Published, Status, fault,
    firewall::{self, Open},
    kernel::{Kernel, Link, Seen},
    ledger::{Entry, Ledger},
    listen::{self, Listeners},
    plan::{Device, Plan, plans},
    sysctl,
};

/// How often everything is looked at, whatever happens.
const ROUND: Duration = Duration::from_secs(5);
/// Where what was added is written down, in the state directory.
const LEDGER: &str = "networks.txt";
/// What a bridge's alias starts with; the network's id follows.
const ALIAS: &str = "casemate ";

struct Room {
    config: Config,
    published: Published,
    listeners: Listeners,
    ledger: Ledger,
    kernel: Option<Kernel>,
    /// What is open at each bridge, with the bridge's number: one that is made anew has no rules.
    open: BTreeMap<String, (u32, Open)>,
}

pub(crate) async fn run(
    config: Config,
    mut snapshot: watch::Receiver<Arc<NetworkSnapshot>>,
    published: Published,
    shutdown: CancellationToken,
) {
    let ledger = loop {
        match Ledger::open(config.state_dir.join(LEDGER)) {
            Ok(ledger) => break ledger,
            Err(error) => tracing::error!(%error, "no virtual network is made until this is mended"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(ROUND) => {}
        }
    };
    let mut room =
        Room { config, published, listeners: Listeners::default(), ledger, kernel: None, open: BTreeMap::new() };
    loop {
        let wanted = Arc::clone(&snapshot.borrow_and_update());
        room.round(&wanted).await;
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(ROUND) => {}
            changed = snapshot.changed() => if changed.is_err() { break },
        }
    }
    room.leave().await;
}

impl Room {
    async fn round(&mut self, snapshot: &NetworkSnapshot) {
        let plans = plans(snapshot);
        let mut status = Status::new();
        let mut real = Vec::new();
        let seen = match self.look(&plans).await {
            Ok(seen) => self.sweep(&plans, seen).await,
            Err(fault) => {
                for plan in plans.iter().filter(|plan| plan.device != Device::Loopback) {
                    status.insert(plan.id.clone(), Some(fault.clone()));
                }
                Seen::default()
            }
        };
        for plan in &plans {
            if !status.contains_key(&plan.id) {
                let made = self.make(plan, &seen).await;
                status.insert(plan.id.clone(), made.err());
            }
            if status.get(&plan.id).is_some_and(Option::is_none) {
                real.push(plan);
            }
        }
        let opened = self.open(&real);
        status.extend(opened);
        for endpoint in &snapshot.endpoints {
            let network = status.get(&endpoint.network).cloned();
            status.entry(endpoint.id.clone()).or_insert_with(|| match network {
                None => Some(fault::no_network(endpoint.network.name())),
                Some(failed) => failed.map(|cause| fault::in_failed(endpoint.network.name(), &cause)),
            });
        }
        self.publish(status);
    }

    /// What is there; nothing is asked while nobody wants or ever wanted more than loopback networks.
    async fn look(&mut self, plans: &[Plan]) -> Result<Seen, Fault> {
        if self.ledger.is_empty() && plans.iter().all(|plan| plan.device == Device::Loopback) {
            self.kernel = None;
            return Ok(Seen::default());
        }
        let failed = |error| fault::kernel("look at this machine's interfaces", &error);
        let kernel = match self.kernel.take() {
            Some(kernel) => kernel,
            None => Kernel::connect().map_err(failed)?,
        };
        let seen = kernel.look().await.map_err(failed)?;
        self.kernel = Some(kernel);
        Ok(seen)
    }

    /// Takes away what was added and is not wanted any more; gives what is left. Listeners close first.
    async fn sweep(&mut self, plans: &[Plan], seen: Seen) -> Seen {
        let gone = unwanted(&self.ledger, plans);
        if gone.is_empty() {
            return seen;
        }
        let leaving = gone.iter().filter_map(|entry| match entry {
            Entry::Address { net, .. } => Some(net.addr()),
            Entry::Bridge(_) => None,
        });
        if self.listeners.close(&leaving.collect::<Vec<_>>()) {
            self.published.listeners.send_replace(Arc::new(self.listeners.all()));
        }
        for entry in &gone {
            match self.remove(entry, &seen).await {
                Ok(()) => {
                    if let Err(error) = self.ledger.forget(entry) {
                        tracing::error!(%error, "what was taken away can't be written down");
                    }
                }
                Err(error) => tracing::error!(%error, %entry, "what the platform added can't be taken away"),
            }
        }
        match &self.kernel {
            Some(kernel) => kernel.look().await.unwrap_or(seen),
            None => seen,
        }
    }

    async fn remove(&self, entry: &Entry, seen: &Seen) -> std::io::Result<()> {
        let Some(kernel) = &self.kernel else { return Err(std::io::ErrorKind::NotConnected.into()) };
        match entry {
            Entry::Address { device, net } => {
                let Some(link) = seen.link(device) else { return Ok(()) };
                if !seen.addresses.contains(&(link.index, *net)) {
                    return Ok(());
                }
                kernel.address_delete(link.index, *net).await
            }
            Entry::Bridge(name) => {
                firewall::forget(name)?;
                let Some(link) = seen.link(name).filter(|link| link.is_bridge) else { return Ok(()) };
                kernel.link_delete(link.index).await
            }
        }
    }

    /// Makes one network real.
    async fn make(&mut self, plan: &Plan, seen: &Seen) -> Result<(), Fault> {
        let link = match &plan.device {
            Device::Loopback => return Ok(()),
            Device::Existing(device) => {
                let link = seen.link(device).filter(|link| link.is_up);
                link.cloned().ok_or_else(|| fault::no_interface(device))?
            }
            Device::Bridge(bridge) => {
                check_overlap(plan, bridge, seen)?;
                self.bridge(plan, bridge, seen).await?
            }
        };
        for wanted in &plan.addresses {
            self.address(&link, *wanted, seen).await?;
        }
        Ok(())
    }

    /// The bridge of a network, confined and up.
    async fn bridge(&mut self, plan: &Plan, name: &str, seen: &Seen) -> Result<Link, Fault> {
        let alias = format!("{ALIAS}{}", plan.id);
        let entry = Entry::Bridge(name.to_owned());
        let is_own = self.ledger.holds(&entry);
        let failed = |error| fault::kernel(&format!("make the bridge '{name}'"), &error);
        let link = match seen.link(name) {
            Some(link) if link.is_bridge && (is_own || link.alias == alias) => {
                self.ledger.note(entry).map_err(failed)?;
                link.clone()
            }
            Some(_) => return Err(fault::name_taken(name)),
            None => {
                self.ledger.note(entry).map_err(failed)?;
                let kernel = self.kernel()?;
                kernel.bridge_add(name, &alias).await.map_err(failed)?;
                let found = kernel.look().await.map_err(failed)?;
                found.link(name).cloned().ok_or_else(|| fault::no_interface(name))?
            }
        };
        if !sysctl::confine(name) {
            return Err(fault::forwards(name));
        }
        self.confine(plan, &link)?;
        if !link.is_up {
            self.kernel()?.link_up(link.index).await.map_err(failed)?;
        }
        Ok(link)
    }

    /// Lets members of a bridge reach what is meant for them, and nothing else of this machine.
    fn confine(&mut self, plan: &Plan, link: &Link) -> Result<(), Fault> {
        let endpoints = plan.endpoints.iter().map(|endpoint| endpoint.address).collect();
        let ports = vec![self.config.front_door.port(), listen::HTTPS];
        let dns = plan.dns.map(|address| (address, self.config.dns_port));
        let wanted = (link.index, Open::new(&plan.addresses, endpoints, ports, dns));
        if self.open.get(&link.name) != Some(&wanted) {
            firewall::close(&link.name, &wanted.1).map_err(|error| fault::not_closed(&link.name, &error))?;
            self.open.insert(link.name.clone(), wanted);
        }
        Ok(())
    }

    async fn address(&mut self, link: &Link, net: IpNet, seen: &Seen) -> Result<(), Fault> {
        // What somebody else put there is used, and left there.
        let known = seen.addresses.iter().any(|(index, known)| *index == link.index && known.addr() == net.addr());
        if known {
            return Ok(());
        }
        let failed = |error| fault::kernel(&format!("add the address {net} to the interface '{}'", link.name), &error);
        self.ledger.note(Entry::Address { device: link.name.clone(), net }).map_err(failed)?;
        match self.kernel()?.address_add(link.index, net).await {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(failed(error)),
            _ => Ok(()),
        }
    }

    fn kernel(&self) -> Result<&Kernel, Fault> {
        let lost = || fault::kernel("reach the kernel", &std::io::ErrorKind::NotConnected.into());
        self.kernel.as_ref().ok_or_else(lost)
    }

    /// Opens the listeners of the networks that are real and closes all others.
    fn open(&mut self, real: &[&Plan]) -> Vec<(ResourceId, Option<Fault>)> {
        let mut round = self.listeners.round(self.config.front_door);
        let mut opened = Vec::new();
        for plan in real {
            let callers = listen::callers(&plan.prefixes, plan.device == Device::Loopback);
            for endpoint in &plan.endpoints {
                opened.push((endpoint.id.clone(), round.open(endpoint, &callers).err()));
            }
        }
        opened
    }

    /// Publishes what changed.
    fn publish(&self, status: Status) {
        let listeners = self.listeners.all();
        self.published.listeners.send_if_modified(|last| {
            let same =
                last.len() == listeners.len() && last.iter().zip(&listeners).all(|(one, two)| Arc::ptr_eq(one, two));
            if !same {
                *last = Arc::new(listeners);
            }
            !same
        });
        self.published.status.send_if_modified(|last| {
            let changed = **last != status;
            if changed {
                for (id, fault) in status.iter().filter(|(id, fault)| last.get(*id) != Some(*fault)) {
                    match fault {
                        Some(fault) => tracing::warn!(%id, %fault, "not there"),
                        None => tracing::info!(%id, "there"),
                    }
                }
                *last = Arc::new(status);
            }
            changed
        });
    }

    /// The end: listeners close, and what nobody is attached to goes.
    async fn leave(&mut self) {
        self.open(&[]);
        self.published.listeners.send_replace(Arc::default());
        let Ok(seen) = self.look(&[]).await else { return };
        let used: BTreeSet<u32> = seen.links.iter().filter_map(|link| link.attached_to).collect();
        let stays = |device: &str| seen.link(device).is_some_and(|link| link.is_bridge && used.contains(&link.index));
        let entries: Vec<Entry> = self.ledger.entries().cloned().collect();
        for entry in entries {
            let (Entry::Address { device, .. } | Entry::Bridge(device)) = &entry;
            if stays(device) && self.ledger.holds(&Entry::Bridge(device.clone())) {
                continue;
            }
            let removed = self.remove(&entry, &seen).await;
            if let Err(error) = removed.and_then(|()| self.ledger.forget(&entry)) {
                tracing::warn!(%error, %entry, "what the platform added can't be taken away; the next start does it");
            }
        }
    }
}

/// What was added and nobody wants any more: addresses before the bridges they are on.
fn unwanted(ledger: &Ledger, plans: &[Plan]) -> Vec<Entry> {
    let wanted = |entry: &Entry| {
        plans.iter().any(|plan| match entry {
            Entry::Bridge(name) => plan.device == Device::Bridge(name.clone()),
            Entry::Address { device, net } => plan.device.name() == Some(device) && plan.addresses.contains(net),
        })
    };
    ledger.entries().filter(|entry| !wanted(entry)).cloned().collect()
}

/// A managed network must not take addresses away that this machine reaches elsewhere.
fn check_overlap(plan: &Plan, bridge: &str, seen: &Seen) -> Result<(), Fault> {
    let others = seen.links.iter().filter(|link| link.name != bridge && link.name != "lo");
    for link in others {
        let of_link = |nets: &[(u32, IpNet)]| -> Vec<IpNet> {
            nets.iter()
                .filter(|(index, net)| *index == link.index && net.prefix_len() > 0)
                .map(|(_, net)| *net)
                .collect()
        };
        for net in of_link(&seen.addresses).into_iter().chain(of_link(&seen.routes)) {
            let net = net.trunc();
            let hit = plan.prefixes.iter().find(|prefix| prefix.contains(&net) || net.contains(*prefix));
            if let Some(prefix) = hit {
                return Err(fault::overlaps(*prefix, net, &link.name));
            }
        }
    }
    Ok(())
}
