//! Pipes for bulk: the kernel moves what is in one socket to another by way of a pipe (splice), so that it is never
//! copied to the platform's memory and back, which is most of what relaying costs.
//!
//! A pipe is taken for one fill and emptied into the other socket before it goes back, so that it never carries one
//! stream's bytes into another: one that still holds some when it is dropped is closed. Pipes are counted, for each
//! sandbox and for the gateway, since each takes two file descriptors and a stream whose receiver does not read keeps the
//! one it has filled. Whoever gets none copies through a buffer.

use std::{
    io::{self, PipeReader, PipeWriter},
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, SpliceFFlags, fcntl, splice},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a pipe holds, in bytes, if each of its pages is full: much more than a new one does, since fewer and larger turns
/// cost less.
pub(crate) const CAPACITY: usize = 512 << 10;
/// Pipes that one sandbox may hold: 4 MiB.
const PER_SANDBOX: usize = 8;
/// Pipes that the whole gateway may hold: 128 file descriptors, and 32 MiB, half of what Linux lets a user without
/// privileges have in pipes before it gives him small ones.
const IN_ALL: usize = 64;
/// Unused pipes that are kept for the next taker.
const KEPT: usize = 8;

/// The unused pipes of a gateway, and how many more may be taken.
pub(crate) struct PipeShelf {
    unused: Mutex<Vec<(PipeReader, PipeWriter)>>,
    places: Arc<Semaphore>,
}

impl Default for PipeShelf {
    fn default() -> Self {
        Self { unused: Mutex::default(), places: Arc::new(Semaphore::new(IN_ALL)) }
    }
}

/// One sandbox's share.
#[derive(Clone)]
pub(crate) struct Pipes {
    shelf: Arc<PipeShelf>,
    places: Arc<Semaphore>,
}

impl Pipes {
    pub(crate) fn new(shelf: Arc<PipeShelf>) -> Self {
        Self { shelf, places: Arc::new(Semaphore::new(PER_SANDBOX)) }
    }

    /// An empty pipe, while there may be one more.
    pub(crate) fn take(&self) -> Option<Pipe> {
        let own = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let common = Arc::clone(&self.shelf.places).try_acquire_owned().ok()?;
        let kept = self.shelf.unused.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let ends = match kept {
            Some(ends) => ends,
            None => new_pipe().ok()?,
        };
        Some(Pipe { ends: Some(ends), held: 0, shelf: Arc::clone(&self.shelf), _places: (own, common) })
    }
}

/// # Errors
/// When the process has no file descriptor left, or its user has too much in pipes.
fn new_pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let ends = io::pipe()?;
    fcntl(&ends.1, FcntlArg::F_SETPIPE_SZ(i32::try_from(CAPACITY).unwrap_or(i32::MAX)))?;
    Ok(ends)
}

/// A pipe in use.
pub(crate) struct Pipe {
    /// There until it is dropped.
    ends: Option<(PipeReader, PipeWriter)>,
    held: usize,
    shelf: Arc<PipeShelf>,
    _places: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Pipe {
    /// How many bytes are in it.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Moves up to `most` bytes that a socket has received into the empty pipe; 0 when it has none, at its end, and at
    /// urgent data, which Linux does not tell apart here.
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn fill(&mut self, from: impl AsFd, most: usize) -> io::Result<usize> {
        let Some((_, writer)) = &self.ends else { return Ok(0) };
        match splice(from, None, writer, None, most, SpliceFFlags::SPLICE_F_NONBLOCK) {
            Ok(count) => {
                self.held += count;
                Ok(count)
            }
            Err(Errno::EAGAIN) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves what it holds to a socket, as far as that takes it.
    ///
    /// # Errors
    /// `WouldBlock` when the socket takes nothing; else the socket's.
    pub(crate) fn empty(&mut self, to: impl AsFd) -> io::Result<usize> {
        let Some((reader, _)) = &self.ends else { return Ok(0) };
        match splice(reader, None, to, None, self.held, SpliceFFlags::SPLICE_F_NONBLOCK)? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            count => {
                self.held = self.held.saturating_sub(count);
                Ok(count)
            }
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // What it still holds is lost with it, and belongs to a stream that is cut or broken.
        let Some(ends) = self.ends.take().filter(|_| self.held == 0) else { return };
        let mut unused = self.shelf.unused.lock().unwrap_or_else(PoisonError::into_inner);
        if unused.len() < KEPT {
            unused.push(ends);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };

    use super::*;

    #[test]
    fn what_is_left_in_a_pipe_never_comes_out_for_another() {
        let shelf = Arc::new(PipeShelf::default());
        let pipes = Pipes::new(Arc::clone(&shelf));
        let unused = || shelf.unused.lock().unwrap().len();
        let (mut client, from) = UnixStream::pair().unwrap();
        from.set_nonblocking(true).unwrap();
        let (to, mut server) = UnixStream::pair().unwrap();
        let mut pipe = pipes.take().unwrap();
        assert_eq!(pipe.fill(&from, 100).unwrap(), 0);
        client.write_all(b"hello").unwrap();
        assert_eq!((pipe.fill(&from, 2).unwrap(), pipe.empty(&to).unwrap()), (2, 2));
        drop(pipe);
        assert_eq!(unused(), 1);
        let mut pipe = pipes.take().unwrap();
        assert_eq!((pipe.fill(&from, 100).unwrap(), pipe.held(), unused()), (3, 3, 0));
        // A stream that is cut here leaves three bytes behind.
        drop(pipe);
        assert_eq!(unused(), 0);
        let mut pipe = pipes.take().unwrap();
        drop(client);
        assert_eq!(pipe.fill(&from, 100).unwrap(), 0);
        drop(to);
        let mut arrived = Vec::new();
        server.read_to_end(&mut arrived).unwrap();
        assert_eq!(arrived, b"he");
    }

    #[test]
    fn one_sandbox_cannot_take_the_pipes_of_another() {
        let shelf = Arc::new(PipeShelf::default());
        let sandboxes: Vec<Pipes> = (0..=IN_ALL / PER_SANDBOX).map(|_| Pipes::new(Arc::clone(&shelf))).collect();
        let mut held: Vec<Pipe> = std::iter::from_fn(|| sandboxes[0].take()).collect();
        assert_eq!(held.len(), PER_SANDBOX);
        assert!(sandboxes[1].take().is_some());
        held.extend(sandboxes[1..].iter().flat_map(|pipes| std::iter::from_fn(|| pipes.take())));
        assert_eq!(held.len(), IN_ALL);
        held.clear();
        assert_eq!(shelf.unused.lock().unwrap().len(), KEPT);
        assert!(sandboxes.iter().all(|pipes| pipes.take().is_some()));
    }
}
