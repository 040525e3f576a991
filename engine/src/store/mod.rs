//! The only room that speaks SQL.

pub mod commit;
pub mod link;
pub mod maintain;
pub mod migrate;
pub mod periods;
pub mod pool;
pub mod read;
pub mod route;
pub mod verify;
pub mod wire;
