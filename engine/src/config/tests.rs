use super::*;

const DATABASE: &str = "postgres://app:hunter2@db/ledger";

fn setting_refused(arguments: &[&str]) -> Option<&'static str> {
    match parse(["engine"].iter().chain(arguments)) {
        Ok(_) => None,
        Err(ConfigError::Setting { setting, reason }) => {
            assert!(!reason.contains("hunter2"), "arguments={arguments:?}");
            Some(setting)
        }
        Err(ConfigError::Help(text) | ConfigError::Usage(text)) => panic!("{text}"),
    }
}

#[track_caller]
fn check_serve(arguments: &[&str], expected: Option<&'static str>) {
    let mut all = vec!["serve", "--database-url", DATABASE];
    all.extend(arguments);
    assert_eq!(setting_refused(&all), expected, "arguments={arguments:?}");
}

#[test]
fn the_defaults_are_accepted() {
    check_serve(&[], None);
    check_serve(&["--redis-url", "redis://cache/0"], None);
}

#[test]
fn batch_limits_hold_one_full_batch_call() {
    check_serve(&["--batch-transfers-max", "8192"], None);
    check_serve(
        &["--batch-transfers-max", "8191"],
        Some("--batch-transfers-max"),
    );
    check_serve(&["--batch-accounts-max", "16384"], None);
    check_serve(
        &["--batch-accounts-max", "16383"],
        Some("--batch-accounts-max"),
    );
    check_serve(&["--queue-depth-max", "8192"], None);
    check_serve(&["--queue-depth-max", "8191"], Some("--queue-depth-max"));
    check_serve(&["--body-bytes-in-flight-max", "8MiB"], None);
    check_serve(
        &["--body-bytes-in-flight-max", "8388607"],
        Some("--body-bytes-in-flight-max"),
    );
}

#[test]
fn keys_are_kept_for_a_day_or_more() {
    check_serve(&["--idempotency-retention", "24h"], None);
    check_serve(
        &["--idempotency-retention", "86399s"],
        Some("--idempotency-retention"),
    );
    assert_eq!(
        setting_refused(&[
            "maintain",
            "--database-url",
            DATABASE,
            "--idempotency-retention",
            "1h"
        ]),
        Some("--idempotency-retention")
    );
}

#[test]
fn two_listeners_need_two_ports() {
    let admin = Some("--admin-listen");
    check_serve(&["--admin-listen", "127.0.0.1:5000"], admin);
    check_serve(&["--admin-listen", "0.0.0.0:5000"], admin);
    check_serve(
        &["--listen", "[::]:9464", "--admin-listen", "127.0.0.1:9464"],
        admin,
    );
    check_serve(&["--admin-listen", "127.0.0.2:5000"], None);
    check_serve(
        &["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"],
        None,
    );
}

#[test]
fn waits_fit_into_each_other() {
    check_serve(
        &["--lock-timeout", "8s", "--statement-timeout", "8001ms"],
        None,
    );
    check_serve(
        &["--lock-timeout", "8s", "--statement-timeout", "8s"],
        Some("--lock-timeout"),
    );
    check_serve(&["--lock-timeout", "0s"], Some("--lock-timeout"));
    let delay = Some("--shutdown-delay");
    check_serve(&["--shutdown-delay", "20s"], None);
    check_serve(&["--shutdown-delay", "20001ms"], delay);
    check_serve(
        &[
            "--shutdown-delay",
            "20001ms",
            "--request-deadline",
            "9999ms",
        ],
        None,
    );
    check_serve(
        &["--shutdown-delay", "20001ms", "--shutdown-grace", "30001ms"],
        None,
    );
    // A stop without a delay may be as short as it likes.
    check_serve(&["--shutdown-grace", "1s"], None);
    check_serve(&["--shutdown-grace", "0s"], None);
    check_serve(&["--statement-timeout", "25d"], Some("--statement-timeout"));
    check_serve(&["--request-deadline", "100ms"], None);
    check_serve(&["--request-deadline", "99ms"], Some("--request-deadline"));
    check_serve(&["--request-deadline", "1h"], None);
    check_serve(&["--request-deadline", "3601s"], Some("--request-deadline"));
    check_serve(&["--cache-timeout", "10s"], Some("--cache-timeout"));
    check_serve(&["--cache-ttl", "999ms"], Some("--cache-ttl"));
    check_serve(&["--database-failover-detect", "200ms"], None);
    check_serve(
        &["--database-failover-detect", "199ms"],
        Some("--database-failover-detect"),
    );
    check_serve(&["--replica-lag-max", "500ms"], None);
    check_serve(&["--replica-lag-max", "499ms"], Some("--replica-lag-max"));
}

#[test]
fn a_transaction_lives_at_most_half_the_overlap_of_two_key_periods() {
    // Together 5 minutes, less a millisecond and not.
    let lives = |lock, statement, idle| {
        [
            ["--lock-timeout", lock],
            ["--statement-timeout", statement],
            ["--idle-in-transaction-timeout", idle],
        ]
        .concat()
    };
    let setting = Some("--statement-timeout");
    check_serve(&lives("1m", "2m", "119999ms"), None);
    check_serve(&lives("1m", "2m", "2m"), setting);
    check_serve(&lives("59999ms", "2m", "2m"), None);
    check_serve(&lives("1m", "119999ms", "2m"), None);
    check_serve(&lives("1ms", "2ms", "24d"), setting);
    let refusal = parse(
        ["engine", "serve", "--database-url", DATABASE]
            .iter()
            .chain(&lives("1m", "2m", "2m")),
    );
    let Err(ConfigError::Setting { reason, .. }) = refusal else {
        panic!("{refusal:?}");
    };
    for other in ["--lock-timeout", "--idle-in-transaction-timeout"] {
        assert!(reason.contains(other), "{reason}");
    }
}

#[test]
fn a_principal_is_a_short_visible_name() {
    let setting = Some("--anonymous-principal");
    check_serve(&["--anonymous-principal", "public"], None);
    check_serve(&["--anonymous-principal", ""], setting);
    check_serve(&["--anonymous-principal", "two words"], setting);
    check_serve(&["--anonymous-principal", &"n".repeat(255)], None);
    check_serve(&["--anonymous-principal", &"n".repeat(256)], setting);
}

#[test]
fn migrating_needs_another_role() {
    check_serve(&["--migrate"], Some("--migrate"));
    check_serve(
        &["--migrate", "--migrate-database-url", "postgres://own@db/l"],
        None,
    );
    check_serve(
        &["--migrate", "--migrate-database-url", "postgres://app@db/l"],
        Some("--migrate-database-url"),
    );
    // Without --migrate the address is not looked at.
    check_serve(&["--migrate-database-url", "nonsense"], None);
}

#[test]
fn addresses_are_checked_without_being_quoted() {
    for url in [
        "hunter2",
        "http://app:hunter2@db",
        "postgres://app:hunt@er2:hunter2",
    ] {
        assert_eq!(
            setting_refused(&["serve", "--database-url", url]),
            Some("--database-url"),
            "url={url}"
        );
    }
    assert_eq!(
        setting_refused(&["migrate", "--database-url", "postgres:///ledger"]),
        Some("--database-url")
    );
    check_serve(&["--redis-url", "hunter2"], Some("--redis-url"));
    check_serve(&["--redis-url", "rediss://:hunter2@c"], None);
    // Whoever answers would be believed.
    let unchecked = ["--redis-url", "rediss://:hunter2@c#insecure"];
    check_serve(&unchecked, Some("--redis-url"));
}

#[test]
fn tls_is_asked_for_in_the_words_of_libpq() {
    let serve = |url: &'static str, more: &[&'static str]| {
        let arguments = ["serve", "--database-url", url];
        setting_refused(&[&arguments, more].concat())
    };
    for mode in ["disable", "prefer", "require", "verify-ca", "verify-full"] {
        let url = format!("postgres://app:hunter2@db/l?sslmode={mode}");
        assert_eq!(setting_refused(&["serve", "--database-url", &url]), None);
    }
    let refused = Some("--database-url");
    assert_eq!(serve("postgres://app@db/l?sslmode=allow", &[]), refused);
    assert_eq!(serve("postgres://app@db/l?sslcert=a.pem", &[]), refused);
    assert_eq!(serve("postgres://app@db/l?sslrootcert=a", &[]), refused);
    let file = ["--database-ca-file", "/ca.pem"];
    assert_eq!(
        serve("postgres://app@db/l?sslmode=verify-full", &file),
        None
    );
    let refused = Some("--database-ca-file");
    assert_eq!(serve("postgres://app@db/l", &file), refused);
    let replica = ["--database-read-url", "postgres://app@db/l"];
    let with_replica = [&replica[..], &file[..]].concat();
    let url = "postgres://app@db/l?sslmode=verify-full";
    assert_eq!(serve(url, &with_replica), refused);
    let file = ["--redis-ca-file", "/ca.pem", "--redis-url"];
    let url = "postgres://app@db/l";
    assert_eq!(serve(url, &[&file[..], &["rediss://c"]].concat()), None);
    let refused = Some("--redis-ca-file");
    assert_eq!(serve(url, &[&file[..], &["redis://c"]].concat()), refused);
}

#[test]
fn a_file_of_authorities_is_for_every_database_url_that_names_none() {
    let parsed = parse([
        "engine",
        "serve",
        "--database-url",
        "postgres://app@db/l?sslmode=verify-full",
        "--database-read-url",
        "postgres://app@replica/l?sslmode=verify-full&sslrootcert=/own.pem",
        "--database-ca-file",
        "/ca.pem",
    ]);
    let Ok(Command::Serve(config)) = parsed else {
        panic!("{parsed:?}");
    };
    let roots = |url: &DatabaseUrl| url.parsed().map(|address| address.roots);
    let file = |path: &str| Ok(pgtls::Roots::File(path.into()));
    assert_eq!(roots(&config.database_url), file("/ca.pem"));
    let replica = config.database_read_url.as_ref().expect("given");
    assert_eq!(roots(replica), file("/own.pem"));
}

#[test]
fn a_configuration_printed_for_debugging_shows_no_password() {
    let command = parse([
        "engine",
        "serve",
        "--database-url",
        DATABASE,
        "--redis-url",
        "redis://:hunter2@cache/0",
    ]);
    let shown = format!("{command:?}");
    assert!(shown.contains("postgres://app@db"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn every_flag_is_also_a_variable_with_its_name() {
    for subcommand in Cli::command().get_subcommands() {
        for arg in subcommand.get_arguments() {
            let (Some(long), Some(env)) = (arg.get_long(), arg.get_env()) else {
                continue;
            };
            let expected = format!("ENGINE_{}", long.replace('-', "_").to_uppercase());
            assert_eq!(env.to_str(), Some(expected.as_str()));
            assert!(
                !long.ends_with("-url") || arg.is_hide_env_values_set(),
                "--{long} would show its password in --help"
            );
        }
    }
    let serve = Cli::command();
    let serve = serve.find_subcommand("serve").expect("exists");
    for arg in serve.get_arguments() {
        let long = arg.get_long().expect("serve takes no positional");
        assert!(arg.get_env().is_some(), "--{long} has no variable");
        assert!(arg.get_help().is_some(), "--{long} has no help");
    }
}

#[test]
fn clap_accepts_the_definition() {
    Cli::command().debug_assert();
}

#[test]
fn a_command_keeps_its_own_flags() {
    let parsed = parse(["engine", "dev", "--servers-only", "--", "cargo", "--fresh"]);
    let Ok(Command::Dev(config)) = parsed else {
        panic!("{parsed:?}");
    };
    assert_eq!(config.command, ["cargo", "--fresh"]);
    assert_eq!(config.mode, DevMode::ServersOnly);
    assert!(!config.fresh);
}

#[test]
fn settings_of_the_servers_keep_everything_after_the_first_equals_sign() {
    let parsed = parse(["engine", "dev", "-c", "a.b=c=d", "--redis-setting", "x= y"]);
    let Ok(Command::Dev(config)) = parsed else {
        panic!("{parsed:?}");
    };
    assert_eq!(config.postgres_settings, [("a.b".into(), "c=d".into())]);
    assert_eq!(config.redis_settings, [("x".into(), " y".into())]);
    assert!(matches!(
        parse(["engine", "dev", "-c", "=d"]),
        Err(ConfigError::Usage(_))
    ));
}

#[test]
fn health_asks_a_wildcard_listener_through_loopback() {
    for (listen, asked) in [
        ("0.0.0.0:5000", "127.0.0.1:5000"),
        ("[::]:7", "[::1]:7"),
        ("10.0.0.1:80", "10.0.0.1:80"),
    ] {
        let parsed = parse(["engine", "health", "--listen", listen]);
        let Ok(Command::Health(config)) = parsed else {
            panic!("{parsed:?}");
        };
        assert_eq!(config.address.to_string(), asked);
    }
}

#[test]
fn help_is_no_failure_and_a_typo_is_named() {
    assert!(matches!(
        parse(["engine", "--help"]),
        Err(ConfigError::Help(_))
    ));
    let Err(ConfigError::Usage(text)) = parse(["engine", "serve", "--databse-url", "x"]) else {
        panic!("a typo was accepted");
    };
    assert!(text.contains("--databse-url"), "{text}");
}
