//! Kinglet: offline speech recognition for small ARM devices.
#![forbid(unsafe_code)]
