//! Room: join.
