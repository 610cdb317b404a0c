//! The policy of one deployment and its decisions.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{
    address::{AddressClass, classify, unmapped},
    name::HostName,
    pattern::HostPattern,
    ports::PortRanges,
    prefix::Prefix,
    reason,
};

/// What a workspace's managed network lets out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum IsolationMode {
    /// No isolation: every public TCP destination.
    Disabled,
    /// Every public TCP destination, and what the rules name.
    AllowInternetOutbound,
    /// Only what the rules name.
    #[default]
    AllowOnlyApprovedOutbound,
}

impl IsolationMode {
    /// Reads a mode in any case, with underscores or hyphens or without; nothing for another text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let plain: String =
            text.chars().filter(|c| !matches!(c, '_' | '-')).map(|c| c.to_ascii_lowercase()).take(40).collect();
        match plain.as_str() {
            "disabled" => Some(Self::Disabled),
            "allowinternetoutbound" => Some(Self::AllowInternetOutbound),
            "allowonlyapprovedoutbound" => Some(Self::AllowOnlyApprovedOutbound),
            _ => None,
        }
    }

    /// The mode as YAML files and the command line write it.
    #[must_use]
    pub fn as_snake(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::AllowInternetOutbound => "allow_internet_outbound",
            Self::AllowOnlyApprovedOutbound => "allow_only_approved_outbound",
        }
    }

    /// Whether public destinations need no rule.
    #[must_use]
    pub fn is_open(self) -> bool {
        self != Self::AllowOnlyApprovedOutbound
    }
}

/// What a rule opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Hosts by name; they must lead to public addresses.
    Host(HostPattern),
    /// Addresses, reached without a name. A prefix opens private space only when it lies wholly inside it.
    Addresses(Vec<Prefix>),
    /// Hosts by name that are reached privately, and nowhere else.
    Private {
        /// The names that lead there; may be empty when the destination is an address.
        names: Vec<HostPattern>,
        /// Where they lead.
        to: PrivateDestination,
    },
}

/// Where a private endpoint leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrivateDestination {
    /// The platform's own front door answers for this host.
    FrontDoor,
    /// This address.
    Address(IpAddr),
    /// The host of this name, looked up by the gateway; its addresses may be private.
    Name(HostName),
    /// Nowhere at present; the sentence says why and what to do (a connection not approved, a resource gone).
    Absent(String),
}

/// One outbound rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name, which decisions cite.
    pub name: String,
    /// What it opens.
    pub target: Target,
    /// On which ports.
    pub ports: PortRanges,
    /// Whether it is about TCP at all; the gateway relays nothing else.
    pub protocols_tcp: bool,
}

/// What one deployment may reach. The default is approved destinations only, with no rule: nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EgressPolicy {
    /// The workspace's mode.
    pub mode: IsolationMode,
    /// The deployment's own `egress_public_network_access: disabled`: private destinations only, whatever the mode; it
    /// also outdoes `audit`.
    pub public_disabled: bool,
    /// Learn mode: every public destination is let through, and each decision says what the rules would have done.
    pub audit: bool,
    /// The active rules.
    pub rules: Vec<Rule>,
    /// The host's own addresses: reached only through private rules that name the address, or by the front door.
    pub own_addresses: Vec<IpAddr>,
}

/// What is to happen, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What is to happen.
    pub verdict: Verdict,
    /// The rule that decided, if one did.
    pub rule: Option<String>,
    /// A sentence: why, by which rule, and for a refusal how to approve it.
    pub reason: String,
    /// Learn mode only: let through, although the rules would refuse it.
    pub would_deny: bool,
}

/// Let through by a route, or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Let through.
    Allow(Route),
    /// Refused.
    Deny,
}

/// How to go there, and which final addresses are right ([`EgressPolicy::admit`] checks them).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To the name's addresses, or the address itself: public ones that are not the host's.
    Public,
    /// To addresses within these prefixes.
    PublicOrNamed(Vec<Prefix>),
    /// To where a private rule leads.
    Private(PrivateDestination),
}

/// How a stream's first bytes are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inspection {
    /// A TLS hello whose server name is the approved name.
    Tls,
    /// HTTP requests, each for the approved name.
    Http,
    /// Nothing is read: the rule named the port, or no rule was needed.
    Raw,
}

/// How closely the policy knows a name that it lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breadth {
    /// A rule names exactly this host.
    Exact,
    /// A wildcard covers it: whoever asks chooses the name, so new ones are to be rationed.
    Wildcard,
    /// No rule is needed for it.
    Open,
}

impl EgressPolicy {
    /// What happens to a connection to `port` of the host `name`.
    #[must_use]
    pub fn name(&self, name: &HostName, port: u16) -> Decision {
        self.decide(name, Some(port))
    }

    /// What happens to a question for the addresses of `name`: allowed when some port could be.
    #[must_use]
    pub fn lookup(&self, name: &HostName) -> Decision {
        self.decide(name, None)
    }

    /// Whether some port of `name` could be allowed, so that the name is to have an address in the sandbox.
    #[must_use]
    pub fn resolvable(&self, name: &HostName) -> bool {
        self.lookup(name).is_allowed()
    }

    /// What happens to a connection to `port` of an address that no name was looked up for.
    #[must_use]
    pub fn address(&self, address: IpAddr, port: u16) -> Decision {
        let address = unmapped(address);
        if let Some(decision) = self.private_address(address, port) {
            return decision;
        }
        let class = classify(address);
        let private = matches!(class, AddressClass::Private | AddressClass::Shared);
        if class != AddressClass::Public && !private {
            return deny(None, reason::class(address, class));
        }
        if self.is_own(address) {
            return deny(None, reason::own(address));
        }
        if self.public_disabled {
            return deny(None, reason::public_disabled(&address.to_string()));
        }
        let tagged = self.tagged(address, port, private);
        self.settle(tagged, !private, Some(address)).unwrap_or_else(|why| deny(None, why))
    }

    /// How the first bytes of an allowed connection to `port` of `name` are checked.
    #[must_use]
    pub fn inspection(&self, name: &HostName, port: u16) -> Inspection {
        if (self.mode.is_open() || self.audit) && self.name(name, port).rule.is_none() {
            return Inspection::Raw;
        }
        match port {
            443 => Inspection::Tls,
            80 => Inspection::Http,
            _ => Inspection::Raw,
        }
    }

    /// How closely the policy knows `name`, judged by the closest rule for it.
    #[must_use]
    pub fn breadth(&self, name: &HostName) -> Breadth {
        let patterns = self.rules.iter().filter(|rule| rule.protocols_tcp).flat_map(|rule| match &rule.target {
            Target::Host(pattern) => std::slice::from_ref(pattern),
            Target::Private { names, .. } => names.as_slice(),
            Target::Addresses(_) => &[],
        });
        let mut breadth = Breadth::Open;
        for pattern in patterns.filter(|pattern| pattern.matches(name)) {
            match pattern {
                HostPattern::Exact(_) => return Breadth::Exact,
                HostPattern::Below(_) => breadth = Breadth::Wildcard,
            }
        }
        breadth
    }

    /// Whether `address` is one of the host's.
    #[must_use]
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own_addresses.iter().any(|own| unmapped(*own) == unmapped(address))
    }

    fn decide(&self, name: &HostName, port: Option<u16>) -> Decision {
        if name.is_localhost() {
            return deny(None, reason::localhost(name));
        }
        if let Some(decision) = self.private_name(name, port) {
            return decision;
        }
        if name.is_metadata() {
            return deny(None, reason::metadata(name));
        }
        if self.public_disabled {
            return deny(None, reason::public_disabled(name.as_str()));
        }
        self.settle(self.approved(name, port), true, None).unwrap_or_else(|why| deny(None, why))
    }

    /// Joins what the rules say (the rule that allows, or why none does) with the mode.
    fn settle(
        &self,
        ruled: Result<Approval, String>,
        public: bool,
        address: Option<IpAddr>,
    ) -> Result<Decision, String> {
        let why = match ruled {
            Ok(Approval { rule, route }) => return Ok(allow(route, Some(&rule.name), reason::approved(rule))),
            Err(why) => why,
        };
        if public && self.mode.is_open() {
            return Ok(allow(Route::Public, None, reason::open(self.mode)));
        }
        if self.audit && (public || address.is_none()) {
            return Ok(Decision { would_deny: true, ..allow(Route::Public, None, reason::learned(&why)) });
        }
        Err(why)
    }

    /// What a private rule for `name` says; nothing when there is none. Such a name never goes the public way.
    fn private_name(&self, name: &HostName, port: Option<u16>) -> Option<Decision> {
        let closest = |rule: &Rule| match &rule.target {
            Target::Private { names, .. } if rule.protocols_tcp => {
                names.iter().filter(|pattern| pattern.matches(name)).map(HostPattern::closeness).max()
            }
            _ => None,
        };
        let best = self.rules.iter().filter_map(closest).max()?;
        let rules: Vec<&Rule> = self.rules.iter().filter(|rule| closest(rule) == Some(best)).collect();
        let open = |rule: &&&Rule| port.is_none_or(|port| rule.ports.contains(port));
        // Of two rules for one name the one that leads somewhere decides.
        let rule = rules.iter().filter(open).find(|rule| !is_absent(rule)).or_else(|| rules.iter().find(open));
        Some(match (rule, port) {
            (Some(rule), _) => private(rule, name.as_str()),
            (None, port) => deny(Some(&rules[0].name), reason::private_port(name, port.unwrap_or(0), rules[0])),
        })
    }

    /// What a private rule that leads to `address` says.
    fn private_address(&self, address: IpAddr, port: u16) -> Option<Decision> {
        let rule = self.rules.iter().filter(|rule| rule.protocols_tcp && rule.ports.contains(port)).find(
            |rule| matches!(&rule.target, Target::Private { to: PrivateDestination::Address(to), .. } if unmapped(*to) == address),
        )?;
        Some(private(rule, &address.to_string()))
    }

    fn approved(&self, name: &HostName, port: Option<u16>) -> Result<Approval<'_>, String> {
        let matching: Vec<&Rule> = self
            .rules
            .iter()
            .filter(|rule| matches!(&rule.target, Target::Host(pattern) if pattern.matches(name)))
            .collect();
        let right = matching.iter().filter(|rule| rule.protocols_tcp);
        let closeness = |rule: &&&Rule| match &rule.target {
            Target::Host(pattern) => std::cmp::Reverse(pattern.closeness()),
            _ => std::cmp::Reverse(0),
        };
        match right.filter(|rule| port.is_none_or(|port| rule.ports.contains(port))).min_by_key(closeness) {
            Some(rule) => Ok(Approval { rule, route: Route::Public }),
            None => Err(reason::unapproved_name(self, name, port, &matching)),
        }
    }

    fn tagged(&self, address: IpAddr, port: u16, private: bool) -> Result<Approval<'_>, String> {
        let mut wrong_port = None;
        for rule in &self.rules {
            let Target::Addresses(prefixes) = &rule.target else { continue };
            let fits = |prefix: &&Prefix| prefix.contains(address) && (!private || prefix.is_private());
            let fitting: Vec<Prefix> = prefixes.iter().filter(fits).copied().collect();
            if fitting.is_empty() {
                continue;
            }
            if rule.protocols_tcp && rule.ports.contains(port) {
                return Ok(Approval { rule, route: Route::PublicOrNamed(fitting) });
            }
            wrong_port = wrong_port.or(Some(rule));
        }
        Err(reason::unapproved_address(address, port, private, wrong_port))
    }
}

impl Decision {
    /// Whether it is let through.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self.verdict, Verdict::Allow(_))
    }
}

/// A rule that lets something through, and the way it opens.
struct Approval<'a> {
    rule: &'a Rule,
    route: Route,
}

fn is_absent(rule: &Rule) -> bool {
    matches!(rule.target, Target::Private { to: PrivateDestination::Absent(_), .. })
}

/// What a private rule that opens the port says.
fn private(rule: &Rule, asked: &str) -> Decision {
    let Target::Private { to, .. } = &rule.target else {
        return deny(Some(&rule.name), reason::no_private(rule));
    };
    match to {
        PrivateDestination::Absent(why) => deny(Some(&rule.name), reason::absent(asked, rule, why)),
        PrivateDestination::Address(address) if !may_be_private(*address) => {
            deny(Some(&rule.name), reason::never_private(*address, rule))
        }
        to => allow(Route::Private(to.clone()), Some(&rule.name), reason::private(rule, to)),
    }
}

/// Whether a private rule can lead to this address: any host's, the machine's own included, but no metadata service, no
/// link's neighbour and no group.
pub(super) fn may_be_private(address: IpAddr) -> bool {
    !matches!(
        classify(address),
        AddressClass::Metadata
            | AddressClass::LinkLocal
            | AddressClass::Unspecified
            | AddressClass::Multicast
            | AddressClass::Broadcast
            | AddressClass::Embedded
    )
}

fn allow(route: Route, rule: Option<&String>, reason: String) -> Decision {
    Decision { verdict: Verdict::Allow(route), rule: rule.cloned(), reason, would_deny: false }
}

fn deny(rule: Option<&String>, reason: String) -> Decision {
    Decision { verdict: Verdict::Deny, rule: rule.cloned(), reason, would_deny: false }
}
