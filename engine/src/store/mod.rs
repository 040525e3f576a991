//! The only room that speaks SQL.

pub mod commit;
pub mod periods;
pub mod wire;
