//! The last check before a connection leaves: is each address that was found one that the route means?

use std::net::IpAddr;

use super::{
    address::{AddressClass, classify, unmapped},
    policy::{EgressPolicy, PrivateDestination, Route, may_be_private},
};

/// Which of a name's addresses may be dialled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admitted {
    /// Those that may, in the order given, each once; mapped ones as the IPv4 addresses they are.
    pub addresses: Vec<IpAddr>,
    /// Those that may not.
    pub refused: Vec<RefusedAddress>,
}

/// An address that a route does not mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedAddress {
    /// The address.
    pub address: IpAddr,
    /// A sentence that says why, and what to do if it was meant.
    pub reason: String,
}

impl Admitted {
    /// Why nothing may be dialled, for a destination called `asked`; nothing when something may.
    #[must_use]
    pub fn refusal(&self, asked: &str) -> Option<String> {
        if !self.addresses.is_empty() {
            return None;
        }
        Some(match self.refused.first() {
            None => format!("{asked} has no address."),
            Some(first) => format!("{asked} leads to no address that may be reached: {}", first.reason),
        })
    }
}

impl EgressPolicy {
    /// Sorts the addresses that a name resolved to (or the raw address asked for) by whether `route` means them.
    /// A name under somebody else's control can resolve to anything, at any time: each connection asks anew.
    #[must_use]
    pub fn admit(&self, route: &Route, addresses: &[IpAddr]) -> Admitted {
        let mut admitted = Admitted::default();
        for address in addresses.iter().copied().map(unmapped) {
            match self.refusal(route, address) {
                Some(reason) if admitted.refused.iter().all(|refused| refused.address != address) => {
                    admitted.refused.push(RefusedAddress { address, reason });
                }
                None if !admitted.addresses.contains(&address) => admitted.addresses.push(address),
                _ => {}
            }
        }
        admitted
    }

    fn refusal(&self, route: &Route, address: IpAddr) -> Option<String> {
        let class = classify(address);
        let kind = class.describe();
        let private = matches!(class, AddressClass::Private | AddressClass::Shared);
        match route {
            Route::Public | Route::PublicOrNamed(_) if self.is_own(address) => Some(format!(
                "{address} is an address of the machine that runs the platform, which needs a private rule."
            )),
            Route::Public if private => Some(format!(
                "{address} is {kind}, which a rule for a name does not open. If it is meant, make a private endpoint \
                 rule for the host."
            )),
            Route::Public if class != AddressClass::Public => {
                Some(format!("{address} is {kind}, and no rule for a name opens that."))
            }
            Route::PublicOrNamed(prefixes) => {
                let inside =
                    prefixes.iter().any(|prefix| prefix.contains(address) && (!private || prefix.is_private()));
                match class {
                    _ if !inside => Some(format!("{address} lies outside the prefixes of the rule.")),
                    AddressClass::Public | AddressClass::Private | AddressClass::Shared => None,
                    _ => Some(format!("{address} is {kind}, and no service tag opens that.")),
                }
            }
            Route::Private(PrivateDestination::Address(to)) => {
                match unmapped(*to) == address && may_be_private(address) {
                    true => None,
                    false => Some(format!("The private rule leads to {to}, not to {address}.")),
                }
            }
            // Whoever answers for the name chooses the address: the machine itself takes a rule that says so.
            Route::Private(PrivateDestination::Name(_)) if self.is_own(address) => Some(format!(
                "{address} is an address of the machine that runs the platform, where no name leads. If it is meant, \
                 register the private link service with that address."
            )),
            Route::Private(PrivateDestination::Name(_)) => {
                match may_be_private(address) && class != AddressClass::Loopback {
                    true => None,
                    false => Some(format!(
                        "{address} is {kind}, where no name leads. If it is meant, make the private rule for the address."
                    )),
                }
            }
            Route::Private(PrivateDestination::Absent(why)) => Some(why.clone()),
            // The gateway dials the address it was given for the front door, not one that a name resolved to.
            Route::Public | Route::Private(PrivateDestination::FrontDoor) => None,
        }
    }
}
