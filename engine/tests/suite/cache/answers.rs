//! What is answered and stored when Redis is well.

use super::*;

#[tokio::test]
async fn the_first_read_fills_so_that_the_second_is_cached() {
    let engine = Engine::start(&settings(&shared_url()), random_identity()).await;
    let ledger = Ledger::with(&[(1, 7)]);
    assert_eq!(engine.get(&ledger, 1).await, (7, false));
    assert_eq!(engine.get(&ledger, 1).await, (7, true));
    assert_eq!(ledger.reads(), 1);
    let none = engine.balances.get(&ledger, id(2), ReadMode::Cached).await;
    assert_eq!(none, Ok(None));
    let stats = engine.balances.stats();
    assert_eq!((stats.hits, stats.misses, stats.puts), (1, 2, 1));
}

#[tokio::test]
async fn a_consistent_read_neither_reads_nor_fills() {
    let identity = random_identity();
    let url = shared_url();
    let engine = Engine::start(&settings(&url), identity).await;
    let mut redis = connect(&url).await;
    let ledger = Ledger::with(&[(1, 7)]);
    let answer = engine
        .balances
        .get(&ledger, id(1), ReadMode::Consistent)
        .await;
    assert!(!answer.unwrap().unwrap().cached);
    assert_eq!(stored_version(&mut redis, &key(identity, 1)).await, None);
    engine.get(&ledger, 1).await;
    let answer = engine
        .balances
        .get(&ledger, id(1), ReadMode::Consistent)
        .await;
    assert!(!answer.unwrap().unwrap().cached);
    assert_eq!(ledger.reads(), 3);
}

#[tokio::test]
async fn an_older_version_neither_replaces_a_newer_nor_prolongs_its_life() {
    let identity = random_identity();
    let url = shared_url();
    let mut redis = connect(&url).await;
    let key = key(identity, 1);
    let ahead = Engine::start(&settings(&url), identity).await;
    ahead.get(&Ledger::with(&[(1, 10)]), 1).await;
    let remaining: i64 = redis.pttl(&key).await.unwrap();
    assert!(0 < remaining && remaining <= i64::try_from(TTL_MS).unwrap());
    let shortened: bool = redis.pexpire(&key, 30_000).await.unwrap();
    assert!(shortened);
    // Read before the commit, put after it. 9 is a longer way from 10 by text.
    let behind = Engine::start(&settings(&url), identity).await;
    behind.pass(5);
    assert_eq!(behind.get(&Ledger::with(&[(1, 9)]), 1).await, (9, false));
    let stats = behind.balances.stats();
    assert_eq!((stats.puts, stats.stale_puts_refused), (0, 1));
    assert_eq!(stored_version(&mut redis, &key).await, Some(10));
    let remaining: i64 = redis.pttl(&key).await.unwrap();
    assert!(remaining <= 30_000, "{remaining}");
    // Beyond what a double counts exactly.
    for (version, stored) in [
        (9_007_199_254_740_993, 9_007_199_254_740_993),
        (9_007_199_254_740_992, 9_007_199_254_740_993),
    ] {
        // This source's balance is not version * 10 - 5: that would overflow.
        let mut planted = balance(1, 1);
        planted.version = version;
        let ledger = Ledger::default();
        ledger.set(planted);
        let other = Engine::start(&settings(&url), identity).await;
        other
            .balances
            .get(&ledger, id(1), ReadMode::Cached)
            .await
            .unwrap();
        assert_eq!(stored_version(&mut redis, &key).await, Some(stored));
    }
}

#[tokio::test]
async fn an_entry_is_answered_for_the_ttl_even_if_redis_keeps_it_for_ever() {
    let identity = random_identity();
    let url = shared_url();
    let engine = Engine::start(&settings(&url), identity).await;
    let mut redis = connect(&url).await;
    let ledger = Ledger::with(&[(1, 7)]);
    engine.get(&ledger, 1).await;
    let kept: bool = redis.persist(key(identity, 1)).await.unwrap();
    assert!(kept);
    // A second less than the ttl: what engines' clocks may differ by.
    engine.pass(TTL_MS - 1_001);
    assert_eq!(engine.get(&ledger, 1).await, (7, true));
    engine.pass(1);
    assert_eq!(engine.get(&ledger, 1).await, (7, false));
    assert_eq!(engine.balances.stats().expired_misses, 1);
    assert_eq!(engine.get(&ledger, 1).await, (7, true));
    let remaining: i64 = redis.pttl(key(identity, 1)).await.unwrap();
    assert!(0 < remaining, "read again at the same version: a new life");
}

#[tokio::test]
async fn what_is_not_an_entry_of_the_account_is_replaced() {
    let identity = random_identity();
    let url = shared_url();
    let engine = Engine::start(&settings(&url), identity).await;
    let mut redis = connect(&url).await;
    let ledger = Ledger::with(&[(1, 7), (2, 8)]);
    engine.get(&ledger, 2).await;
    let other_account: String = redis.get(key(identity, 2)).await.unwrap();
    let key = key(identity, 1);
    let texts = [
        "",
        "OK",
        "99999999999999999999 1 1 1 840 2 USD 1 1",
        "9223372036854775807 1 1 1 840 2 USD 1",
        &other_account,
    ];
    for text in texts {
        let _: Value = redis.set(&key, text).await.unwrap();
        assert_eq!(engine.get(&ledger, 1).await, (7, false), "{text}");
        assert_eq!(engine.get(&ledger, 1).await, (7, true), "{text}");
    }
    let _: Value = redis.del(&key).await.unwrap();
    let _: Value = redis.lpush(&key, 1).await.unwrap();
    assert_eq!(engine.get(&ledger, 1).await, (7, false));
    assert_eq!(engine.get(&ledger, 1).await, (7, true));
}

#[tokio::test]
async fn commits_to_recently_read_accounts_reach_other_engines() {
    let identity = random_identity();
    let url = shared_url();
    let mut redis = connect(&url).await;
    let engine = Engine::start(&settings(&url), identity).await;
    let ledger = Ledger::with(&[(1, 1), (2, 1)]);
    engine.get(&ledger, 1).await;
    engine.commit(&ledger, 2, 2);
    engine.commit(&ledger, 1, 2);
    until_stored(&mut redis, &key(identity, 1), 2).await;
    assert_eq!(engine.get(&ledger, 1).await, (2, true));
    // An account that nobody reads costs Redis nothing.
    assert_eq!(stored_version(&mut redis, &key(identity, 2)).await, None);
}
