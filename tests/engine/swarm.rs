//! Swarm: secrets by driver, volumes in services, and the rotation of services, on real managers.

mod cluster;
mod rotating;
mod serving;
