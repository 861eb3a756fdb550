//! A file as memory that grows: words that any thread may read, and pages that know whether they
//! were written since the last checkpoint.
//!
//! The memory is a private mapping. Writing to it never changes the file; a checkpoint does, page by
//! page. It is mapped in chunks, each as long as all before it, so nothing ever moves and readers
//! need no lock. One thread writes at a time, or several to different cells. A block of pages can be
//! brought into a huge page, where it stays.

use crate::storage::disk::DiskFile;
use crate::storage::huge_page::{HUGE, HugePage};
pub use crate::storage::page_bits::BLOCK;
use crate::storage::page_bits::{
    CHUNKS, chunk_and_bit, chunk_of, clear, extent, is_set, ones, set,
};
use memmap2::{Advice, MmapMut};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// Bytes of a page: the unit of writing to the file.
pub const PAGE: usize = 4096;
const PAGE_WORDS: usize = PAGE / 8;
const _: () = assert!(BLOCK as usize * PAGE == HUGE);
/// The file grows by a sixteenth, within these bounds (bytes).
const STEP: Range<u64> = 64 << 10..16 << 20;

pub type Page = [u8; PAGE];

/// Where a region's memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// The file, mapped: read when touched.
    Mapped,
    /// As `Mapped`, of a file that may not grow: what goes beyond it is memory only.
    Fixed,
}

/// What every access reads comes first, and in as few cache lines as may be: a ledger has hundreds of
/// regions.
#[repr(C, align(64))]
pub struct Region {
    /// Bytes that may be touched.
    len: AtomicU64,
    bases: [Base; CHUNKS],
    chunks: [OnceLock<Chunk>; CHUNKS],
    saved: Mutex<Vec<(u64, Box<Page>)>>,
    /// Pages of which there is a copy here beside the file's.
    private: AtomicU64,
    /// Pages that were written since the region was frozen, and pages of the frozen state that nobody
    /// has taken.
    dirty: AtomicU64,
    frozen: AtomicU64,
    memory: Memory,
    file: Arc<dyn DiskFile>,
}

/// Where to find a chunk's memory and its dirty bits: where they would begin if they began at the
/// region's start.
struct Base {
    memory: AtomicPtr<u8>,
    dirty: AtomicPtr<AtomicU64>,
}

struct Chunk {
    map: MmapMut,
    /// One bit a page: written since the last [`Region::freeze`].
    dirty: Vec<AtomicU64>,
    /// One bit a page: belongs to the frozen state, and has not been copied yet.
    frozen: Vec<AtomicU64>,
    /// One bit a page: written since it was last released.
    private: Vec<AtomicU64>,
    /// One bit a block: in a huge page.
    huge: Vec<AtomicU64>,
}

impl Region {
    pub fn open(file: Arc<dyn DiskFile>, memory: Memory) -> io::Result<Self> {
        let region = Region {
            len: AtomicU64::new(0),
            chunks: std::array::from_fn(|_| OnceLock::new()),
            bases: std::array::from_fn(|_| Base {
                memory: AtomicPtr::new(std::ptr::null_mut()),
                dirty: AtomicPtr::new(std::ptr::null_mut()),
            }),
            saved: Mutex::default(),
            private: AtomicU64::new(0),
            dirty: AtomicU64::new(0),
            frozen: AtomicU64::new(0),
            file,
            memory,
        };
        let len = region.file.size()? / PAGE as u64 * PAGE as u64;
        region.map(len)?;
        Ok(region)
    }

    /// Makes the first `bytes` of the region usable.
    pub fn ensure(&self, bytes: u64) -> io::Result<()> {
        let len = self.len.load(Ordering::Relaxed);
        if bytes <= len {
            return Ok(());
        }
        let step = (len / 16).clamp(STEP.start, STEP.end);
        let new = bytes.max(len + step).next_multiple_of(PAGE as u64);
        if self.memory != Memory::Fixed {
            self.file.grow(new)?;
        }
        self.map(new)
    }

    fn map(&self, len: u64) -> io::Result<()> {
        let pages = len / PAGE as u64;
        for (number, chunk) in self.chunks.iter().enumerate() {
            let (start, count) = extent(number);
            if start >= pages {
                break;
            }
            if chunk.get().is_none() {
                let (offset, bytes) = (start * PAGE as u64, count as usize * PAGE);
                let map = self.chunk(offset, bytes)?;
                let bits = |count: u64| {
                    (0..count.div_ceil(64))
                        .map(|_| AtomicU64::new(0))
                        .collect::<Vec<_>>()
                };
                let chunk = chunk.get_or_init(|| Chunk {
                    map,
                    dirty: bits(count),
                    frozen: bits(count),
                    private: bits(count),
                    huge: bits(count / BLOCK),
                });
                let memory = chunk.map.as_ptr().cast_mut();
                let memory = memory.wrapping_sub(offset as usize);
                let dirty = chunk.dirty.as_ptr().cast_mut();
                let dirty = dirty.wrapping_sub(start as usize / 64);
                self.bases[number].memory.store(memory, Ordering::Release);
                self.bases[number].dirty.store(dirty, Ordering::Release);
            }
        }
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    fn chunk(&self, offset: u64, bytes: usize) -> io::Result<MmapMut> {
        let there = self.file.size()?.saturating_sub(offset).min(bytes as u64);
        let whole = there == bytes as u64;
        if self.memory == Memory::Mapped || (self.memory == Memory::Fixed && whole) {
            // SAFETY: the directory is locked, so no other ledger changes the file. This one makes it no
            // shorter, writes to it only what the mapping holds, and reads the mapping as atomics.
            let map = unsafe { self.file.map(offset, bytes) }?;
            if map.len() != bytes || !map.as_ptr().addr().is_multiple_of(PAGE) {
                return Err(io::Error::other("a file is not mapped as it was asked for"));
            }
            // Keys are hashes, so what lies beside a page that is read is not wanted. Reading a page around
            // it as well would make reads of more data than memory eighty times slower. Where something is
            // read in order, `Region::will_need` says so.
            let _ = map.advise(Advice::Random);
            return Ok(map);
        }
        let mut map = MmapMut::map_anon(bytes)?;
        self.file.read_at(&mut map[..there as usize], offset)?;
        Ok(map)
    }

    /// The bytes that the region takes of its file.
    pub fn bytes(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// A cell, if there is one of that number.
    #[inline]
    pub fn cell<const N: usize>(&self, number: u64) -> Option<&[AtomicU64; N]> {
        const { assert!(PAGE_WORDS.is_multiple_of(N)) };
        let offset = number.checked_mul(8 * N as u64)?;
        if offset >= self.len.load(Ordering::Acquire) {
            return None;
        }
        let base = &self.bases[chunk_of(offset / PAGE as u64)];
        let base = base.memory.load(Ordering::Acquire);
        // SAFETY: below `len` every chunk is mapped, page-aligned, for as long as the region lives,
        // and accessed only through atomics; a cell never crosses a page, nor `len`, which is a
        // multiple of one.
        Some(unsafe { &*base.wrapping_add(offset as usize).cast() })
    }

    /// As [`Region::cell`], and asks the processor to have the cell at hand soon.
    #[inline]
    pub fn prefetch<const N: usize>(&self, number: u64) -> Option<&[AtomicU64; N]> {
        let cell = self.cell::<N>(number)?;
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        for line in cell.chunks(8) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch has no effect but on the cache.
            unsafe { _mm_prefetch(line.as_ptr().cast(), _MM_HINT_T0) };
        }
        Some(cell)
    }

    /// To be called before a cell is written that must be in the next checkpoint as it is when the
    /// region is frozen, and not later.
    pub fn touch<const N: usize>(&self, number: u64) {
        let page = number * N as u64 / PAGE_WORDS as u64;
        let (chunk, bit) = self.page(page);
        if clear(&chunk.frozen, bit) {
            let image = self.image(page);
            self.saved.lock().unwrap().push((page, image));
        }
        self.written(chunk, bit);
    }

    /// To be called after a cell was written whose later states a checkpoint may hold as well.
    #[inline]
    pub fn mark_dirty<const N: usize>(&self, number: u64) {
        let page = number * N as u64 / PAGE_WORDS as u64;
        let dirty = self.bases[chunk_of(page)].dirty.load(Ordering::Acquire);
        assert!(!dirty.is_null(), "a cell of the page was reached");
        // SAFETY: a base is of its chunk's bits, of which every page of the chunk has one, for as
        // long as the region lives.
        let word = unsafe { &*dirty.wrapping_add(page as usize / 64) };
        if word.load(Ordering::Relaxed) & 1 << (page % 64) == 0 {
            let (chunk, bit) = self.page(page);
            self.written(chunk, bit);
        }
    }

    fn written(&self, chunk: &Chunk, bit: u64) {
        if set(&chunk.dirty, bit) {
            self.dirty.fetch_add(1, Ordering::Relaxed);
            if set(&chunk.private, bit) {
                self.private.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// How many pages were written since the region was frozen.
    pub fn dirty(&self) -> u64 {
        self.dirty.load(Ordering::Relaxed)
    }

    /// How many pages are not in the file yet.
    pub fn unwritten(&self) -> u64 {
        self.dirty() + self.frozen.load(Ordering::Relaxed)
    }

    /// How many pages there is a copy of here beside the file's.
    pub fn private(&self) -> u64 {
        self.private.load(Ordering::Relaxed)
    }

    fn page(&self, page: u64) -> (&Chunk, u64) {
        let (chunk, bit) = chunk_and_bit(page);
        let chunk = self.chunks[chunk].get();
        (chunk.expect("a cell of the page was reached"), bit)
    }

    /// Declares the present state the frozen one. Nobody may write meanwhile: who has written a cell and
    /// found its page dirty has done so by then, and who does so from then on finds that it is not.
    pub fn freeze(&self) {
        let dirty = self.dirty.swap(0, Ordering::Relaxed);
        self.frozen.fetch_add(dirty, Ordering::Relaxed);
        for chunk in self.chunks.iter().filter_map(OnceLock::get) {
            for (dirty, frozen) in chunk.dirty.iter().zip(&chunk.frozen) {
                if dirty.load(Ordering::Relaxed) != 0 {
                    frozen.fetch_or(dirty.swap(0, Ordering::Relaxed), Ordering::Relaxed);
                }
            }
        }
    }

    /// At most about `count` pages of the frozen state, as they were, those saved before they were
    /// overwritten included. Empty when there are none left. Nobody may write meanwhile.
    pub fn take_frozen(&self, count: usize) -> Vec<(u64, Box<Page>)> {
        let pages = self.frozen_pages(count);
        self.frozen.fetch_sub(pages.len() as u64, Ordering::Relaxed);
        pages
    }

    fn frozen_pages(&self, count: usize) -> Vec<(u64, Box<Page>)> {
        let mut pages = std::mem::take(&mut *self.saved.lock().unwrap());
        for (number, chunk) in self.chunks.iter().enumerate() {
            let Some(chunk) = chunk.get() else { break };
            for (at, word) in chunk.frozen.iter().enumerate() {
                if pages.len() >= count {
                    return pages;
                }
                let mut bits = word.swap(0, Ordering::Relaxed);
                while bits != 0 {
                    let page = extent(number).0 + at as u64 * 64 + u64::from(bits.trailing_zeros());
                    pages.push((page, self.image(page)));
                    bits &= bits - 1;
                }
            }
        }
        pages
    }

    /// Runs of pages of the frozen state, of at most `longest` pages, that are to be copied as they are
    /// then: of a region in which cells are only marked.
    pub fn each_frozen(
        &self,
        longest: u64,
        mut each: impl FnMut(Range<u64>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut each = |run: Range<u64>| -> io::Result<()> {
            let pages = run.end - run.start;
            each(run)?;
            self.frozen.fetch_sub(pages, Ordering::Relaxed);
            Ok(())
        };
        let mut run = 0..0;
        for (number, chunk) in self.chunks.iter().enumerate() {
            let Some(chunk) = chunk.get() else { break };
            for (at, word) in chunk.frozen.iter().enumerate() {
                let mut bits = word.swap(0, Ordering::Relaxed);
                while bits != 0 {
                    let page = extent(number).0 + at as u64 * 64 + u64::from(bits.trailing_zeros());
                    if page == run.end && run.end - run.start < longest {
                        run.end += 1;
                    } else {
                        if !run.is_empty() {
                            each(run)?;
                        }
                        run = page..page + 1;
                    }
                    bits &= bits - 1;
                }
            }
        }
        if run.is_empty() { Ok(()) } else { each(run) }
    }

    /// A page's bytes; each word of them as it was at some moment.
    pub fn image(&self, page: u64) -> Box<Page> {
        let mut image = Box::new([0; PAGE]);
        self.copy_page(page, &mut image);
        image
    }

    pub fn copy_page(&self, page: u64, image: &mut Page) {
        let words = self.cell::<PAGE_WORDS>(page).expect("the page is there");
        for (bytes, word) in image.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
    }

    /// Sets a page's bytes in memory, as recovery does.
    pub fn restore(&self, page: u64, image: &Page) -> io::Result<()> {
        self.ensure((page + 1) * PAGE as u64)?;
        let words = self.cell::<PAGE_WORDS>(page).expect("the page is there");
        for (bytes, word) in image.chunks_exact(8).zip(words) {
            word.store(
                u64::from_le_bytes(bytes.try_into().unwrap()),
                Ordering::Relaxed,
            );
        }
        self.touch::<PAGE_WORDS>(page);
        Ok(())
    }

    /// Asks the kernel to read cells into memory that are needed soon, one after another.
    pub fn will_need<const N: usize>(&self, cells: Range<u64>) {
        let cells_per_page = (PAGE_WORDS / N) as u64;
        let len = self.len.load(Ordering::Acquire) / PAGE as u64;
        let (from, to) = (
            cells.start / cells_per_page,
            cells.end.div_ceil(cells_per_page).min(len),
        );
        for (number, chunk) in self.chunks.iter().enumerate() {
            let (start, count) = extent(number);
            let (from, to) = (from.max(start), to.min(start + count));
            if let Some(chunk) = chunk.get().filter(|_| from < to) {
                let (offset, len) = ((from - start) as usize, (to - from) as usize);
                let range = (offset * PAGE, len * PAGE);
                // It is as well read when it is touched.
                let _ = chunk.map.advise_range(Advice::WillNeed, range.0, range.1);
            }
        }
    }

    /// The blocks that are in no huge page, though at least so many of their pages are in use, and so
    /// many were written.
    pub fn small_blocks(&self, used: u64, written: u64) -> Vec<u64> {
        let mut blocks = Vec::new();
        let len = self.len.load(Ordering::Acquire) / PAGE as u64;
        for (number, chunk) in self.chunks.iter().enumerate() {
            let (start, count) = extent(number);
            let Some(chunk) = chunk.get().filter(|_| start < len) else {
                break;
            };
            if self.memory != Memory::Mapped || !HugePage::fits(chunk.map.as_ptr()) {
                continue;
            }
            for (block, bits) in chunk.private.chunks(BLOCK as usize / 64).enumerate() {
                let block = block as u64;
                let there = (len - start).min(count).saturating_sub(block * BLOCK);
                if there >= used && ones(bits) >= written && !is_set(&chunk.huge, block) {
                    blocks.push(start / BLOCK + block);
                }
            }
        }
        blocks
    }

    /// How many blocks are in huge pages.
    pub fn huge(&self) -> u64 {
        let chunks = self.chunks.iter().map_while(OnceLock::get);
        chunks.map(|chunk| ones(&chunk.huge)).sum()
    }

    /// Brings one of [`Region::small_blocks`] into a huge page; whether that was possible. Nobody may
    /// write meanwhile.
    pub fn promote(&self, block: u64, mut memory: HugePage) -> bool {
        let first = block * BLOCK;
        self.will_need::<PAGE_WORDS>(first..first + BLOCK);
        let len = self.len.load(Ordering::Acquire) / PAGE as u64;
        for (page, image) in (first..len).zip(memory.chunks_exact_mut(PAGE)) {
            self.copy_page(page, image.try_into().expect("it is as long as a page"));
        }
        let (chunk, page) = self.page(first);
        if !chunk.replace(page as usize, memory) {
            return false;
        }
        set(&chunk.huge, page / BLOCK);
        let new = (page..page + BLOCK).filter(|page| set(&chunk.private, *page));
        self.private
            .fetch_add(new.count() as u64, Ordering::Relaxed);
        true
    }

    /// Lets the memory of up to `count` small pages go that hold what the file holds; how many it
    /// were. Nobody may write meanwhile.
    pub fn release(&self, count: u64) -> u64 {
        let mut released = 0;
        if self.memory != Memory::Mapped {
            return released;
        }
        for chunk in self.chunks.iter().map_while(OnceLock::get) {
            for (word, private) in chunk.private.iter().enumerate() {
                if is_set(&chunk.huge, word as u64 * 64 / BLOCK) {
                    continue;
                }
                let needed = chunk.dirty[word].load(Ordering::Relaxed)
                    | chunk.frozen[word].load(Ordering::Relaxed);
                let mut bits = private.load(Ordering::Relaxed) & !needed;
                while bits != 0 && released < count {
                    let page = word * 64 + bits.trailing_zeros() as usize;
                    chunk.let_go(page);
                    clear(&chunk.private, page as u64);
                    released += 1;
                    bits &= bits - 1;
                }
            }
        }
        self.private.fetch_sub(released, Ordering::Relaxed);
        released
    }

    pub fn file(&self) -> &dyn DiskFile {
        &*self.file
    }
}

impl Chunk {
    fn replace(&self, page: usize, memory: HugePage) -> bool {
        let place = self.map.as_ptr().wrapping_add(page * PAGE).cast_mut();
        // SAFETY: the block is inside the mapping, of which it stays a part; the words are the same,
        // and accessed only through atomics; nobody writes meanwhile. What lies beyond the region's
        // length is not accessed yet, and zero in the file as well.
        unsafe { memory.move_to(place) }.is_ok()
    }

    fn let_go(&self, page: usize) {
        #[cfg(not(miri))]
        {
            let start = self.map.as_ptr().wrapping_add(page * PAGE).cast_mut();
            // SAFETY: the page is inside the mapping, and equal to the file's, which is what readers
            // find from now on; nobody writes to it meanwhile. Should the kernel refuse, the page
            // stays, which is as good.
            let _ = unsafe {
                rustix::mm::madvise(start.cast(), PAGE, rustix::mm::Advice::LinuxDontNeed)
            };
        }
        #[cfg(miri)]
        let _ = page;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::OpenFile;

    #[test]
    fn a_frozen_page_is_given_as_it_was() {
        let file = tempfile::tempfile().unwrap();
        let region = Region::open(Arc::new(OpenFile(file)), Memory::Mapped).unwrap();
        region.ensure(10 * PAGE as u64).unwrap();
        let write = |cell: u64, word| {
            region.touch::<8>(cell);
            region.cell::<8>(cell).unwrap()[0].store(word, Ordering::Relaxed);
        };
        write(0, 1);
        write(64, 1);
        region.freeze();
        write(0, 2);
        let mut pages = region.take_frozen(100);
        pages.sort();
        let found: Vec<_> = pages
            .iter()
            .map(|(page, image)| (*page, image[0]))
            .collect();
        assert_eq!(found, [(0, 1), (1, 1)]);
        region.freeze();
        assert_eq!(region.take_frozen(100).len(), 1);
    }

    #[test]
    fn a_block_comes_into_a_huge_page_while_it_is_read_and_stays_what_it_was() {
        let file = tempfile::tempfile().unwrap();
        let region = Region::open(Arc::new(OpenFile(file)), Memory::Mapped).unwrap();
        let pages = 3 * BLOCK + 10;
        region.ensure(pages * PAGE as u64).unwrap();
        let cells = region.bytes() / 64;
        let cell = |number| &region.cell::<8>(number).unwrap()[0];
        for number in 0..cells {
            cell(number).store(number + 1, Ordering::Relaxed);
            region.mark_dirty::<8>(number);
        }
        let blocks = region.small_blocks(1, BLOCK);
        // Kernels before 6.7 map files where huge pages do not fit.
        let mut chunks = region.chunks.iter().filter_map(OnceLock::get);
        let fits = chunks.all(|chunk| HugePage::fits(chunk.map.as_ptr()));
        assert!(!fits || blocks.len() >= 3, "{blocks:?}");
        let first = blocks.contains(&0);
        let stop = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while stop.load(Ordering::Relaxed) == 0 {
                    for number in (0..cells).step_by(61) {
                        assert_eq!(cell(number).load(Ordering::Relaxed), number + 1);
                    }
                }
            });
            let promoted = blocks
                .into_iter()
                .all(|block| region.promote(block, HugePage::new().unwrap()));
            stop.store(1, Ordering::Relaxed);
            assert!(promoted);
        });
        assert!(region.small_blocks(1, BLOCK).is_empty());
        assert!(region.private() >= 3 * BLOCK);

        // It is written to the file like any other, and not let go.
        region.freeze();
        let mut written = 0;
        let each = |run: Range<u64>| {
            written += run.end - run.start;
            run.into_iter().try_for_each(|page| {
                let (image, offset) = (region.image(page), page * PAGE as u64);
                region.file().write_at(&image[..], offset)
            })
        };
        region.each_frozen(BLOCK, each).unwrap();
        assert_eq!(written, region.bytes() / PAGE as u64);
        cell(5).store(0, Ordering::Relaxed);
        region.release(u64::MAX);
        assert_eq!(cell(5).load(Ordering::Relaxed) == 0, first);
        for number in 6..cells {
            assert_eq!(cell(number).load(Ordering::Relaxed), number + 1);
        }
    }

    #[test]
    fn what_is_written_while_a_checkpoint_writes_is_in_the_next_one_as_well() {
        let file = tempfile::tempfile().unwrap();
        let region = Region::open(Arc::new(OpenFile(file)), Memory::Mapped).unwrap();
        region.ensure(10 * PAGE as u64).unwrap();
        let pages = || {
            let mut pages = Vec::new();
            let each = |run| {
                pages.extend(run);
                Ok(())
            };
            region.each_frozen(2, each).unwrap();
            pages
        };
        region.mark_dirty::<PAGE_WORDS>(3);
        assert_eq!(pages(), [0; 0]);
        region.freeze();
        region.mark_dirty::<PAGE_WORDS>(3);
        region.mark_dirty::<PAGE_WORDS>(4);
        assert_eq!(pages(), [3]);
        assert_eq!(pages(), [0; 0]);
        region.freeze();
        assert_eq!(pages(), [3, 4]);
    }
}
