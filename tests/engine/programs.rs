//! What real programs live through when their secret is rotated: nginx, PostgreSQL and its client, one by one and under
//! Compose, with the secrets in a real OpenBao.

mod inspected;
mod load;
mod stage;

mod canary;
mod compose;
mod failing;
mod nginx;
mod postgres;
mod rolling;
