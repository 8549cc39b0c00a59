//! Typed proxies.
