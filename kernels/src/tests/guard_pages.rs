//! Puts everything that this crate's tests allocate between pages that nobody may touch, so that a kernel that reads or
//! writes one value too many ends the test.
//!
//! ```text
//! | no access | room: whole pages [.............. buffer] | no access |
//! ```
//!
//! Buffers lie flush with the page behind them; with `KINGLET_GUARD_PAGES=start` in the environment with the one before.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::num::NonZero;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

#[global_allocator]
static ALLOCATOR: GuardPages = GuardPages::new();

/// A multiple of the pages of every system.
const PAGE: usize = 64 << 10;
/// Rooms of so many pages are kept and used again: mapping each anew takes longer than the tests.
const KEPT: usize = 64;

struct GuardPages {
    locked: AtomicBool,
    /// For each number of pages the first free room, which holds the address of the next.
    free: UnsafeCell<[*mut u8; KEPT + 1]>,
}

// SAFETY: `free` is only touched while `locked` is held.
unsafe impl Sync for GuardPages {}

impl GuardPages {
    const fn new() -> Self {
        Self { locked: AtomicBool::new(false), free: UnsafeCell::new([ptr::null_mut(); KEPT + 1]) }
    }

    /// Does something with the list of free rooms of so many pages.
    fn with_list<R>(&self, pages: usize, each: impl FnOnce(&mut *mut u8) -> R) -> R {
        while self.locked.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
        // SAFETY: the lock is held, and the reference ends before it is given up.
        let result = each(unsafe { &mut (&mut *self.free.get())[pages] });
        self.locked.store(false, Ordering::Release);
        result
    }
}

/// Whether buffers lie at the beginning of their room.
fn at_start() -> bool {
    static MODE: AtomicU8 = AtomicU8::new(0);
    if MODE.load(Ordering::Relaxed) == 0 {
        // SAFETY: the name ends in a zero; nothing sets variables while these tests run. `std::env` would allocate.
        let value = unsafe { libc::getenv(c"KINGLET_GUARD_PAGES".as_ptr()) };
        // SAFETY: a value that is there ends in a zero.
        let start = !value.is_null() && unsafe { libc::strcmp(value, c"start".as_ptr()) } == 0;
        MODE.store(if start { 2 } else { 1 }, Ordering::Relaxed);
    }
    MODE.load(Ordering::Relaxed) == 2
}

/// Pages of the room for `layout`, and where in it the buffer begins.
fn place(layout: Layout) -> (usize, usize) {
    let size = layout.pad_to_align().size();
    let pages = size.div_ceil(PAGE).max(1);
    (pages, if at_start() { 0 } else { pages * PAGE - size })
}

/// A new room; null where the system has no memory.
fn map(pages: usize) -> *mut u8 {
    let Some(length) = NonZero::new((pages + 2) * PAGE) else { return ptr::null_mut() };
    // SAFETY: a new private mapping, wherever there is room, touches nothing that exists.
    let mapping = unsafe { mmap_anonymous(None, length, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE) };
    let Ok(mapping) = mapping else { return ptr::null_mut() };
    // SAFETY: it lies inside the mapping, which nobody has seen yet.
    let room = unsafe { mapping.byte_add(PAGE) };
    // SAFETY: as above.
    let opened = unsafe { mprotect(room, pages * PAGE, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE) };
    if opened.is_ok() { room.cast().as_ptr() } else { ptr::null_mut() }
}

// SAFETY: a room is given out once until it is given back, is as long and as aligned as `layout` asks (alignments above
// a page are refused), and stays mapped as long as it is given out.
unsafe impl GlobalAlloc for GuardPages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (pages, offset) = place(layout);
        if layout.align() > 4096 {
            return ptr::null_mut();
        }
        let kept = if pages > KEPT { ptr::null_mut() } else { self.with_list(pages, take) };
        let room = if kept.is_null() { map(pages) } else { kept };
        if room.is_null() { room } else { room.wrapping_add(offset) }
    }

    unsafe fn dealloc(&self, buffer: *mut u8, layout: Layout) {
        let (pages, offset) = place(layout);
        let room = buffer.wrapping_sub(offset);
        if pages <= KEPT {
            self.with_list(pages, |list| {
                // SAFETY: the room is at least a page, aligned to one, and nobody's any more.
                unsafe { room.cast::<*mut u8>().write(*list) };
                *list = room;
            });
        } else if let Some(mapping) = NonNull::new(room.wrapping_sub(PAGE).cast::<c_void>()) {
            // SAFETY: `map` made this mapping with this length, and nobody uses it any more.
            let _ = unsafe { munmap(mapping, (pages + 2) * PAGE) };
        }
    }
}

/// Takes the first room off a list; null where it is empty.
fn take(list: &mut *mut u8) -> *mut u8 {
    let room = *list;
    if !room.is_null() {
        // SAFETY: a free room holds the address of the next one.
        *list = unsafe { room.cast::<*mut u8>().read() };
    }
    room
}

/// Whether a byte can be read, as the system sees it.
fn can_read(byte: *const u8) -> bool {
    let mut pipe = [0; 2];
    // SAFETY: the system checks the address, and reports what it cannot read.
    unsafe {
        assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
        let written = libc::write(pipe[1], byte.cast(), 1);
        libc::close(pipe[0]);
        libc::close(pipe[1]);
        written == 1
    }
}

#[test]
fn buffers_lie_between_pages_that_cannot_be_read() {
    for length in [1, 64, 4096, PAGE, PAGE + 1, (KEPT + 1) * PAGE] {
        let buffer = std::vec![7_u8; length];
        let (pages, offset) = place(Layout::for_value(&buffer[..]));
        let room = buffer.as_ptr().wrapping_sub(offset);
        assert!(can_read(&buffer[0]) && can_read(&buffer[length - 1]), "{length}");
        assert!(!can_read(room.wrapping_sub(1)), "{length}");
        assert!(!can_read(room.wrapping_add(pages * PAGE)), "{length}");
        assert!(offset == 0 || offset + length == pages * PAGE, "{length}: flush with one of them");
    }
}
