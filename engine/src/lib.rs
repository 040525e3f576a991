//! A transaction engine: transfers over HTTP, committed in batches to PostgreSQL.
//!
//! A transfer travels one way: [`http`] -> [`admission`] -> [`lock_queue`] ->
//! [`batch`] -> [`store`] -> [`cache`] -> reply. [`domain`] is used by all and
//! uses nothing.
#![forbid(unsafe_code)]

pub mod admin;
pub mod admission;
pub mod app;
pub mod batch;
pub mod cache;
pub mod client;
pub mod clock;
pub mod config;
pub mod dev;
pub mod domain;
pub mod entropy;
pub mod http;
pub mod lock_queue;
mod plant;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod store;
pub mod supervisor;
pub mod telemetry;
