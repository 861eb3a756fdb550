//! Work in a process and a transaction of its own: it is committed when the caller hears of it, whatever becomes of the
//! caller's transaction.
//!
//! Caller and worker share a segment of memory: the length of the request (8 bytes), the request, and a queue for the
//! answer, at the next place that is aligned.

use super::worker;
use pgrx::pg_sys;
use std::ffi::CStr;

/// Bytes of an answer that wait to be read.
const QUEUE: usize = 1 << 16;
const LENGTH: usize = size_of::<u64>();

/// The server has no room for another process.
#[derive(Debug)]
pub struct NoProcess;

/// Where the queue begins behind a request.
fn queue_at(request: usize) -> usize {
    let alignment = pg_sys::MAXIMUM_ALIGNOF as usize;
    (LENGTH + request).next_multiple_of(alignment)
}

/// Has `function` of this library do as `request` says, in this process' database. Returns its answer, or `None` if it
/// ended without one. `title` is what the process is called.
///
/// # Errors
/// If no process can be started.
pub fn ask(title: &str, function: &CStr, request: &[u8]) -> Result<Option<Vec<u8>>, NoProcess> {
    // SAFETY: the segment has the layout that is described above; if an error is raised, the resource owner of the
    // transaction lets it go, and the worker finds nobody who waits.
    unsafe {
        let segment = pg_sys::dsm_create(queue_at(request.len()) + QUEUE, 0);
        let start = pg_sys::dsm_segment_address(segment).cast::<u8>();
        start.cast::<u64>().write(request.len() as u64);
        let bytes = start.add(LENGTH);
        bytes.copy_from_nonoverlapping(request.as_ptr(), request.len());
        let queue = pg_sys::shm_mq_create(start.add(queue_at(request.len())).cast(), QUEUE);
        pg_sys::shm_mq_set_receiver(queue, pg_sys::MyProc);
        let database = u64::from(pg_sys::MyDatabaseId.to_u32());
        let handle = u64::from(pg_sys::dsm_segment_handle(segment));
        let argument = pg_sys::Datum::from(database << 32 | handle);
        let Some(process) = worker::start_once(title, function, argument) else {
            pg_sys::dsm_detach(segment);
            return Err(NoProcess);
        };
        let attached = pg_sys::shm_mq_attach(queue, segment, process);
        let (mut size, mut data) = (0, std::ptr::null_mut());
        let result = pg_sys::shm_mq_receive(attached, &mut size, &mut data, false);
        let answer = (result == pg_sys::shm_mq_result::SHM_MQ_SUCCESS)
            .then(|| std::slice::from_raw_parts(data.cast::<u8>(), size).to_vec());
        pg_sys::dsm_detach(segment);
        Ok(answer)
    }
}

/// The worker's side: `work` begins outside any transaction.
pub fn serve(argument: pg_sys::Datum, work: impl FnOnce(&[u8]) -> Vec<u8>) {
    let argument = argument.value() as u64;
    worker::begin(Some(pg_sys::Oid::from((argument >> 32) as u32)));
    // SAFETY: the segment has the layout that `ask` has given it, for as long as this process is attached.
    unsafe {
        let segment = pg_sys::dsm_attach(argument as u32);
        if segment.is_null() {
            return;
        }
        let start = pg_sys::dsm_segment_address(segment).cast::<u8>();
        let size = start.cast::<u64>().read() as usize;
        let request = std::slice::from_raw_parts(start.add(LENGTH), size);
        let queue = start.add(queue_at(size)).cast::<pg_sys::shm_mq>();
        pg_sys::shm_mq_set_sender(queue, pg_sys::MyProc);
        let queue = pg_sys::shm_mq_attach(queue, segment, std::ptr::null_mut());
        let answer = work(request);
        // Version 14 has no way to send later, and sends at once.
        pg_sys::shm_mq_send(
            queue,
            answer.len(),
            answer.as_ptr().cast(),
            false,
            #[cfg(since_pg15)]
            true,
        );
        pg_sys::dsm_detach(segment);
    }
}
