//! Batches in two steps, for callers that have something else to do while the disk is busy: submit, and
//! wait in a thread or as a task of any executor.

use crate::account::{Account, Key};
use crate::engine::items::{Rule, Update};
use crate::engine::state::Core;
use crate::engine::telemetry;
use crate::error::Error;
use crate::ledger::GeometricLedger;
use crate::storage::batch::Batch;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// A batch that was accepted and has its place among all batches, and is not known to be durable yet.
///
/// It is made durable whether or not anybody waits for it. Readers see it from then on.
#[must_use = "whether a batch is durable is known when it was waited for"]
pub struct Submitted<T> {
    core: Arc<Core>,
    /// Until a task has it.
    outcome: Option<T>,
    sequence: u64,
    end: u64,
    /// How many updates are counted when it is done, and since when.
    updates: u64,
    start: Instant,
}

impl<T> Submitted<T> {
    pub(crate) fn new(core: &Arc<Core>, outcome: T, updates: u64, place: (u64, u64)) -> Self {
        let (sequence, end) = place;
        core.submissions.add(sequence, end);
        Submitted {
            core: core.clone(),
            outcome: Some(outcome),
            sequence,
            end,
            updates,
            start: Instant::now(),
        }
    }

    fn done(&self) {
        if self.updates > 0 {
            telemetry::committed(self.updates, self.start.elapsed());
        }
    }

    /// The batch's sequence.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Waits, in this thread, until the batch is as durable as
    /// [`Options::durability`](crate::Options::durability) says.
    ///
    /// # Errors
    /// [`Error::Stopped`]: whether the batch was done is known after opening the ledger again.
    pub fn wait(self) -> Result<T, Error> {
        self.core.wait(self.sequence, self.end)?;
        self.done();
        Ok(self.outcome.expect("no task has it"))
    }
}

/// Waits as [`Submitted::wait`] does, without a thread.
impl<T: Unpin> Future for Submitted<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let core = &self.core;
        let waker = context.waker();
        if core
            .submissions
            .is_done(&core.visible, self.sequence, waker)
        {
            self.done();
            let outcome = self.outcome.take();
            return Poll::Ready(Ok(outcome.expect("a task that is done is not polled again")));
        }
        // A log that stops after this look wakes the task.
        match core.wal.check() {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl GeometricLedger {
    /// As [`GeometricLedger::update_batch`], without waiting for the disk. Batches are done in the order
    /// in which they were submitted.
    ///
    /// What it does wait for is other callers' batches being put into memory, and a checkpoint that does
    /// not keep up.
    ///
    /// # Errors
    /// As [`GeometricLedger::update_batch`].
    pub fn submit_update_batch(
        &self,
        updates: &[(Key, Account)],
    ) -> Result<Submitted<Batch>, Error> {
        let (batch, end) = self.core.submit(updates, Rule::Mint)?;
        Ok(Submitted::new(
            &self.core,
            batch,
            batch.updates,
            (batch.sequence, end),
        ))
    }

    /// As [`GeometricLedger::apply`], without waiting for the disk; see
    /// [`GeometricLedger::submit_update_batch`].
    ///
    /// # Errors
    /// As [`GeometricLedger::update_batch`].
    pub fn submit(&self, updates: &[Update]) -> Result<Submitted<Batch>, Error> {
        let (batch, end) = self.core.submit(updates, Rule::Mint)?;
        Ok(Submitted::new(
            &self.core,
            batch,
            batch.updates,
            (batch.sequence, end),
        ))
    }
}
