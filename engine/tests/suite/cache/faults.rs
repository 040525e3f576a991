//! Redis away, slow, wiped, full or locked: reads go on, and it is used again.

use super::*;

#[tokio::test]
async fn a_killed_redis_costs_no_answer_and_is_used_again_when_back() {
    let mut server = Server::start(&[]);
    let engine = Engine::start(&settings(&server.url()), random_identity()).await;
    let ledger = Ledger::with(&[(1, 1)]);
    engine.get(&ledger, 1).await;
    assert_eq!(engine.get(&ledger, 1).await, (1, true));
    server.kill();
    for version in 2..100 {
        engine.commit(&ledger, 1, version);
        assert_eq!(engine.get(&ledger, 1).await, (version, false));
    }
    engine.becomes(BreakerState::Open).await;
    assert!(engine.balances.stats().errors > 0);
    server.restart();
    engine.becomes(BreakerState::Closed).await;
    assert_eq!(engine.get(&ledger, 1).await, (99, false));
    assert_eq!(engine.get(&ledger, 1).await, (99, true));
}

#[tokio::test]
async fn a_stalled_redis_opens_the_breaker_and_recovery_closes_it() {
    let server = Server::start(&[]);
    let settings = Settings {
        timeout: Duration::from_millis(50),
        connect_timeout: Duration::from_millis(50),
        ..settings(&server.url())
    };
    let engine = Engine::start(&settings, random_identity()).await;
    let ledger = Ledger::with(&[(1, 1)]);
    server.signal(Signal::STOP);
    let mut version = 1;
    while engine.balances.stats().breaker == BreakerState::Closed {
        version += 1;
        engine.commit(&ledger, 1, version);
        assert_eq!(engine.get(&ledger, 1).await, (version, false));
    }
    let stats = engine.balances.stats();
    assert!(stats.timeouts >= 3, "{stats:?}");
    // While it is open nobody waits: Redis is not asked at all.
    assert_eq!(engine.get(&ledger, 1).await, (version, false));
    assert!(engine.balances.stats().bypasses > stats.bypasses);
    server.signal(Signal::CONT);
    engine.becomes(BreakerState::Closed).await;
    // What was put on the old connection may arrive late; it shadows nothing.
    assert_eq!(engine.get(&ledger, 1).await.0, version);
    assert_eq!(engine.get(&ledger, 1).await, (version, true));
}

#[tokio::test]
async fn an_idle_engine_notices_that_redis_died() {
    let mut server = Server::start(&[]);
    let engine = Engine::start(&settings(&server.url()), random_identity()).await;
    server.kill();
    engine.becomes(BreakerState::Open).await;
}

#[tokio::test]
async fn a_wiped_redis_is_filled_again() {
    let server = Server::start(&[]);
    let engine = Engine::start(&settings(&server.url()), random_identity()).await;
    let ledger = Ledger::with(&[(1, 1)]);
    engine.get(&ledger, 1).await;
    let mut redis = connect(&server.url()).await;
    let errors = engine.balances.stats().errors;
    let _: Value = redis::cmd("FLUSHALL")
        .query_async(&mut redis)
        .await
        .unwrap();
    // The script is gone as well, as after a restart.
    let _: Value = redis::cmd("SCRIPT")
        .arg("FLUSH")
        .query_async(&mut redis)
        .await
        .unwrap();
    assert_eq!(engine.get(&ledger, 1).await, (1, false));
    assert_eq!(engine.get(&ledger, 1).await, (1, true));
    assert_eq!(engine.balances.stats().errors, errors);
}

#[tokio::test]
async fn a_redis_that_refuses_writes_costs_no_answer() {
    let full: &[&str] = &["CONFIG", "SET", "maxmemory", "1"];
    // Of a master that does not exist: it answers reads, and READONLY to writes.
    let replica: &[&str] = &["REPLICAOF", "127.0.0.1", "1"];
    for refusal in [full, replica] {
        let server = Server::start(&["--maxmemory-policy", "noeviction"]);
        let engine = Engine::start(&settings(&server.url()), random_identity()).await;
        let ledger = Ledger::with(&[(1, 1), (2, 1)]);
        engine.get(&ledger, 1).await;
        let mut redis = connect(&server.url()).await;
        let mut command = redis::cmd(refusal[0]);
        command.arg(&refusal[1..]);
        command.exec_async(&mut redis).await.unwrap();
        // A server still starting counts as an error as well.
        let errors = engine.balances.stats().errors;
        assert_eq!(engine.get(&ledger, 1).await, (1, true));
        for _ in 0..2 {
            assert_eq!(engine.get(&ledger, 2).await, (1, false));
        }
        engine.commit(&ledger, 1, 2);
        assert_eq!(engine.get(&ledger, 1).await, (2, false));
        let stats = engine.balances.stats();
        assert_eq!(stats.puts, 1);
        assert!(errors < stats.errors, "{stats:?}");
    }
}

#[tokio::test]
async fn a_redis_that_refuses_writes_from_the_start_is_not_used() {
    let server = Server::start(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]);
    let engine = Engine::begin(&settings(&server.url()), random_identity());
    let ledger = Ledger::with(&[(1, 1)]);
    let mut redis = connect_patiently(&server.url()).await;
    for _ in 0..2 {
        engine.becomes(BreakerState::HalfOpen).await;
        engine.becomes(BreakerState::Open).await;
        assert_eq!(engine.get(&ledger, 1).await, (1, false));
    }
    let mut roomy = redis::cmd("CONFIG");
    roomy.arg(&["SET", "maxmemory", "0"]);
    roomy.exec_async(&mut redis).await.unwrap();
    engine.becomes(BreakerState::Closed).await;
    engine.get(&ledger, 1).await;
    assert_eq!(engine.get(&ledger, 1).await, (1, true));
}

#[tokio::test]
async fn a_wrong_password_costs_no_answer_and_the_right_one_works() {
    let server = Server::start(&["--requirepass", "right"]);
    let ledger = Ledger::with(&[(1, 1)]);
    let with = |password: &str| settings(&format!("redis://:{password}@127.0.0.1:{}", server.port));
    let right = Engine::start(&with("right"), random_identity()).await;
    let wrong = Engine::begin(&with("wrong"), random_identity());
    wrong.becomes(BreakerState::HalfOpen).await;
    wrong.becomes(BreakerState::Open).await;
    for _ in 0..3 {
        assert_eq!(wrong.get(&ledger, 1).await, (1, false));
    }
    assert!(wrong.balances.stats().errors > 0);
    right.get(&ledger, 1).await;
    assert_eq!(right.get(&ledger, 1).await, (1, true));
}

#[tokio::test]
async fn an_engine_starts_without_redis_and_uses_it_when_it_comes() {
    let mut server = Server::start(&[]);
    server.kill();
    let engine = Engine::begin(&settings(&server.url()), random_identity());
    let ledger = Ledger::with(&[(1, 1)]);
    assert_eq!(engine.get(&ledger, 1).await, (1, false));
    server.restart();
    engine.becomes(BreakerState::Closed).await;
    engine.get(&ledger, 1).await;
    assert_eq!(engine.get(&ledger, 1).await, (1, true));
}

#[tokio::test]
async fn past_the_bound_of_waiting_reads_the_database_is_asked() {
    let ledger = Ledger::with(&[(1, 1)]);
    for (waiting_max, cached) in [(1, true), (0, false)] {
        let settings = Settings {
            waiting_max,
            ..settings(&shared_url())
        };
        let engine = Engine::start(&settings, random_identity()).await;
        engine.get(&ledger, 1).await;
        assert_eq!(engine.get(&ledger, 1).await, (1, cached));
    }
}

#[tokio::test]
async fn without_a_redis_every_read_is_of_the_database() {
    let engine = Engine::begin(&Settings::default(), random_identity());
    let ledger = Ledger::with(&[(1, 1)]);
    engine.commit(&ledger, 1, 2);
    assert!(!engine.balances.is_configured());
    assert!(engine.tasks.is_empty());
    for _ in 0..2 {
        assert_eq!(engine.get(&ledger, 1).await, (2, false));
    }
}

#[tokio::test]
async fn closing_ends_the_tasks_and_reads_go_on() {
    let mut engine = Engine::start(&settings(&shared_url()), random_identity()).await;
    let ledger = Ledger::with(&[(1, 1)]);
    engine.get(&ledger, 1).await;
    engine.balances.close();
    while let Some(ended) = engine.tasks.join_next().await {
        ended.unwrap();
    }
    engine.commit(&ledger, 1, 2);
    assert_eq!(engine.get(&ledger, 1).await, (2, false));
}

#[test]
fn a_url_that_cannot_be_used_is_refused_without_repeating_it() {
    let settings = settings("http://:hunter2@example.com");
    let error = Balances::new(&settings, Clock::System, 1).unwrap_err();
    assert_eq!(error, CacheError::InvalidUrl);
    assert!(!format!("{error} {error:?} {settings:?}").contains("hunter2"));
}
