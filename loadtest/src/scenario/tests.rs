use std::time::Duration;

use super::*;
use crate::stages::Stages;

fn flags(line: &str) -> ScenarioArgs {
    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: ScenarioArgs,
    }
    let words = std::iter::once("x").chain(line.split_whitespace());
    <Line as clap::Parser>::parse_from(words).args
}

#[track_caller]
fn good(text: &str) -> Scenario {
    scenario(text, &ScenarioArgs::default()).unwrap()
}

#[track_caller]
fn check_refused(text: &str, parts: &[&str]) {
    let message = scenario(text, &ScenarioArgs::default()).unwrap_err();
    for part in parts {
        assert!(message.contains(part), "no {part:?} in {message:?}");
    }
}

fn loaded(text: &str, args: &LoadArgs) -> Result<Load, String> {
    let source = file::Source::of("test.toml", text);
    let none = ScenarioArgs::default();
    Scenario::from_source(Some(&source), &none, args).map(|scenario| scenario.load)
}

const CLASS: &str = "[[classes]]\nname = \"a\"\n[[classes.tasks]]\ntask = \"transfer\"\n";

#[test]
fn flags_equal_the_equivalent_file() {
    let file = r#"
        seed = 5
        [defaults]
        accounts = "3..=90"
        choice = "hot:0.25:1"
        amount = "0.50..=2"
        keys = false
        [[classes]]
        name = "users"
        tasks = [{ task = "batch:20" }]
    "#;
    let line = "--seed 5 --accounts 3..=90 --hot 0.25 --amount 0.50..=2 --keys off --task batch:20";
    let none = &LoadArgs::default();
    assert_eq!(Scenario::new(&flags(line), none).unwrap(), good(file));
    let line = line.replace("--hot 0.25", "--choice hot:0.25:1");
    assert_eq!(Scenario::new(&flags(&line), none).unwrap(), good(file));
    let plain = "seed = 1\n[[classes]]\nname = \"users\"\ntasks = [{ task = \"transfer\" }]";
    assert_eq!(
        Scenario::new(&flags("--seed 1"), none).unwrap(),
        good(plain)
    );
    assert_eq!(good("seed = 1"), good(plain), "an empty file is no file");
}

#[test]
fn a_flag_overrides_the_file_in_every_class() {
    let file = r#"
        seed = 1
        users = 9
        rate = 100
        run_time = "1m"
        [defaults]
        amount = "1"
        [[classes]]
        name = "a"
        accounts = "1..=10"
        choice = "ring"
        amount = "7"
        tasks = [{ task = "transfer" }]
        [[classes]]
        name = "b"
        keys = false
        tasks = [{ task = "transfer" }]
    "#;
    let plain = good(file);
    assert_eq!(plain.each(|class| class.amount.clone()), "7, 1");
    assert_eq!(
        plain.each(|class| class.population),
        "1..=10 ring, 1..=1000"
    );
    assert_eq!(plain.task_names(), ["a/transfer", "b/transfer"]);
    let minute = Duration::from_secs(60);
    assert_eq!(plain.load.arrivals, Some(Stages::constant(100, minute)));
    let line = "--seed 2 --accounts 1..=5 --hot 0 --amount 3 --keys on";
    let forced = scenario(file, &flags(line)).unwrap();
    assert_eq!(forced.seed, 2);
    assert_eq!(forced.each(|class| class.amount.clone()), "3");
    assert_eq!(forced.each(|class| class.population), "1..=5");
    assert_eq!(forced.each(|class| class.keys.name()), "on");
    let one = scenario(file, &flags("--task balance")).unwrap();
    assert_eq!(one.task_names(), ["balance"]);
    let load = |users, rate, run_time| {
        let args = LoadArgs {
            users,
            rate,
            run_time,
            ..LoadArgs::default()
        };
        loaded(file, &args).unwrap()
    };
    let second = Duration::from_secs(1);
    let over = load(Some(3), Some(7), Some(second));
    assert_eq!((over.users, over.run_time), (3, second));
    assert_eq!(over.arrivals, Some(Stages::constant(7, second)));
    let under = load(None, None, None);
    assert_eq!((under.users, under.run_time), (9, minute));
}

#[test]
fn without_a_seed_each_run_has_its_own() {
    assert_ne!(good("").seed, good("").seed);
}

#[test]
fn stages_set_users_and_run_time_and_give_way_to_flags() {
    let file = r#"
        [[stages]]
        duration = "30s"
        users = 200
        ramp = "linear"
        [[stages]]
        duration = "1m"
        users = 50
    "#;
    let load = good(file).load;
    assert_eq!((load.users, load.run_time), (200, Duration::from_secs(90)));
    let at = |seconds| load.staff.level_at(Duration::from_secs(seconds));
    assert_eq!((at(15), at(29), at(30), at(89)), (100, 194, 50, 50));
    let seven = LoadArgs {
        users: Some(7),
        ..LoadArgs::default()
    };
    let load = loaded(file, &seven).unwrap();
    assert_eq!((load.users, load.run_time), (7, Duration::from_secs(10)));
    // In the open model --users only says how many connections there are.
    let open = file.replace("users =", "rate =");
    let load = loaded(&open, &seven).unwrap();
    assert_eq!(load.users, 7);
    assert_eq!(load.arrivals.map(|arrivals| arrivals.peak()), Some(200));
    let cut = LoadArgs {
        run_time: Some(Duration::from_secs(1)),
        ..LoadArgs::default()
    };
    let message = loaded(file, &cut).unwrap_err();
    assert!(message.starts_with("--run-time: the stages"), "{message}");
    let spawned = loaded(&format!("spawn_rate = 5\n{file}"), &LoadArgs::default());
    let message = spawned.unwrap_err();
    assert!(message.contains("test.toml:1: spawn_rate: "), "{message}");
}

#[test]
fn an_error_names_file_line_and_field() {
    check_refused(
        "users = 1\nusrs = 2\n",
        &["test.toml:2: ", "usrs", "unknown field"],
    );
    check_refused("seed = ", &["test.toml:1: "]);
    check_refused(
        &format!("\n{CLASS}weight = \"2\"\n"),
        &["test.toml:6: classes[0].tasks[0].weight: ", "u32"],
    );
    check_refused(
        &format!("{CLASS}[[classes.tasks]]\ntask = \"other\"\n"),
        &["test.toml:6: classes[0].tasks[1].task: ", "batch:N"],
    );
    check_refused(
        "[defaults]\namount = 1.50\n",
        &["test.toml:2: defaults.amount: ", "1.5", "in quotes"],
    );
    check_refused(
        "[defaults]\namount = [\"1\", 2.0]\n",
        &["test.toml:2: defaults.amount", "expected a string"],
    );
    check_refused(
        "[defaults]\n\nchoice = \"zipf\"\n",
        &["test.toml:3: defaults.choice: ", "zipf:EXPONENT"],
    );
    check_refused(
        "[[classes]]\n[[classes.tasks]]\ntask = \"transfer\"\n",
        &["test.toml:1: classes[0]: ", "missing field `name`"],
    );
    check_refused(
        "run_time = \"1s\"\nusers = 0",
        &["test.toml:2: users: ", "1 to 20000"],
    );
}

#[test]
fn fields_that_contradict_each_other_are_refused_where_they_stand() {
    let second = format!("{CLASS}{CLASS}accounts = 1");
    check_refused(&second, &["test.toml:9: ", "accounts", "unknown field"]);
    let class = |lines: &str, tasks: &str| {
        format!("seed = 1\n[[classes]]\nname = \"a\"\n{lines}\ntasks = [{tasks}]\n")
    };
    let transfer = "{ task = \"transfer\" }";
    check_refused(
        &class("accounts = \"5..=5\"", transfer),
        &["test.toml:2: classes[0].accounts: ", "two accounts"],
    );
    check_refused(
        &class("accounts = \"1..=3\"\nchoice = \"hot:0.5:3\"", transfer),
        &["classes[0].choice: ", "3 hot accounts of 3"],
    );
    check_refused(
        &class("", "{ task = \"lookup\" }"),
        &["classes[0].tasks[0].task: ", "lookup needs a transfer"],
    );
    check_refused(
        &class(
            "keys = false",
            &format!("{transfer}, {{ task = \"repeat\" }}"),
        ),
        &["classes[0].tasks[1].task: ", "repeat needs keys"],
    );
    check_refused(
        &class("", &format!("{transfer}, {transfer}")),
        &["classes[0].tasks: ", "\"transfer\"", "give one a name"],
    );
    check_refused(
        &class("weight = 0", transfer),
        &["classes[0].weight: ", "1 to"],
    );
    check_refused(&class("", ""), &["classes[0].tasks: ", "1 to 64 tasks"]);
    let stage = "[[stages]]\nduration = \"1s\"\n";
    check_refused(stage, &["test.toml:1: stages[0]: ", "users or rate"]);
    check_refused(
        &format!("{stage}users = 1\n{stage}rate = 1\n"),
        &["test.toml:4: stages[1]: ", "users in every stage"],
    );
    check_refused(
        &format!("rate = 5\n{stage}rate = 1\n"),
        &["test.toml:1: rate: ", "leave one out"],
    );
    check_refused(&format!("{stage}users = 0\n"), &["stages: ", "above zero"]);
    check_refused(
        &format!("{stage}users = 20001\n"),
        &["stages[0]: ", "at most 20000"],
    );
}
