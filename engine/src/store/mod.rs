//! The only room that speaks SQL.

pub mod commit;
pub mod periods;
pub mod wire;
pub mod link;
pub mod maintain;
pub mod migrate;
pub mod verify;
