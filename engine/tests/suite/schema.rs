//! The schema: migrations, partitions, checks, roles, and its description.

use engine::store::migrate;

use crate::support;

#[tokio::test]
async fn a_fresh_database_has_this_engines_schema() {
    let database = support::database().await;
    let link = database.connect().await;
    migrate::check_schema(&link.client).await.unwrap();
}
