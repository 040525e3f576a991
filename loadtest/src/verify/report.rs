//! What a verification prints and writes.
//!
//! Owns: the table and the JSON document (its `version` grows when a field
//! changes its meaning or goes).
//! Never: hides a number that is bad.

use std::path::PathBuf;

use serde::Serialize;

use super::Verdict;
use super::args::{Plan, Sharing};
use super::findings::{Example, Findings, Unanswered};
use crate::journal::{Closing, Header};
use crate::report::print;

const DOCUMENT_VERSION: u32 = 1;
/// Examples on the terminal; the document has all that were kept.
const EXAMPLES_SHOWN: usize = 5;

#[derive(Debug, Serialize)]
struct Document<'a> {
    version: u32,
    verdict: &'static str,
    asked: &'static str,
    journal: Journal<'a>,
    acknowledged: u64,
    acknowledged_replayed: u64,
    acknowledged_unknowable: u64,
    found_exactly_once: u64,
    missing: u64,
    doubled: u64,
    /// Null if nobody could be asked: that takes the database.
    doubled_without_key: Option<u64>,
    wrong_amount_or_accounts: u64,
    /// Acknowledged with a key that does not lead to it.
    keys_not_kept: u64,
    rejected: u64,
    rejections_not_kept: u64,
    refused: u64,
    refused_applied_by_earlier_run: u64,
    rejected_but_applied: u64,
    unanswered: Unanswered,
    currencies_out_of_balance: Vec<Unbalanced<'a>>,
    overdrafts: u64,
    balances_wrong: Option<u64>,
    answers_shared: Option<u64>,
    examples: &'a [Example],
}

#[derive(Debug, Serialize)]
struct Journal<'a> {
    file: String,
    #[serde(flatten)]
    header: &'a Header,
    transfers: u64,
    /// Without its end: what was sent in the last second is not in it.
    ends_early: bool,
    cut_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Unbalanced<'a> {
    currency: &'a str,
    sum: &'a str,
}

/// Prints the table and writes the document, if one is wanted.
pub(super) fn write(plan: &Plan, header: &Header, findings: &Findings) -> std::io::Result<()> {
    if let Some(path) = &plan.json {
        let mut text = serde_json::to_string_pretty(&document(plan, header, findings))?;
        text.push('\n');
        std::fs::write(path, text)?;
    }
    print(&table(plan, header, findings))
}

fn document<'a>(plan: &Plan, header: &'a Header, findings: &'a Findings) -> Document<'a> {
    let rows = findings.books.rows;
    let unbalanced = findings.books.unbalanced.iter();
    Document {
        version: DOCUMENT_VERSION,
        verdict: match findings.verdict(plan.sharing) {
            Verdict::Kept => "kept",
            Verdict::Broken => "broken",
        },
        asked: asked(plan),
        journal: Journal {
            file: names(&plan.journals),
            header,
            transfers: findings.transfers,
            ends_early: findings.closing == Closing::CutShort,
            cut_bytes: findings.cut_bytes,
        },
        acknowledged: findings.acknowledged,
        acknowledged_replayed: findings.acknowledged_replayed,
        acknowledged_unknowable: findings.acknowledged_unknowable,
        found_exactly_once: findings.found_once,
        missing: findings.missing,
        doubled: findings.doubled,
        doubled_without_key: findings.unexplained(),
        wrong_amount_or_accounts: findings.wrong,
        keys_not_kept: findings.keys_lost,
        rejected: findings.rejected,
        rejections_not_kept: findings.rejections_missing,
        refused: findings.refused,
        refused_applied_by_earlier_run: findings.refused_applied_before,
        rejected_but_applied: findings.rejected_applied,
        unanswered: findings.unanswered,
        currencies_out_of_balance: unbalanced
            .map(|(currency, sum)| Unbalanced { currency, sum })
            .collect(),
        overdrafts: findings.books.overdrafts,
        balances_wrong: rows.map(|rows| rows.balances_wrong),
        answers_shared: rows.map(|rows| rows.answers_shared),
        examples: &findings.examples,
    }
}

fn asked(plan: &Plan) -> &'static str {
    if plan.database.is_some() {
        "database"
    } else {
        "engine"
    }
}

/// Name, number and note.
type Line = (String, String, String);

fn line(name: &str, count: u64, note: impl Into<String>) -> Line {
    (name.to_owned(), count.to_string(), note.into())
}

fn names(journals: &[PathBuf]) -> String {
    let names = journals.iter().map(|path| path.display().to_string());
    names.collect::<Vec<_>>().join(", ")
}

fn table(plan: &Plan, header: &Header, findings: &Findings) -> String {
    let asked = format!("seed {}, asked the {}", header.seed, asked(plan));
    let mut lines = vec![line("transfers in the journal", findings.transfers, asked)];
    if findings.closing == Closing::CutShort {
        let note = "killed, or still running: its last second is missing".to_owned();
        lines.push(("journal without an end".to_owned(), String::new(), note));
    }
    lines.extend(answered_lines(findings));
    lines.extend(unanswered_lines(&findings.unanswered));
    for (name, count) in findings.bad(plan.sharing) {
        lines.push(match count {
            Some(0) => line(name, 0, ""),
            Some(count) => line(name, count, "BAD"),
            None => {
                let note = "takes --database-url".to_owned();
                (name.to_owned(), "not asked".to_owned(), note)
            }
        });
    }
    if !findings.can_explain(plan.sharing)
        && let Some(count) = findings.unexplained()
    {
        let note = match plan.sharing {
            Sharing::Shared => "others used these accounts",
            Sharing::Alone => "the journal's last second is missing",
        };
        lines.push(line("unexplained transfers", count, note));
    }
    let mut text = String::new();
    for (name, count, note) in lines {
        let line = format!("{name:<34} {count:>14}  {note}");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for (currency, sum) in &findings.books.unbalanced {
        text.push_str(&format!("{currency}: all balances together are {sum}\n"));
    }
    let lost = findings.keys_lost + findings.rejections_missing;
    if lost > 0 && lost == findings.found_once + findings.rejected {
        let hint = "No key leads to its answer: is the principal the run's, and are the keys not \
                    past their retention?\n";
        text.push_str(hint);
    }
    for example in findings.examples.iter().take(EXAMPLES_SHOWN) {
        text.push_str(&example_line(example));
    }
    text.push_str(match (findings.verdict(plan.sharing), plan.database.is_some()) {
        (Verdict::Kept, true) => "Every promise was kept.\n",
        (Verdict::Kept, false) => {
            "Every promise was kept, as far as the engine can tell; --database-url asks the ledger.\n"
        }
        (Verdict::Broken, _) => "PROMISES WERE BROKEN.\n",
    });
    text
}

fn answered_lines(findings: &Findings) -> Vec<Line> {
    let before = findings.refused_applied_before;
    let unknowable = findings.acknowledged_unknowable;
    let lines = [
        (
            "torn tail, bytes cut",
            findings.cut_bytes,
            "killed while writing",
        ),
        ("acknowledged", findings.acknowledged, ""),
        ("  of these replayed", findings.acknowledged_replayed, ""),
        ("  neither key nor id", unknowable, "nobody can ask"),
        ("found exactly once", findings.found_once, ""),
        ("rejected", findings.rejected, "for a business reason"),
        ("refused", findings.refused, "certainly not applied"),
        ("  applied by an earlier run", before, "with the same seed"),
    ];
    let optional = [
        "torn tail, bytes cut",
        "  neither key nor id",
        "  applied by an earlier run",
    ];
    lines
        .into_iter()
        .filter(|(name, count, _)| *count > 0 || !optional.contains(name))
        .map(|(name, count, note)| line(name, count, note))
        .collect()
}

fn unanswered_lines(unanswered: &Unanswered) -> Vec<Line> {
    let why = [
        ("connection broke", unanswered.io),
        ("timeout", unanswered.timeout),
        ("no HTTP", unanswered.protocol),
        ("not sent again", unanswered.given_up),
        ("in flight at the end", unanswered.in_flight),
        ("unknown outcome", unanswered.unknown),
    ];
    let why = why.iter().filter(|(_, count)| *count > 0);
    let why: Vec<_> = why.map(|(name, count)| format!("{name} {count}")).collect();
    let mut lines = vec![line("unanswered", unanswered.total, why.join(", "))];
    if unanswered.total > 0 {
        lines.extend([
            line("  applied", unanswered.applied, ""),
            line("  rejected", unanswered.rejected, ""),
            line("  never arrived", unanswered.never_arrived, ""),
            line("  without a key", unanswered.unknowable, "nobody can ask"),
        ]);
    }
    lines
}

fn example_line(example: &Example) -> String {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    let found = if example.found.is_empty() {
        "nothing".to_owned()
    } else {
        example.found.join("; ")
    };
    let (key, id) = (or_none(&example.key), or_none(&example.txn_id));
    format!(
        "{}: key {key}, txn_id {id}: asked {}, found {found}\n",
        example.problem, example.asked
    )
}
