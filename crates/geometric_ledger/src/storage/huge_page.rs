//! Memory of one huge page, which takes the place of other memory while it is being read.
//!
//! A processor finds an address of a huge page in less time. The kernel makes huge pages of anonymous
//! memory only, so what is mapped from a file is copied, and the copy moved to its place.

use rustix::mm::{
    Advice, MapFlags, MremapFlags, ProtFlags, madvise, mmap_anonymous, mremap_fixed, munmap,
};
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::{NonNull, null_mut};
use std::sync::LazyLock;

/// Bytes of a huge page.
pub const HUGE: usize = 2 << 20;

pub struct HugePage(NonNull<u8>);

impl HugePage {
    /// Whether the system makes huge pages for those who ask.
    pub fn available() -> bool {
        static AVAILABLE: LazyLock<bool> = LazyLock::new(|| {
            let setting = "/sys/kernel/mm/transparent_hugepage/enabled";
            std::fs::read_to_string(setting).is_ok_and(|setting| !setting.contains("[never]"))
        });
        *AVAILABLE
    }

    /// Zeroed memory: a huge page, if the system has one.
    pub fn new() -> io::Result<Self> {
        let (read, write) = (ProtFlags::READ, ProtFlags::WRITE);
        // SAFETY: new memory, wherever the kernel likes.
        let all = unsafe {
            mmap_anonymous(null_mut(), 2 * HUGE, read | write, MapFlags::PRIVATE)?.cast::<u8>()
        };
        let before = all.align_offset(HUGE);
        let start = all.wrapping_add(before);
        for (unused, len) in [(all, before), (start.wrapping_add(HUGE), HUGE - before)] {
            if len > 0 {
                // SAFETY: a part of the new memory that nothing refers to.
                unsafe { munmap(unused.cast(), len)? };
            }
        }
        // SAFETY: it changes the cost of the memory, not its contents. Refused, small pages do as well.
        let _ = unsafe { madvise(start.cast(), HUGE, Advice::LinuxHugepage) };
        let mut page = HugePage(NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?);
        // Now, and not while the memory it is for is kept from being written.
        page[0] = 0;
        Ok(page)
    }

    /// Whether a huge page could be at an address.
    pub fn fits(place: *const u8) -> bool {
        place.align_offset(HUGE) == 0
    }

    /// Takes the place of the memory at `place`. Who reads there at the same time finds either.
    ///
    /// # Errors
    /// Where there are too many mappings, or no moving of memory.
    ///
    /// # Safety
    /// [`HUGE`] bytes at `place` are mapped, owned by the caller, equal to this page's, and not
    /// written to meanwhile.
    pub unsafe fn move_to(self, place: *mut u8) -> io::Result<()> {
        let from = self.0.as_ptr().cast();
        // SAFETY: by the caller's promise nothing is lost at `place`; the kernel lets nobody see that
        // neither is there.
        unsafe { mremap_fixed(from, HUGE, HUGE, MremapFlags::MAYMOVE, place.cast())? };
        // There is nothing any more where it was.
        std::mem::forget(self);
        Ok(())
    }
}

impl Deref for HugePage {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: so many bytes of initialised memory are owned here.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), HUGE) }
    }
}

impl DerefMut for HugePage {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr(), HUGE) }
    }
}

impl Drop for HugePage {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the memory any more.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), HUGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_aligned_and_can_be_written() {
        let mut page = HugePage::new().unwrap();
        assert!(HugePage::fits(page.as_ptr()));
        page[HUGE - 1] = 7;
        assert_eq!((page[0], page[HUGE - 1]), (0, 7));
    }
}
