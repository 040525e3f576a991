//! The bytes of each request.
//!
//! Owns: which request a user makes next.
//! Never: does I/O, or allocates per request.
//! Bound: one template per task and thread; about 130 bytes per user.
//! Invariant: a user's n-th request depends on the scenario, the user's number
//! and n alone, so that a seed replays however threads and answers come. Only
//! what a look-up asks for comes from answers. No two transfers of a run carry
//! the same Idempotency-Key but those that a repeat sends again.
//!
//! Each request has a stream of random numbers of its own: to repeat an earlier
//! one its number is enough, and what one task draws never moves another.

pub(crate) mod key;
mod template;
#[cfg(test)]
mod tests;
mod user;

use std::time::Duration;

use uuid::Uuid;

use crate::journal::Planned;
use crate::response::KeepBody;
use crate::rng::Rng;
use crate::scenario::{Class, Keys, Population, Scenario, Task, Think};
use key::Key;
use template::{Get, Head, Page, Post, Turn};
use user::User;

/// Where requests go and what lets them in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Target {
    /// `host:port`, as the Host header says it.
    pub(crate) authority: String,
    pub(crate) headers: crate::headers::Headers,
}

/// The users of one thread: numbers `first`, `first + step`, and so on. With the
/// threads as step no two threads meet, however many users each has or gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) first: u32,
    pub(crate) step: u32,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    /// Index in [`Scenario::task_names`].
    pub(crate) task: usize,
    /// New transfers in it; a repeat has none.
    pub(crate) transfers: usize,
    /// All transfers in it, of which those of a repeat were sent before.
    pub(crate) span: Span,
    pub(crate) repeat: Repeat,
    /// How long the user waits before its next request.
    pub(crate) think: Duration,
    /// Whether its answer's body is wanted.
    pub(crate) keep: KeepBody,
}

/// The transfers of one request: `first` and those with the next counters. They
/// are numbered so with and without keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: Key,
    pub(crate) count: usize,
}

impl Span {
    /// The numbers of its transfers.
    pub(crate) fn keys(self) -> impl Iterator<Item = Key> {
        let next = |key: &Key| Some(key.next());
        std::iter::successors(Some(self.first), next).take(self.count)
    }
}

/// Whether the same bytes may be sent again when the answer is in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Every transfer in it carries a key.
    Safe,
    Unsafe,
}

/// Whether somebody wants to know each transfer that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plans {
    Told,
    Untold,
}

/// Makes the requests of one thread's users.
#[derive(Debug)]
pub(crate) struct Requests {
    seed: u64,
    numbers: Numbers,
    users: Vec<User>,
    classes: Vec<Tasks>,
    /// Over all classes.
    weight_total: u64,
    plans: Plans,
    /// The transfers of the request written last, if they are told.
    planned: Vec<Planned>,
}

impl Requests {
    pub(crate) fn new(
        scenario: &Scenario,
        target: &Target,
        numbers: Numbers,
        plans: Plans,
    ) -> Self {
        let head = Head {
            authority: &target.authority,
            lines: target.headers.lines(),
            seed: scenario.seed,
        };
        let (mut weight_total, mut task_first) = (0, 0);
        let mut classes = Vec::new();
        for class in &scenario.classes {
            weight_total += u64::from(class.weight);
            classes.push(Tasks::new(head, class, plans, (weight_total, task_first)));
            task_first += class.tasks.len();
        }
        Self {
            seed: scenario.seed,
            numbers,
            users: Vec::new(),
            classes,
            weight_total,
            plans,
            planned: Vec::new(),
        }
    }

    /// The transfers of the request written last, numbered as its span says.
    pub(crate) fn planned(&self) -> &[Planned] {
        &self.planned
    }

    /// Writes the next request of the thread's `index`-th user into `out`.
    pub(crate) fn next(&mut self, index: usize, out: &mut Vec<u8>) -> Next {
        // Users that appear while the run goes on are made when they first send.
        while self.users.len() <= index {
            let user = self.user(self.users.len());
            self.users.push(user);
        }
        let user = &mut self.users[index];
        let turn = Turn {
            user: number(self.numbers, index),
            number: user.number,
        };
        user.number += 1;
        out.clear();
        self.planned.clear();
        let mut page = Page {
            out,
            planned: match self.plans {
                Plans::Told => Some(&mut self.planned),
                Plans::Untold => None,
            },
        };
        self.classes[usize::from(user.class)].next(user, turn, &mut page)
    }

    /// Tells the id of a transaction that an answer to the user gave, as text;
    /// what is no UUID is ignored.
    pub(crate) fn answered(&mut self, index: usize, txn_id: &str) {
        let memory = self.users.get_mut(index).and_then(|u| u.memory.as_mut());
        if let Some(memory) = memory
            && let Ok(id) = Uuid::try_parse(txn_id)
        {
            memory.transactions.push(id);
        }
    }

    fn user(&self, index: usize) -> User {
        let user = number(self.numbers, index);
        let class = self.class_of(user);
        User {
            stream: Rng::new(self.seed, u64::from(user)).next(),
            number: 0,
            memory: match self.classes[class].remembers {
                Remembers::Something => Some(Box::default()),
                Remembers::Nothing => None,
            },
            class: u16::try_from(class).unwrap_or(0),
        }
    }

    /// Multiples of the golden ratio fill the unit interval evenly from the first
    /// few on, so that any number of users has about the right share of each
    /// class, and a user stays in its class when others come or go.
    fn class_of(&self, user: u32) -> usize {
        const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
        let point = u64::from(user).wrapping_mul(GOLDEN);
        let wide = u128::from(point) * u128::from(self.weight_total);
        let weight = u64::try_from(wide >> 64).unwrap_or(0);
        let found = self.classes.iter().position(|c| weight < c.weight_end);
        found.unwrap_or(0)
    }
}

fn number(numbers: Numbers, index: usize) -> u32 {
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    let offset = numbers.step.saturating_mul(index);
    numbers.first.saturating_add(offset)
}

/// The tasks of one class.
#[derive(Debug)]
struct Tasks {
    /// This class and those before it weigh so much.
    weight_end: u64,
    tasks: Vec<Weighted>,
    weight_total: u64,
    /// Index of the first task in [`Scenario::task_names`].
    task_first: usize,
    think: Think,
    population: Population,
    keys: Keys,
    /// In place of a look-up or repeat that has nothing to refer to yet.
    balance: Get,
    remembers: Remembers,
}

#[derive(Debug)]
struct Weighted {
    /// This task and those before it weigh so much.
    weight_end: u64,
    maker: Maker,
}

#[derive(Debug)]
enum Maker {
    Post(Post, KeepBody),
    /// Of an account.
    Read(Get),
    Lookup(Get),
    Repeat,
    Fixed(Get),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remembers {
    Something,
    Nothing,
}

/// What a maker wrote.
struct Made {
    transfers: usize,
    span: Span,
    repeat: Repeat,
    keep: KeepBody,
}

const READ: Made = Made {
    transfers: 0,
    span: Span {
        first: Key::first(0, 0),
        count: 0,
    },
    repeat: Repeat::Unsafe,
    keep: KeepBody::Problems,
};

impl Tasks {
    fn new(
        head: Head<'_>,
        class: &Class,
        plans: Plans,
        (weight_end, task_first): (u64, usize),
    ) -> Self {
        let has = |wanted| class.tasks.iter().any(|task| task.task == wanted);
        // Look-ups and journals need the ids that were answered.
        let keep = if has(Task::Lookup) || plans == Plans::Told {
            KeepBody::All
        } else {
            KeepBody::Problems
        };
        let mut weight_total = 0;
        let mut tasks = Vec::new();
        for task in &class.tasks {
            weight_total += u64::from(task.weight);
            let maker = match task.task {
                Task::Transfer => Maker::Post(Post::transfer(head, class), keep),
                Task::Batch(count) => Maker::Post(Post::batch(head, class, count), KeepBody::All),
                Task::Balance => Maker::Read(Get::new(head, "/balance/", "")),
                Task::History(rows) => {
                    let limit = format!("&limit={rows}");
                    Maker::Read(Get::new(head, "/transactions?account=", &limit))
                }
                Task::Lookup => Maker::Lookup(Get::new(head, "/transactions/", "")),
                Task::Repeat => Maker::Repeat,
                Task::Health => Maker::Fixed(Get::new(head, "/health", "")),
            };
            tasks.push(Weighted {
                weight_end: weight_total,
                maker,
            });
        }
        Self {
            weight_end,
            tasks,
            weight_total,
            task_first,
            think: class.think,
            population: class.population,
            keys: class.keys,
            balance: Get::new(head, "/balance/", ""),
            remembers: if has(Task::Lookup) || has(Task::Repeat) {
                Remembers::Something
            } else {
                Remembers::Nothing
            },
        }
    }

    fn next(&mut self, user: &mut User, turn: Turn, page: &mut Page<'_>) -> Next {
        let mut rng = Rng::new(user.stream, turn.number);
        let (chosen, think) = self.begin(&mut rng);
        let made = match &self.tasks[chosen].maker {
            Maker::Post(..) => {
                if let Some(memory) = &mut user.memory {
                    memory.requests.push(turn.number);
                }
                self.post(chosen, turn, &mut rng, page)
            }
            Maker::Read(get) => self.read(get, turn, &mut rng, page.out),
            Maker::Fixed(get) => {
                get.write(page.out, b"");
                READ
            }
            Maker::Lookup(get) => {
                let memory = user.memory.as_ref();
                match memory.and_then(|memory| memory.transactions.pick(&mut rng)) {
                    None => self.read(&self.balance, turn, &mut rng, page.out),
                    Some(id) => {
                        let mut text = Uuid::encode_buffer();
                        get.write(page.out, id.hyphenated().encode_lower(&mut text).as_bytes());
                        READ
                    }
                }
            }
            Maker::Repeat => {
                let memory = user.memory.as_ref();
                match memory.and_then(|memory| memory.requests.pick(&mut rng)) {
                    None => self.read(&self.balance, turn, &mut rng, page.out),
                    Some(number) => self.repeat(user.stream, Turn { number, ..turn }, page),
                }
            }
        };
        Next {
            task: self.task_first + chosen,
            transfers: made.transfers,
            span: made.span,
            repeat: made.repeat,
            think,
            keep: made.keep,
        }
    }

    /// Index of a task, by weight, and think time: drawn before all else, so that
    /// neither depends on what there is to refer to.
    fn begin(&self, rng: &mut Rng) -> (usize, Duration) {
        let weight = rng.below(self.weight_total);
        let found = self.tasks.iter().position(|task| weight < task.weight_end);
        (found.unwrap_or(0), self.think.draw(rng))
    }

    fn read(&self, get: &Get, turn: Turn, rng: &mut Rng, out: &mut Vec<u8>) -> Made {
        get.write_id(out, self.population.one(rng, turn.place()));
        READ
    }

    /// The earlier request of a turn, byte by byte as it was.
    fn repeat(&mut self, stream: u64, earlier: Turn, page: &mut Page<'_>) -> Made {
        let mut rng = Rng::new(stream, earlier.number);
        let (chosen, _) = self.begin(&mut rng);
        let made = self.post(chosen, earlier, &mut rng, page);
        Made {
            transfers: 0,
            ..made
        }
    }

    fn post(&mut self, chosen: usize, turn: Turn, rng: &mut Rng, page: &mut Page<'_>) -> Made {
        let Maker::Post(post, keep) = &mut self.tasks[chosen].maker else {
            return READ;
        };
        post.write(page, turn, rng);
        let transfers = post.transfers();
        Made {
            transfers,
            span: Span {
                first: Key::first(turn.user, turn.number),
                count: transfers,
            },
            repeat: match self.keys {
                Keys::On => Repeat::Safe,
                Keys::Off => Repeat::Unsafe,
            },
            keep: *keep,
        }
    }
}
