//! A second process that reads while this one works: the server's own parallel workers, which share the
//! transaction, its snapshot, role and settings with their leader, and cannot write.

use super::spi::Snapshot;
use pgrx::pg_sys;
use std::ffi::CStr;

const REQUEST: u64 = 1;
const ANSWERS: u64 = 2;
/// Bytes of answers that wait for the leader at most.
const QUEUE: usize = 1 << 20;

/// A running helper. While there is one, this process must not run statements that write.
pub struct Helper {
    context: *mut pg_sys::ParallelContext,
    queue: *mut pg_sys::shm_mq_handle,
}

impl Helper {
    /// Starts `function` of this library in a process of its own, which reads with `snapshot`; with a fresh
    /// one, this process may go on to write. `None` if the server's settings allow no more processes.
    pub fn start(function: &CStr, request: &[u8], snapshot: Snapshot) -> Option<Helper> {
        // SAFETY: the order of calls is the one that `README.parallel` of the server asks for; what is
        // stored in the segment is laid out by the same library on the other side.
        unsafe {
            if pg_sys::max_parallel_maintenance_workers == 0 {
                return None;
            }
            if snapshot == Snapshot::Fresh {
                // No id can be assigned while there is a helper.
                pg_sys::GetCurrentTransactionId();
                pg_sys::CommandCounterIncrement();
                pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            }
            pg_sys::EnterParallelMode();
            let context =
                pg_sys::CreateParallelContext(c"merkle_log".as_ptr(), function.as_ptr(), 1);
            let size = size_of::<u64>() + request.len();
            let estimator = &mut (*context).estimator;
            // Two chunks, and what is lost to their alignment.
            estimator.space_for_chunks += size + QUEUE + 2 * pg_sys::ALIGNOF_BUFFER as usize;
            estimator.number_of_keys += 2;
            pg_sys::InitializeParallelDSM(context);
            if snapshot == Snapshot::Fresh {
                pg_sys::PopActiveSnapshot();
            }
            let toc = (*context).toc;
            let stored = pg_sys::shm_toc_allocate(toc, size);
            stored.cast::<u64>().write(request.len() as u64);
            let bytes = stored.cast::<u8>().add(size_of::<u64>());
            bytes.copy_from_nonoverlapping(request.as_ptr(), request.len());
            pg_sys::shm_toc_insert(toc, REQUEST, stored);
            let queue = pg_sys::shm_mq_create(pg_sys::shm_toc_allocate(toc, QUEUE), QUEUE);
            pg_sys::shm_toc_insert(toc, ANSWERS, queue.cast());
            pg_sys::shm_mq_set_receiver(queue, pg_sys::MyProc);
            pg_sys::LaunchParallelWorkers(context);
            let mut helper = Helper {
                context,
                queue: std::ptr::null_mut(),
            };
            if (*context).nworkers_launched == 0 {
                helper.finish();
                return None;
            }
            let process = (*(*context).worker).bgwhandle;
            helper.queue = pg_sys::shm_mq_attach(queue, (*context).seg, process);
            Some(helper)
        }
    }

    /// Waits for the next answer; `None` when the helper has no more. Raises the helper's error.
    pub fn receive(&mut self) -> Option<&[u8]> {
        let (mut size, mut data) = (0, std::ptr::null_mut());
        // SAFETY: the queue is this process' to read; an answer stays where it is until the next call,
        // which the borrow of `self` rules out.
        unsafe {
            let result = pg_sys::shm_mq_receive(self.queue, &mut size, &mut data, false);
            (result == pg_sys::shm_mq_result::SHM_MQ_SUCCESS)
                .then(|| std::slice::from_raw_parts(data.cast::<u8>(), size))
        }
    }

    /// Waits for the helper's end, and raises its error if it had one.
    pub fn finish(self) {
        // SAFETY: the counterparts of `start`. If an error is raised, the abort does the rest.
        unsafe {
            if !self.queue.is_null() {
                pg_sys::shm_mq_detach(self.queue);
            }
            pg_sys::WaitForParallelWorkersToFinish(self.context);
            pg_sys::DestroyParallelContext(self.context);
            pg_sys::ExitParallelMode();
        }
    }
}

/// The helper's side: runs `work` on the request, with a way to send answers that says false when
/// nobody waits for them any more.
///
/// # Safety
/// To be called by the function that `Helper::start` names, with its arguments.
pub unsafe fn serve(
    segment: *mut pg_sys::dsm_segment,
    toc: *mut pg_sys::shm_toc,
    work: impl FnOnce(&[u8], &mut dyn FnMut(&[u8]) -> bool),
) {
    // SAFETY: the leader has stored both, as `start` shows.
    unsafe {
        let stored = pg_sys::shm_toc_lookup(toc, REQUEST, false);
        let size = stored.cast::<u64>().read() as usize;
        let request = std::slice::from_raw_parts(stored.cast::<u8>().add(size_of::<u64>()), size);
        let queue = pg_sys::shm_toc_lookup(toc, ANSWERS, false).cast::<pg_sys::shm_mq>();
        pg_sys::shm_mq_set_sender(queue, pg_sys::MyProc);
        let queue = pg_sys::shm_mq_attach(queue, segment, std::ptr::null_mut());
        work(request, &mut |answer| {
            let data = answer.as_ptr().cast();
            let result = pg_sys::shm_mq_send(
                queue,
                answer.len(),
                data,
                false,
                #[cfg(since_pg15)]
                false,
            );
            result == pg_sys::shm_mq_result::SHM_MQ_SUCCESS
        });
        pg_sys::shm_mq_detach(queue);
    }
}

/// True in a helper, and in a process that has one.
pub fn is_parallel() -> bool {
    // SAFETY: reads globals of the backend.
    unsafe { pg_sys::IsInParallelMode() }
}
