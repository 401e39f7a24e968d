//! `docker dso` before real engines, as people run it.

mod doctor;
mod failing;
mod operating;
mod reaching;
mod started;
mod volumes;
mod world;
