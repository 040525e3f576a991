//! No balance older than acknowledged, whatever is in Redis or becomes of the
//! database.

use super::*;

#[tokio::test]
async fn a_new_engine_believes_only_what_it_stored_itself() {
    let identity = random_identity();
    let url = shared_url();
    let before = Engine::start(&settings(&url), identity).await;
    let ledger = Ledger::with(&[(1, 1)]);
    before.get(&ledger, 1).await;
    // Its last commit never reached Redis: it was killed.
    ledger.set(balance(1, 2));
    let after = Engine::start(&settings(&url), identity).await;
    assert_eq!(after.get(&ledger, 1).await, (2, false));
    assert_eq!(after.balances.stats().untrusted_misses, 1);
    assert_eq!(after.get(&ledger, 1).await, (2, true));
}

#[tokio::test]
async fn an_old_snapshot_of_redis_shows_no_old_balance() {
    let identity = random_identity();
    let url = shared_url();
    let mut redis = connect(&url).await;
    let engine = Engine::start(&settings(&url), identity).await;
    let ledger = Ledger::with(&[(1, 1)]);
    engine.get(&ledger, 1).await;
    let old: String = redis.get(key(identity, 1)).await.unwrap();
    engine.commit(&ledger, 1, 2);
    until_stored(&mut redis, &key(identity, 1), 2).await;
    let _: Value = redis.set(key(identity, 1), &old).await.unwrap();
    assert_eq!(engine.get(&ledger, 1).await, (2, false));
    assert_eq!(engine.balances.stats().floor_misses, 1);
    assert_eq!(engine.get(&ledger, 1).await, (2, true));
}

#[tokio::test]
async fn an_old_entry_is_not_believed_after_the_floor_forgot_its_account() {
    let identity = random_identity();
    let url = shared_url();
    let mut redis = connect(&url).await;
    let settings = Settings {
        floor_accounts_max: 0,
        ..settings(&url)
    };
    let engine = Engine::start(&settings, identity).await;
    let ledger = Ledger::with(&[(1, 1)]);
    engine.get(&ledger, 1).await;
    let old: String = redis.get(key(identity, 1)).await.unwrap();
    engine.commit(&ledger, 1, 2);
    until_stored(&mut redis, &key(identity, 1), 2).await;
    engine.pass(1);
    // One version per generation and shard is kept even so; pass it everywhere.
    for account in 2..2_000 {
        engine.commit(&ledger, account, 1);
    }
    assert!(64 < engine.balances.stats().floor_losses);
    let _: Value = redis.set(key(identity, 1), &old).await.unwrap();
    assert_eq!(engine.get(&ledger, 1).await, (2, false));
    assert_eq!(engine.balances.stats().untrusted_misses, 1);
    assert_eq!(engine.get(&ledger, 1).await, (2, true));
}

/// Writers commit, an adversary puts old entries back, readers check that what
/// was acknowledged before they asked is what they see, or newer.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_older_than_what_was_acknowledged_before_it() {
    const ACCOUNTS: i64 = 4;
    const COMMITS: i64 = 500;
    let identity = random_identity();
    let url = shared_url();
    let engine = Arc::new(Engine::start(&settings(&url), identity).await);
    let ledger = Arc::new(Ledger::default());
    let zeros =
        || -> Arc<Vec<AtomicI64>> { Arc::new((0..ACCOUNTS).map(|_| AtomicI64::new(0)).collect()) };
    let (acknowledged, reads) = (zeros(), zeros());
    for account in 0..ACCOUNTS {
        ledger.set(balance(account, 0));
    }
    let mut work = JoinSet::new();
    for account in 0..ACCOUNTS {
        let index = usize::try_from(account).unwrap();
        let (engine, ledger) = (Arc::clone(&engine), Arc::clone(&ledger));
        let (acknowledged, reads) = (Arc::clone(&acknowledged), Arc::clone(&reads));
        work.spawn(async move {
            for version in 1..=COMMITS {
                // In step with the readers: some see a balance twice.
                while reads[index].load(Ordering::SeqCst) < (version - 1) * 4 {
                    tokio::task::yield_now().await;
                }
                engine.commit(&ledger, account, version);
                acknowledged[index].store(version, Ordering::SeqCst);
            }
        });
    }
    for reader in 0..8_i64 {
        let account = reader % ACCOUNTS;
        let index = usize::try_from(account).unwrap();
        let (engine, ledger) = (Arc::clone(&engine), Arc::clone(&ledger));
        let (acknowledged, reads) = (Arc::clone(&acknowledged), Arc::clone(&reads));
        work.spawn(async move {
            let mut last = 0;
            while last < COMMITS {
                let least = acknowledged[index].load(Ordering::SeqCst).max(last);
                let (version, _) = engine.get(&ledger, account).await;
                assert!(least <= version, "account {account}: {version} < {least}");
                last = version;
                reads[index].fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    let mut redis = connect(&url).await;
    let adversary = tokio::spawn(async move {
        let mut kept: HashMap<i64, String> = HashMap::new();
        for account in (0..ACCOUNTS).cycle() {
            let key = key(identity, account);
            let text: Option<String> = redis.get(&key).await.unwrap();
            if let Some(old) = kept.remove(&account) {
                let _: Value = redis.set(&key, old).await.unwrap();
            }
            kept.extend(text.map(|text| (account, text)));
        }
    });
    while let Some(done) = work.join_next().await {
        done.unwrap();
    }
    adversary.abort();
    let stats = engine.balances.stats();
    assert!(stats.hits > 0 && stats.floor_misses > 0, "{stats:?}");
}

#[tokio::test]
async fn a_promoted_database_with_a_shorter_history_is_never_shadowed() {
    let old = random_identity();
    let new = DatabaseIdentity { timeline: 2, ..old };
    let url = shared_url();
    let mut redis = connect(&url).await;
    let engine = Engine::start(&settings(&url), old).await;
    let longer = Ledger::with(&[(1, 10)]);
    engine.get(&longer, 1).await;
    assert_eq!(engine.get(&longer, 1).await, (10, true));

    let shorter = Ledger::with(&[(1, 3)]);
    engine.balances.identity_changed(new);
    for _ in 0..3 {
        assert_eq!(engine.get(&shorter, 1).await, (3, false));
    }
    // A committer that has not met the new database yet, and a pooled connection
    // to the old one: neither reaches the new keys.
    engine.balances.committed(old, NOW_MS, [balance(1, 11)]);
    assert_eq!(engine.get(&longer, 1).await, (10, false));
    assert_eq!(stored_version(&mut redis, &key(new, 1)).await, None);
    assert_eq!(stored_version(&mut redis, &key(old, 1)).await, Some(10));
    assert_eq!(engine.get(&shorter, 1).await, (3, false));

    let started_later = Engine::start(&settings(&url), new).await;
    assert_eq!(started_later.get(&shorter, 1).await, (3, false));
    assert_eq!(started_later.get(&shorter, 1).await, (3, true));
    assert_eq!(engine.get(&shorter, 1).await, (3, false));
}

/// A database that is replaced while a read of it is under way.
struct Replaced<'a> {
    balances: &'a Balances,
    to: DatabaseIdentity,
    ledger: Ledger,
}

impl BalanceSource for Replaced<'_> {
    type Error = std::convert::Infallible;

    async fn balance(&self, account_id: AccountId) -> Result<Option<Balance>, Self::Error> {
        let read = self.ledger.balance(account_id).await;
        self.balances.identity_changed(self.to);
        read
    }
}

#[tokio::test]
async fn a_read_that_began_on_another_database_fills_nothing() {
    let old = random_identity();
    let new = DatabaseIdentity { timeline: 2, ..old };
    let url = shared_url();
    let mut redis = connect(&url).await;
    let engine = Engine::start(&settings(&url), old).await;
    let source = Replaced {
        balances: &engine.balances,
        to: new,
        ledger: Ledger::with(&[(1, 10)]),
    };
    let answer = engine.balances.get(&source, id(1), ReadMode::Cached).await;
    assert_eq!(answer.unwrap().unwrap().balance.version, 10);
    assert_eq!(engine.balances.stats().fills_dropped, 1);
    assert_eq!(stored_version(&mut redis, &key(old, 1)).await, None);
    assert_eq!(stored_version(&mut redis, &key(new, 1)).await, None);
}
