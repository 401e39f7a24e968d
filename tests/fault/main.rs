//! The fault walk: a volume's whole life over real mounts, in which the first call at an edge fails, then the second,
//! until a life has fewer calls than that. Each test has a mount namespace of its own; it needs root.

#[path = "../projection/world.rs"]
#[allow(dead_code, reason = "the projection's tests use the rest of it")]
mod world;

mod edges;
mod life;
mod walk;
