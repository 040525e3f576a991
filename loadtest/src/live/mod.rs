//! A run while it goes on: who watches it on standard error.
//!
//! Owns: standard error during a run, and what Ctrl-C means.
//! Never: touches the run but to stop it.
//! Invariant: a run that was interrupted is stopped, and still reported.

mod board;
mod snapshot;
mod view;

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub(crate) use self::board::{Board, Counted, ORDERS_MAX, Order, PUBLISH_EVERY, Sheet};
pub(crate) use self::snapshot::{Snapshot, Watcher};
use crate::args::Progress;
use crate::fleet::Running;

const POLL_EVERY: Duration = Duration::from_millis(20);
const PRINT_EVERY: Duration = Duration::from_secs(1);

/// Whether Ctrl-C was pressed or SIGTERM came.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// The first signal is told here; a second one ends the process at once.
    pub(crate) fn listen() -> std::io::Result<Self> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            let code = i32::from(crate::EXIT_INTERRUPTED);
            signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&flag))?;
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Self(flag))
    }

    pub(crate) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Shows progress until the run has ended: a table on a terminal, plain lines
/// elsewhere.
pub(crate) fn watch(session: &mut Running, progress: Progress, interrupt: &Interrupt) {
    let mut screen = match progress {
        Progress::Shown if std::io::stderr().is_terminal() => Screen::table(),
        Progress::Shown => Screen::Lines,
        Progress::Hidden => Screen::Nothing,
    };
    let mut shown_at = Instant::now();
    while !session.is_finished() {
        std::thread::sleep(POLL_EVERY);
        if interrupt.came() {
            session.stop();
        }
        if let Some(every) = screen.every()
            && every <= shown_at.elapsed()
            && let Some(snapshot) = session.snapshot()
        {
            shown_at = Instant::now();
            screen.show(session.run_time(), &snapshot);
        }
    }
    screen.clear();
}

#[derive(Debug)]
enum Screen {
    Table { bar: ProgressBar, view: view::View },
    Lines,
    Nothing,
}

impl Screen {
    fn table() -> Self {
        let Ok(style) = ProgressStyle::with_template("{msg}") else {
            return Self::Lines;
        };
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style);
        let view = view::View::new();
        Self::Table { bar, view }
    }

    const fn every(&self) -> Option<Duration> {
        match self {
            Self::Table { .. } => Some(PUBLISH_EVERY),
            Self::Lines => Some(PRINT_EVERY),
            Self::Nothing => None,
        }
    }

    fn show(&mut self, run_time: Duration, snapshot: &Snapshot) {
        match self {
            Self::Table { bar, view } => {
                view.add(snapshot);
                bar.set_message(view.table(run_time, snapshot));
            }
            Self::Lines => eprintln!("{}", view::line(snapshot)),
            Self::Nothing => {}
        }
    }

    fn clear(&self) {
        match self {
            Self::Table { bar, .. } => bar.finish_and_clear(),
            Self::Lines | Self::Nothing => {}
        }
    }
}
