//! `loadtest init`: a scenario file to begin with.
//!
//! Owns: the example, which is also the reference of every field.
//! Never: overwrites a file.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::Args;

pub(super) const EXAMPLE: &str = include_str!("example.toml");

#[derive(Clone, Debug, Args)]
pub(crate) struct InitArgs {
    /// Where to write it; an existing file is left alone.
    #[arg(default_value = "scenario.toml")]
    pub(crate) file: PathBuf,
}

/// Writes the example; gives what to say then.
///
/// # Errors
/// Why nothing was written, and the next step.
pub(crate) fn write_example(path: &Path) -> Result<String, String> {
    let name = path.display();
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .and_then(|mut file| file.write_all(EXAMPLE.as_bytes()))
        .map_err(|error| {
            if error.kind() == ErrorKind::AlreadyExists {
                return format!("{name} exists and was left alone: name another file");
            }
            format!("write {name}: {error}")
        })?;
    Ok(format!(
        "wrote {name}; next: loadtest run --scenario {name}\n"
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::scenario::file::Source;
    use crate::scenario::{LoadArgs, Scenario, ScenarioArgs};

    fn parse(text: &str) -> Result<Scenario, String> {
        let source = Source::of("test.toml", text);
        Scenario::from_source(
            Some(&source),
            &ScenarioArgs::default(),
            &LoadArgs::default(),
        )
    }

    #[test]
    fn the_example_parses_and_runs() {
        let scenario = parse(EXAMPLE).unwrap();
        assert_ne!(
            scenario.seed,
            parse(EXAMPLE).unwrap().seed,
            "a second run is no replay"
        );
        assert_eq!(scenario.classes.len(), 2);
        assert!(scenario.task_names().len() >= 7);
    }

    /// A setting that is off is written `#name = value`; prose is `# Prose`.
    #[test]
    fn every_setting_that_is_commented_out_is_valid_too() {
        let lines: Vec<&str> = EXAMPLE.lines().collect();
        let off = |line: &str| line.starts_with('#') && !line.starts_with("# ") && line != "#";
        let alternatives = lines.iter().filter(|line| off(line)).count();
        assert!(alternatives > 5, "{alternatives}");
        let on = |line: &str| match line.strip_prefix('#') {
            Some(setting) if off(line) => setting.to_owned(),
            Some(_) | None => line.to_owned(),
        };
        let all: Vec<String> = lines.iter().map(|line| on(line)).collect();
        // The stages take the place of the rate and run_time above them; with a
        // rate nobody thinks, but a file may say both.
        let stages = all.iter().position(|line| line == "[[stages]]").unwrap();
        let constant = |line: &str| line.starts_with("rate =") || line.starts_with("run_time =");
        let text: Vec<String> = (0..)
            .zip(all)
            .filter(|(at, line)| stages < *at || !constant(line))
            .map(|(_, line)| line)
            .collect();
        let scenario = parse(&text.join("\n")).unwrap();
        let arrivals = scenario.load.arrivals.unwrap();
        assert_eq!(
            (arrivals.level_at(Duration::from_secs(15)), arrivals.peak()),
            (1000, 2000)
        );
        assert_eq!(scenario.load.staff.level_at(Duration::from_secs(1)), 32);
        assert_eq!(scenario.seed, 42);
    }
}
