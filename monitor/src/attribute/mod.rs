//! Room: attribute.
