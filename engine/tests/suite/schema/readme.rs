//! `sql/README.md` says what the migrated schema is.

use std::collections::{BTreeMap, BTreeSet};

use engine::store::verify::CHECKS;

use crate::support;

const README: &str = include_str!("../../../../sql/README.md");

/// Tables of the diagram: each column as `type name`, with ` PK` and ` null`.
fn drawn() -> BTreeMap<String, Vec<String>> {
    let diagram = README
        .split_once("```mermaid")
        .and_then(|(_, rest)| rest.split_once("```"))
        .unwrap()
        .0;
    let mut tables = BTreeMap::new();
    let mut lines = diagram.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_suffix(" {") else {
            continue;
        };
        let columns = lines
            .by_ref()
            .take_while(|line| *line != "}")
            .map(|line| line.replace('"', ""))
            .collect();
        tables.insert(name.to_owned(), columns);
    }
    tables
}

/// The rows of the table under a heading, cells without their backticks.
fn table(heading: &str) -> Vec<Vec<String>> {
    let section = README.split_once(heading).unwrap().1;
    let section = section.split("\n## ").next().unwrap();
    section
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            line.trim_matches('|')
                .split(" | ")
                .map(|cell| cell.trim().replace('`', ""))
                .collect()
        })
        .collect()
}

async fn stored() -> BTreeMap<String, Vec<String>> {
    let database = support::database().await;
    let link = database.connect().await;
    let rows = link
        .client
        .query(
            "SELECT c.relname::text,
                    replace(format_type(a.atttypid, a.atttypmod), 'timestamp with time zone', 'timestamptz')
                    || ' ' || a.attname
                    || CASE WHEN a.attnum = ANY (i.indkey) THEN ' PK' ELSE '' END
                    || CASE WHEN a.attnotnull THEN '' ELSE ' null' END
               FROM pg_class c
               JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
               LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
              WHERE c.relnamespace = 'public'::regnamespace
                AND c.relkind IN ('r', 'p') AND NOT c.relispartition
                AND c.relname <> 'refinery_schema_history'
              ORDER BY c.relname, a.attnum",
            &[],
        )
        .await
        .unwrap();
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows {
        tables.entry(row.get(0)).or_default().push(row.get(1));
    }
    tables
}

#[tokio::test]
async fn the_readme_describes_the_schema() {
    let stored = stored().await;
    assert!(stored.len() >= 8);
    assert_eq!(drawn(), stored);
}

#[tokio::test]
async fn every_reference_of_the_readme_is_held_by_a_key_or_a_check() {
    let database = support::database().await;
    let link = database.connect().await;
    let keys = link
        .client
        .query(
            "SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid)
               FROM pg_constraint WHERE contype = 'f'",
            &[],
        )
        .await
        .unwrap();
    let keys: Vec<String> = keys.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        keys,
        ["accounts FOREIGN KEY (currency_id) REFERENCES currencies(id)"]
    );
    let columns: BTreeSet<String> = stored()
        .await
        .iter()
        .flat_map(|(table, columns)| {
            columns
                .iter()
                .map(move |column| format!("{table}.{}", column.split(' ').nth(1).unwrap()))
        })
        .collect();
    let names: BTreeSet<&str> = CHECKS.iter().map(|check| check.name).collect();
    let references = table("## Foreign keys that are not there");
    for row in &references {
        assert!(columns.contains(&row[0]), "{row:?}");
        assert!(
            names.contains(row[2].as_str()) || row[2].starts_with("none needed"),
            "{row:?}"
        );
    }
    // Every column that holds an id is a key of its own table, named above, or
    // said to name nothing stored.
    let named: BTreeSet<&str> = references.iter().map(|row| row[0].as_str()).collect();
    for column in &columns {
        let is_reference = column.ends_with("_id") || column.ends_with(".reverses");
        let apart = [
            "accounts.currency_id",
            "commits.engine_id",
            "transfers.group_id",
        ];
        assert!(
            !is_reference || named.contains(column.as_str()) || apart.contains(&column.as_str()),
            "{column}"
        );
    }
    for row in table("## Normal form") {
        assert!(names.contains(row[2].as_str()), "{row:?}");
    }
    for name in names {
        assert!(README.contains(&format!("`{name}`")), "{name}");
    }
}

#[tokio::test]
async fn the_readme_says_how_long_each_table_keeps_its_rows() {
    let told: BTreeSet<String> = table("## How long rows are kept")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    let mut tables: BTreeSet<String> = stored().await.into_keys().collect();
    tables.insert("refinery_schema_history".to_owned());
    assert_eq!(told, tables);
}
