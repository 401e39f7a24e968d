//! What the loop keeps equal on a real engine: containers that wait for a provider, changes that come too fast, many volumes.

mod boot;
mod cuts;
mod engine_dies;
mod load;
mod storm;
mod walk;
