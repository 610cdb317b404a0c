//! Virtual networks on this machine: their addresses, bridges and private listeners.
