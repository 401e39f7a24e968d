//! Azure as far as dso sees it: a directory that gives tokens, the places where a host asks for one, and Key Vaults.
//!
//! Written from what Microsoft publishes: the REST reference of Key Vault's secrets (2025-07-01) with its pages on errors,
//! throttling and "Authentication, requests and responses"; "How to use managed identities … to acquire an access token";
//! "App Service … connect to Azure services from app code"; "client credentials flow" and "certificate credentials" of the
//! identity platform. They refuse what Azure refuses.

pub mod directory;
pub mod entra;
pub mod identity;
pub mod served;
pub mod tls;
pub mod vault;
