//! What changing a setting is.
