//! Certificates from any ACME certificate authority (RFC 8555).
