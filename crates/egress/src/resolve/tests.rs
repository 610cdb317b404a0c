//! Against name servers on loopback, good and bad.
