//! The egress gateway: the only way out of a sandbox, and what it lets through.
