//! Room: ops.
