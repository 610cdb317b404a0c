//! The few things that are asked of the kernel, over one netlink connection.

use std::{io, net::IpAddr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::{
    AddressMessageBuilder, Error, Handle, LinkBridge, LinkUnspec, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
        link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage},
    },
};
use tokio::task::JoinSet;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: String,
    pub(crate) is_bridge: bool,
    pub(crate) is_up: bool,
    /// The bridge that it is attached to.
    pub(crate) attached_to: Option<u32>,
}

/// What there is on this machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) links: Vec<Link>,
    /// Addresses with their prefix lengths, by interface.
    pub(crate) addresses: Vec<(u32, IpNet)>,
    /// Destinations of routes, by interface.
    pub(crate) routes: Vec<(u32, IpNet)>,
}

impl Seen {
    pub(crate) fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }
}

/// A connection to the kernel.
pub(crate) struct Kernel {
    handle: Handle,
    _connection: JoinSet<()>,
}

impl Kernel {
    pub(crate) fn connect() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        Ok(Self { handle, _connection: tasks })
    }

    /// All interfaces, addresses and routes of the main table.
    pub(crate) async fn look(&self) -> io::Result<Seen> {
        let links: Vec<LinkMessage> = self.handle.link().get().execute().try_collect().await.map_err(plain)?;
        let addresses: Vec<AddressMessage> =
            self.handle.address().get().execute().try_collect().await.map_err(plain)?;
        let mut routes = Vec::new();
        for wanted in [
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        ] {
            let found: Vec<RouteMessage> =
                self.handle.route().get(wanted).execute().try_collect().await.map_err(plain)?;
            routes.extend(found.iter().filter_map(route));
        }
        Ok(Seen {
            links: links.into_iter().map(link).collect(),
            addresses: addresses.iter().filter_map(address).collect(),
            routes,
        })
    }

    /// Makes a bridge; it is down.
    pub(crate) async fn bridge_add(&self, name: &str, alias: &str) -> io::Result<()> {
        self.handle.link().add(LinkBridge::new(name).build()).execute().await.map_err(plain)?;
        let link = self.look().await?.link(name).map(|link| link.index).ok_or(io::ErrorKind::NotFound)?;
        let named = LinkUnspec::new_with_index(link).alias(alias).build();
        self.handle.link().change(named).execute().await.map_err(plain)
    }

    pub(crate) async fn link_up(&self, index: u32) -> io::Result<()> {
        self.handle.link().change(LinkUnspec::new_with_index(index).up().build()).execute().await.map_err(plain)
    }

    pub(crate) async fn link_delete(&self, index: u32) -> io::Result<()> {
        self.handle.link().del(index).execute().await.map_err(plain)
    }

    /// Adds an address, usable at once.
    pub(crate) async fn address_add(&self, index: u32, net: IpNet) -> io::Result<()> {
        let mut request = self.handle.address().add(index, net.addr(), net.prefix_len());
        // Nobody else can have it: no time is lost on asking for duplicates.
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        request.execute().await.map_err(plain)
    }

    pub(crate) async fn address_delete(&self, index: u32, net: IpNet) -> io::Result<()> {
        let message = match net.addr() {
            IpAddr::V4(addr) => AddressMessageBuilder::<std::net::Ipv4Addr>::new().address(addr, net.prefix_len()),
            IpAddr::V6(addr) => {
                let message = AddressMessageBuilder::<std::net::Ipv6Addr>::new().address(addr, net.prefix_len());
                return self.handle.address().del(message.index(index).build()).execute().await.map_err(plain);
            }
        };
        self.handle.address().del(message.index(index).build()).execute().await.map_err(plain)
    }
}

/// The kernel's own number for what went wrong.
fn plain(error: Error) -> io::Error {
    match error {
        Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

fn link(message: LinkMessage) -> Link {
    let is_up = message.header.flags.contains(LinkFlags::Up);
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        alias: String::new(),
        is_bridge: false,
        is_up,
        attached_to: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Controller(index) => link.attached_to = Some(index),
            LinkAttribute::LinkInfo(infos) => link.is_bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge)),
            _ => {}
        }
    }
    link
}

fn address(message: &AddressMessage) -> Option<(u32, IpNet)> {
    let own = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = own.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    Some((message.header.index, IpNet::new(address, message.header.prefix_len).ok()?))
}

fn route(message: &RouteMessage) -> Option<(u32, IpNet)> {
    let (mut to, mut through) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => to = Some(IpAddr::V4(*address)),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => to = Some(IpAddr::V6(*address)),
            RouteAttribute::Oif(index) => through = Some(*index),
            _ => {}
        }
    }
    Some((through?, IpNet::new(to?, message.header.destination_prefix_length).ok()?))
}
