//! Counts what each thread asks of the allocator, and on demand remembers from where.
#![allow(
    unsafe_code,
    reason = "a global allocator cannot be written without it; it only counts and delegates"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Threads that are told apart; later ones share the last place.
const THREADS_MAX: usize = 64;
/// Backtraces that are kept: each costs some microseconds and some hundred bytes.
const TRACES_MAX: usize = 20_000;

/// What a thread, or all of them, has asked for so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    /// Calls that returned memory; growing a block is one.
    pub(crate) allocations: u64,
    /// Bytes of these.
    pub(crate) taken: u64,
    /// Bytes given back, whoever had asked for them.
    pub(crate) given_back: u64,
}

impl Asked {
    /// What was asked for since `before`.
    pub(crate) const fn since(self, before: Self) -> Self {
        Self {
            allocations: self.allocations - before.allocations,
            taken: self.taken - before.taken,
            given_back: self.given_back - before.given_back,
        }
    }

    /// Bytes in use.
    pub(crate) const fn live(self) -> i64 {
        self.taken as i64 - self.given_back as i64
    }
}

/// What the thread with this kernel id has asked for.
pub(crate) fn of_thread(id: u32) -> Asked {
    ROWS.iter().find(|row| row.thread.load(Relaxed) == id).map(Row::read).unwrap_or_default()
}

/// What the whole process has asked for.
pub(crate) fn of_process() -> Asked {
    ROWS.iter().map(Row::read).fold(Asked::default(), |sum, row| Asked {
        allocations: sum.allocations + row.allocations,
        taken: sum.taken + row.taken,
        given_back: sum.given_back + row.given_back,
    })
}

/// Bytes in use as the C library counts them: with what C code has asked for, and with the C library's own overhead.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn of_libc() -> i64 {
    /// `struct mallinfo2` of glibc 2.33 and later.
    #[repr(C)]
    struct MallInfo {
        before: [usize; 4],
        mapped: usize,
        between: [usize; 2],
        used: usize,
        after: [usize; 2],
    }
    unsafe extern "C" {
        safe fn mallinfo2() -> MallInfo;
    }
    let info = mallinfo2();
    let MallInfo { before: _, mapped, between: _, used, after: _ } = info;
    (used + mapped) as i64
}

/// Only glibc says it.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn of_libc() -> i64 {
    of_process().live()
}

/// From now on keeps a backtrace of each allocation of the thread with this kernel id; 0: of none.
pub(crate) fn trace(id: u32) {
    TRACED.store(id, Relaxed);
}

/// The bytes asked for and the place of every allocation traced so far.
pub(crate) fn traces() -> Vec<(usize, Backtrace)> {
    BUSY.set(true);
    let found = TRACES.lock().map(|mut traces| std::mem::take(&mut *traces)).unwrap_or_default();
    BUSY.set(false);
    found
}

/// One thread's numbers.
struct Row {
    thread: AtomicU32,
    allocations: AtomicU64,
    taken: AtomicU64,
    given_back: AtomicU64,
}

impl Row {
    const fn new() -> Self {
        Self {
            thread: AtomicU32::new(0),
            allocations: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            given_back: AtomicU64::new(0),
        }
    }

    fn read(&self) -> Asked {
        Asked {
            allocations: self.allocations.load(Relaxed),
            taken: self.taken.load(Relaxed),
            given_back: self.given_back.load(Relaxed),
        }
    }
}

static ROWS: [Row; THREADS_MAX] = [const { Row::new() }; THREADS_MAX];
static NEXT_ROW: AtomicUsize = AtomicUsize::new(0);
static TRACED: AtomicU32 = AtomicU32::new(0);
static TRACES: Mutex<Vec<(usize, Backtrace)>> = Mutex::new(Vec::new());

thread_local! {
    /// Where this thread counts; the first call finds a place.
    static ROW: Cell<Option<&'static Row>> = const { Cell::new(None) };
    /// Set while a backtrace is made: what that asks for is not counted.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

fn row() -> Option<&'static Row> {
    // A thread that is ending has no place any more.
    ROW.try_with(|row| {
        if row.get().is_none() {
            let mine = &ROWS[NEXT_ROW.fetch_add(1, Relaxed).min(THREADS_MAX - 1)];
            mine.thread.store(rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned(), Relaxed);
            row.set(Some(mine));
        }
        row.get()
    })
    .ok()
    .flatten()
}

fn count(taken: usize, given_back: usize) {
    if BUSY.try_with(Cell::get).unwrap_or(true) {
        return;
    }
    let Some(row) = row() else { return };
    row.given_back.fetch_add(given_back as u64, Relaxed);
    if taken == 0 {
        return;
    }
    row.taken.fetch_add(taken as u64, Relaxed);
    row.allocations.fetch_add(1, Relaxed);
    let traced = TRACED.load(Relaxed);
    if traced != 0 && traced == row.thread.load(Relaxed) {
        BUSY.set(true);
        if let Ok(mut traces) = TRACES.lock()
            && traces.len() < TRACES_MAX
        {
            traces.push((taken, Backtrace::force_capture()));
        }
        BUSY.set(false);
    }
}

/// The system's allocator with a counter beside it.
struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; only numbers are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the promises of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller keeps the promises of `dealloc`, and `at` came from `System`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes, layout.size());
        // SAFETY: the caller keeps the promises of `realloc`, and `at` came from `System`.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
