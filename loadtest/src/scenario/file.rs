//! A scenario file as it is written.
//!
//! Owns: the names and forms of its fields, and where in the file an error is.
//! Never: fills in a default, or judges fields against each other: `build` does.
//! Bound: `FILE_BYTES_MAX`.
//! Invariant: an unknown field is an error, never ignored.

use std::fmt;
use std::io::Read;
use std::marker::PhantomData;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use toml::Spanned;

use super::accounts::{Accounts, Choice};
use super::amount::Amount;
use super::load::{Ramp, parse_run_time};
use super::task::Task;
use super::think::Think;

/// Far more than the most classes, tasks and stages take.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What `Spanned` adds to a path.
const SPANNED: &str = ".$__serde_spanned_private_value";

/// A whole file; a scenario without one is an empty one.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) seed: Option<u64>,
    pub(super) users: Option<Spanned<u32>>,
    pub(super) spawn_rate: Option<Spanned<u32>>,
    pub(super) rate: Option<Spanned<u64>>,
    pub(super) run_time: Option<Spanned<Text<RunTime>>>,
    #[serde(default)]
    pub(super) defaults: Settings,
    #[serde(default)]
    pub(super) stages: Vec<Spanned<RawStage>>,
    #[serde(default)]
    pub(super) classes: Vec<Spanned<RawClass>>,
}

/// What a class takes from the defaults unless it says so itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    pub(super) accounts: Option<Text<Accounts>>,
    pub(super) choice: Option<Text<Choice>>,
    pub(super) amount: Option<AmountField>,
    pub(super) keys: Option<bool>,
    pub(super) think_time: Option<Text<Think>>,
}

/// Flattened by hand: serde's `flatten` cannot deny unknown fields.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawClass {
    pub(super) name: String,
    pub(super) weight: Option<u32>,
    accounts: Option<Text<Accounts>>,
    choice: Option<Text<Choice>>,
    amount: Option<AmountField>,
    keys: Option<bool>,
    think_time: Option<Text<Think>>,
    pub(super) tasks: Vec<RawTask>,
}

impl RawClass {
    /// The only class of a scenario that names none.
    pub(super) fn of(task: Task) -> Self {
        Self {
            name: "users".to_owned(),
            weight: None,
            accounts: None,
            choice: None,
            amount: None,
            keys: None,
            think_time: None,
            tasks: vec![RawTask {
                task: Text(task),
                name: None,
                weight: None,
            }],
        }
    }

    /// Its own settings, then `forced` above them and `defaults` below.
    pub(super) fn settings(&self, forced: &Settings, defaults: &Settings) -> Settings {
        Settings {
            accounts: first(&forced.accounts, &self.accounts, &defaults.accounts),
            choice: first(&forced.choice, &self.choice, &defaults.choice),
            amount: first(&forced.amount, &self.amount, &defaults.amount),
            keys: first(&forced.keys, &self.keys, &defaults.keys),
            think_time: first(&forced.think_time, &self.think_time, &defaults.think_time),
        }
    }
}

fn first<T: Clone>(forced: &Option<T>, own: &Option<T>, default: &Option<T>) -> Option<T> {
    forced
        .as_ref()
        .or(own.as_ref())
        .or(default.as_ref())
        .cloned()
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTask {
    pub(super) task: Text<Task>,
    pub(super) name: Option<String>,
    pub(super) weight: Option<u32>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStage {
    pub(super) duration: Text<RunTime>,
    pub(super) users: Option<u32>,
    pub(super) rate: Option<u64>,
    pub(super) ramp: Option<Ramp>,
}

/// A value written as text, in the form that its flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Text<T>(pub(super) T);

impl<'de, T: FromStr<Err = String>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(PhantomData))
    }
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: FromStr<Err = String>> Visitor<'_> for TextVisitor<T> {
    type Value = Text<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text in quotes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text<T>, E> {
        text.parse().map(Text).map_err(E::custom)
    }
}

/// More than zero and at most a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunTime(pub(super) Duration);

impl FromStr for RunTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_run_time(text).map(Self)
    }
}

/// Text or a list of texts; a number is refused, because TOML reads it as a float.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AmountField(pub(super) Amount);

impl<'de> Deserialize<'de> for AmountField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AmountVisitor)
    }
}

struct AmountVisitor;

impl<'de> Visitor<'de> for AmountVisitor {
    type Value = AmountField;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an amount in quotes such as \"1.50\" or \"0.01..=9.99\", or a list of them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<AmountField, E> {
        text.parse().map(AmountField).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<AmountField, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = list.next_element::<String>()? {
            texts.push(text);
        }
        Amount::list(texts).map(AmountField).map_err(Error::custom)
    }
}

/// A file that was read, for errors that are found later.
#[derive(Debug)]
pub(super) struct Source {
    name: String,
    text: String,
}

impl Source {
    /// # Errors
    /// Why the file cannot be read.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let name = path.display().to_string();
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
            .map_err(|error| format!("--scenario {name}: {error}"))?;
        if u64::try_from(text.len()).is_ok_and(|bytes| bytes > FILE_BYTES_MAX) {
            return Err(format!(
                "--scenario {name}: expected at most {FILE_BYTES_MAX} bytes"
            ));
        }
        Ok(Self { name, text })
    }

    /// A text that is in no file.
    pub(super) fn of(name: &str, text: &str) -> Self {
        Self {
            name: name.to_owned(),
            text: text.to_owned(),
        }
    }

    /// # Errors
    /// The first thing that is wrong: file, line, field and what was expected.
    pub(super) fn parse(&self) -> Result<Document, String> {
        let whole = 0..0;
        let deserializer = toml::Deserializer::parse(&self.text).map_err(|error| {
            self.error(&error.span().unwrap_or(whole.clone()), "", error.message())
        })?;
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            // `Spanned` shows as a field of its own.
            let path = error.path().to_string().replace(SPANNED, "");
            let field = if path == "." { "" } else { &path };
            let cause = error.inner();
            self.error(&cause.span().unwrap_or(whole), field, cause.message())
        })
    }

    /// `FILE:LINE: FIELD: MESSAGE`.
    pub(super) fn error(&self, at: &Range<usize>, field: &str, message: &str) -> String {
        let before = self.text.get(..at.start).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let field = if field.is_empty() {
            String::new()
        } else {
            format!("{field}: ")
        };
        format!("{}:{line}: {field}{message}", self.name)
    }
}
