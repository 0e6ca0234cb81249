//! Pipes and terminals without blocking: what execs and git runs read from and write to.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Bytes that are read at once.
const READ_SIZE: usize = 64 * 1024;

/// Makes a descriptor non-blocking and has the runtime watch it.
pub fn watched(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    rustix::fs::fcntl_setfl(&fd, OFlags::NONBLOCK)?;
    // SAFETY: an `OwnedFd` is open, and stays the same descriptor for as long as it is owned.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}

/// A pipe out of a child: our end and the child's.
pub fn out_of_child() -> io::Result<(AsyncFd<OwnedFd>, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((watched(read, Interest::READABLE)?, write))
}

/// A pipe into a child: our end and the child's.
pub fn into_child() -> io::Result<(AsyncFd<OwnedFd>, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((watched(write, Interest::WRITABLE)?, read))
}

/// Something that reads end of file at once: `/dev/null`, or a pipe without a writer where there is none.
pub fn empty_input() -> io::Result<OwnedFd> {
    match rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => Ok(fd),
        Err(_) => Ok(pipe_with(PipeFlags::CLOEXEC)?.0),
    }
}

thread_local! {
    /// What was read and not yet recorded. Never held across an await.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into_boxed_slice());
}

/// Reads one chunk and hands it to `take`; false at the end of the stream. A terminal ends with EIO.
pub async fn read_chunk(fd: &AsyncFd<OwnedFd>, mut take: impl FnMut(&[u8])) -> bool {
    loop {
        let Ok(mut ready) = fd.readable().await else { return false };
        let read = SCRATCH.with_borrow_mut(|buf| {
            let read = ready.try_io(|fd| rustix::io::read(fd, &mut **buf).map_err(io::Error::from));
            if let Ok(Ok(n @ 1..)) = read {
                take(&buf[..n]);
            }
            read
        });
        match read {
            Ok(Ok(n)) => return n > 0,
            Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(_)) => return false,
            Err(_would_block) => {}
        }
    }
}
