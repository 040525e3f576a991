//! The queue against a plain list, under any schedule of pushes and releases.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct Entry(Arc<(usize, Vec<AccountId>)>);

impl Claim for Entry {
    fn accounts(&self) -> &[AccountId] {
        &self.0.1
    }
    fn transfers(&self) -> usize {
        1
    }
    fn identity(&self) -> (usize, usize) {
        (Arc::as_ptr(&self.0).addr(), 0)
    }
}

fn entry(number: usize, accounts: &[i64]) -> Entry {
    let mut accounts: Vec<_> = accounts
        .iter()
        .map(|id| AccountId::new(*id).unwrap())
        .collect();
    accounts.sort_unstable();
    accounts.dedup();
    Entry(Arc::new((number, accounts)))
}

fn queue(transfers_max: usize) -> LockQueue<Entry> {
    LockQueue::new(BatchLimits {
        transfers_max,
        accounts_max: transfers_max * 2,
    })
}

fn accounts_of(batch: &Batch<Entry>) -> Vec<AccountId> {
    batch
        .members
        .iter()
        .flat_map(|entry| entry.accounts().to_vec())
        .collect()
}

fn numbers(batch: &Batch<Entry>) -> Vec<usize> {
    batch.members.iter().map(|entry| entry.0.0).collect()
}

fn lane_count(queue: &LockQueue<Entry>) -> usize {
    queue
        .shards
        .iter()
        .map(|shard| shard.lock().unwrap().lane_count())
        .sum()
}

#[test]
fn a_transfer_of_free_accounts_joins_and_of_held_ones_waits() {
    let queue = queue(8);
    assert_eq!(queue.push(entry(1, &[1, 2])), Placed::Joined);
    assert_eq!(
        queue.push(entry(2, &[2, 3])),
        Placed::Joined,
        "the open batch holds account 2"
    );
    let first = queue.take().unwrap();
    assert_eq!(numbers(&first), [1, 2]);
    assert_eq!(queue.push(entry(3, &[3, 4])), Placed::Waiting);
    assert_eq!(
        queue.push(entry(4, &[4, 5])),
        Placed::Waiting,
        "3 is before it on account 4"
    );
    assert_eq!(queue.push(entry(5, &[6, 7])), Placed::Joined);
    assert!(queue.release(first.id, accounts_of(&first)));
    assert_eq!(numbers(&queue.take().unwrap()), [5, 3, 4]);
}

#[test]
fn a_full_batch_is_sealed_and_its_accounts_stay_held() {
    let queue = queue(2);
    for number in 0..5 {
        queue.push(entry(number, &[1, 2]));
    }
    let first = queue.take().unwrap();
    assert_eq!(
        (numbers(&first), first.reason),
        (vec![0, 1], CloseReason::TransfersFull)
    );
    assert!(queue.take().is_none(), "the rest waits for the accounts");
    assert!(queue.release(first.id, accounts_of(&first)));
    let second = queue.take().unwrap();
    assert_eq!(numbers(&second), [2, 3]);
    queue.release(second.id, accounts_of(&second));
    let third = queue.take().unwrap();
    assert_eq!(
        (numbers(&third), third.reason),
        (vec![4], CloseReason::Idle)
    );
    queue.release(third.id, accounts_of(&third));
    assert_eq!(
        lane_count(&queue),
        0,
        "nothing is remembered of idle accounts"
    );
}

/// Entries that count how often their accounts are asked for.
#[derive(Clone, Debug)]
struct Counted(Entry, Arc<std::sync::atomic::AtomicUsize>);

impl Claim for Counted {
    fn accounts(&self) -> &[AccountId] {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.0.accounts()
    }
    fn transfers(&self) -> usize {
        1
    }
    fn identity(&self) -> (usize, usize) {
        self.0.identity()
    }
}

#[test]
fn a_large_group_is_looked_at_a_few_times_per_release_not_per_account() {
    let asked = Arc::default();
    let queue: LockQueue<Counted> = LockQueue::new(BatchLimits {
        transfers_max: 8_192,
        accounts_max: 16_384,
    });
    let accounts: Vec<i64> = (1..=16_384).collect();
    for number in 0..2 {
        queue.push(Counted(entry(number, &accounts), Arc::clone(&asked)));
    }
    let first = queue.take().unwrap();
    let accounts = first.members[0].0.accounts().to_vec();
    asked.store(0, std::sync::atomic::Ordering::Relaxed);
    assert!(queue.release(first.id, accounts));
    assert!(asked.load(std::sync::atomic::Ordering::Relaxed) < 20);
    assert!(queue.take().is_some());
}

#[test]
fn a_batch_is_not_sealed_for_one_who_cannot_join() {
    let queue = queue(8);
    queue.push(entry(0, &[1, 2]));
    let blocking = queue.take().unwrap();
    // Waits for account 1, and would not fit beside anything.
    let large: Vec<i64> = (1..100).collect();
    queue.push(entry(1, &large));
    for number in 2..8 {
        let account = i64::try_from(number).unwrap() * 1_000;
        assert_eq!(
            queue.push(entry(number, &[account, account + 1])),
            Placed::Joined
        );
        queue.push(entry(100 + number, &large));
    }
    assert_eq!(queue.take().unwrap().members.len(), 6);
    assert!(queue.take().is_none());
    queue.release(blocking.id, accounts_of(&blocking));
}

#[test]
fn a_group_waits_for_all_of_its_accounts() {
    let queue = queue(8);
    queue.push(entry(1, &[1, 2]));
    let first = queue.take().unwrap();
    queue.push(entry(2, &[3, 4]));
    let second = queue.take().unwrap();
    let many: Vec<i64> = (1..200).collect();
    assert_eq!(queue.push(entry(3, &many)), Placed::Waiting);
    assert_eq!(
        queue.push(entry(4, &[50, 51])),
        Placed::Waiting,
        "behind the group"
    );
    assert!(!queue.release(first.id, accounts_of(&first)));
    assert!(queue.release(second.id, accounts_of(&second)));
    let mut seen = Vec::new();
    while let Some(batch) = queue.take() {
        seen.extend(numbers(&batch));
        queue.release(batch.id, accounts_of(&batch));
    }
    assert_eq!(seen, [3, 4]);
    assert_eq!(lane_count(&queue), 0);
}

/// What a schedule does next.
#[derive(Clone, Debug)]
enum Step {
    Push(Vec<i64>),
    Take,
    Release(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..12_i64, 0..12_i64).prop_map(|(a, b)| Step::Push(vec![a, if a == b { a + 1 } else { b }])),
        1 => prop::collection::vec(0..12_i64, 1..6).prop_map(Step::Push),
        2 => Just(Step::Take),
        2 => (0..4_usize).prop_map(Step::Release),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_schedule_keeps_order_and_never_shares_an_account(
        steps in prop::collection::vec(step(), 1..120), transfers_max in 1..6_usize,
    ) {
        let queue = queue(transfers_max);
        let mut pushed = 0;
        let mut in_flight: Vec<Batch<Entry>> = Vec::new();
        let mut done: Vec<Entry> = Vec::new();
        let finish = |steps: Vec<Step>, in_flight: &mut Vec<Batch<Entry>>, done: &mut Vec<Entry>, pushed: &mut usize| {
            for step in steps {
                match step {
                    Step::Push(accounts) => {
                        queue.push(entry(*pushed, &accounts));
                        *pushed += 1;
                    }
                    Step::Take => in_flight.extend(queue.take()),
                    Step::Release(index) if index < in_flight.len() => {
                        let batch = in_flight.remove(index);
                        queue.release(batch.id, accounts_of(&batch));
                        done.extend(batch.members);
                    }
                    Step::Release(_) => {}
                }
                let mut held = Vec::new();
                for batch in in_flight.iter() {
                    let mut accounts = accounts_of(batch);
                    accounts.sort_unstable();
                    accounts.dedup();
                    held.extend(accounts);
                }
                let all = held.len();
                held.sort_unstable();
                held.dedup();
                assert_eq!(all, held.len(), "two batches in flight share an account");
            }
        };
        finish(steps, &mut in_flight, &mut done, &mut pushed);
        // Then everything comes out: no lost wake-up.
        for _ in 0..1_000 {
            if done.len() == pushed { break; }
            finish(vec![Step::Take, Step::Release(0)], &mut in_flight, &mut done, &mut pushed);
        }
        prop_assert_eq!(done.len(), pushed);
        prop_assert_eq!(lane_count(&queue), 0);
        // FIFO per account. Releases order batches that share an account.
        for account in 0..14 {
            let account = AccountId::new(account).unwrap();
            let order: Vec<usize> =
                done.iter().filter(|entry| entry.accounts().contains(&account)).map(|entry| entry.0.0).collect();
            prop_assert!(order.is_sorted(), "account {}: {:?}", account, order);
        }
    }
}

#[test]
fn threads_lose_nothing() {
    let queue = queue(64);
    let done = Mutex::new(0_usize);
    let pushed_per_thread = 5_000;
    std::thread::scope(|scope| {
        for thread in 0..3_usize {
            let queue = &queue;
            scope.spawn(move || {
                for number in 0..pushed_per_thread {
                    let a = i64::try_from((number * 7 + thread * 13) % 40).unwrap();
                    let b = i64::try_from((number * 3 + thread * 5) % 40).unwrap();
                    queue.push(entry(number, &[a, b]));
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                while *done.lock().unwrap() < 3 * pushed_per_thread {
                    if let Some(batch) = queue.take() {
                        queue.release(batch.id, accounts_of(&batch));
                        *done.lock().unwrap() += batch.members.len();
                    } else {
                        std::thread::yield_now();
                    }
                }
            });
        }
    });
    assert_eq!(*done.lock().unwrap(), 3 * pushed_per_thread);
    assert_eq!(lane_count(&queue), 0);
}
