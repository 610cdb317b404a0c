//! Memory for copying, shared by all streams of a gateway: an idle stream holds none.
//!
//! Large buffers make copying fast, but a stream whose receiver does not read keeps the one it has filled. So each
//! sandbox may hold only so many large ones; past that its streams get small ones, which are slower and cost little.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Size of a large buffer, in bytes.
const LARGE: usize = 128 << 10;
/// Size of a small one, in bytes.
const SMALL: usize = 8 << 10;
/// Large buffers that one sandbox may hold: 4 MiB.
const PER_SANDBOX: usize = 32;
/// Unused large buffers that are kept for the next taker: 8 MiB for the whole gateway.
const KEPT: usize = 64;

/// The unused buffers of a gateway.
#[derive(Default)]
pub(crate) struct Shelf(Mutex<Vec<Box<[u8]>>>);

/// One sandbox's share.
#[derive(Clone)]
pub(crate) struct Buffers {
    shelf: Arc<Shelf>,
    large: Arc<Semaphore>,
}

/// A buffer that goes back to the shelf when it is dropped.
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    large: Option<(Arc<Shelf>, OwnedSemaphorePermit)>,
}

impl Buffers {
    pub(crate) fn new(shelf: Arc<Shelf>) -> Self {
        Self { shelf, large: Arc::new(Semaphore::new(PER_SANDBOX)) }
    }

    /// A buffer: a large one while the sandbox may have one, else a small one.
    pub(crate) fn take(&self) -> Buffer {
        let Ok(permit) = Arc::clone(&self.large).try_acquire_owned() else {
            return Buffer { bytes: vec![0; SMALL].into_boxed_slice(), large: None };
        };
        let kept = self.shelf.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = kept.unwrap_or_else(|| vec![0; LARGE].into_boxed_slice());
        Buffer { bytes, large: Some((Arc::clone(&self.shelf), permit)) }
    }
}

impl Buffer {
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some((shelf, _permit)) = self.large.take() {
            let mut kept = shelf.0.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() < KEPT {
                kept.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sandbox_cannot_take_the_large_buffers_of_another() {
        let shelf = Arc::new(Shelf::default());
        let (greedy, modest) = (Buffers::new(Arc::clone(&shelf)), Buffers::new(Arc::clone(&shelf)));
        let mut held: Vec<Buffer> = (0..PER_SANDBOX + 5).map(|_| greedy.take()).collect();
        let sizes = |held: &mut [Buffer], size| {
            held.iter_mut().map(|buffer| usize::from(buffer.bytes().len() == size)).sum::<usize>()
        };
        assert_eq!((sizes(&mut held, LARGE), sizes(&mut held, SMALL)), (PER_SANDBOX, 5));
        assert_eq!(modest.take().bytes().len(), LARGE);
        drop(held);
        assert_eq!(greedy.take().bytes().len(), LARGE);
        assert_eq!(shelf.0.lock().unwrap().len(), PER_SANDBOX + 1);
    }
}
