//! AWS as far as dso uses it: moto behind a gate that checks what moto does not, and what gives a host its identity.

pub mod gate;
pub mod identity;
pub mod moto;
pub mod served;
pub mod sigv4;
