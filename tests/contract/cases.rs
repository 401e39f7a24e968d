//! The cases. Each is given a world of its own.

pub mod faults;
pub mod values;
pub mod versions;
