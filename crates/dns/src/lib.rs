//! The platform's DNS server: each client gets the answers of the network it asks from.
