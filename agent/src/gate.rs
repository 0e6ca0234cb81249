//! The write gate: while it is shut, a process of the session waits in the kernel as soon as it would change
//! something below the workspace; reads, and writes elsewhere, go on (F53).
//!
//! How: between fork and exec a child gets a seccomp filter ([`filter`]) whose listener comes here. A thread
//! receives each reported call, finds out where it would act ([`calls`], [`place`]) and either lets it go on or
//! parks it. Opening the gate lets all parked calls go on. What is started while the gate is open has no filter.
//!
//! It opens only when told to. When it can't be installed, nothing is started; when a call can't be judged, it
//! waits; when sync fails, nothing happens here (F54).
//!
//! What it is not: a security boundary. The kernel reads a path again after the call was let through, so a
//! process that rewrites its own path or tree in between gets past. It is there so that honest programs, which
//! know nothing of sync, never mix their writes with it. ADR 0003 says more.

pub mod calls;
pub mod filter;
pub mod place;

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use place::{Resolver, Workspace};

const NOTIF_RECV: u64 = 0xc050_2100;
const NOTIF_SEND: u64 = 0xc018_2101;
const NOTIF_ID_VALID: u64 = 0x4008_2102;
const NOTIF_SET_FLAGS: u64 = 0x4008_2104;
/// Wake the other side on this processor: halves the cost of a report where the kernel knows it (6.6).
const SYNC_WAKE_UP: u64 = 1;
const FLAG_CONTINUE: u32 = 1;

/// The kernel's `struct seccomp_notif`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Report {
    id: u64,
    pid: u32,
    flags: u32,
    nr: i32,
    arch: u32,
    instruction_pointer: u64,
    args: [u64; 6],
}

/// The kernel's `struct seccomp_notif_resp`.
#[repr(C)]
struct Answer {
    id: u64,
    val: i64,
    error: i32,
    flags: u32,
}

const _: () = assert!(size_of::<Report>() == 80 && size_of::<Answer>() == 24);

/// The gate of one sandbox. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Inner>,
}

struct Inner {
    workspace: Workspace,
    open: watch::Sender<bool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    epoll: Option<OwnedFd>,
    /// By a number that is never used again, which descriptors are.
    listeners: HashMap<u64, Arc<OwnedFd>>,
    next_key: u64,
    parked: Vec<Parked>,
}

/// A call that waits for the gate.
struct Parked {
    listener: Arc<OwnedFd>,
    id: u64,
    /// The thread that made it. A thread makes one call at a time.
    pid: u32,
}

impl Gate {
    pub fn new(workspace: &Path, open: bool) -> Self {
        let inner = Inner {
            workspace: Workspace::new(workspace),
            open: watch::Sender::new(open),
            state: Mutex::new(State::default()),
        };
        Self { inner: Arc::new(inner) }
    }

    pub fn is_open(&self) -> bool {
        *self.inner.open.borrow()
    }

    /// Opens or shuts the gate. Opening lets everything that waits go on; shutting holds what carries a filter,
    /// that is what was started while the gate was shut.
    pub fn set(&self, open: bool) {
        let mut state = self.inner.lock();
        // Under the lock: a call is either parked before this and let go below, or sees the open gate.
        self.inner.open.send_replace(open);
        if open {
            for parked in state.parked.drain(..) {
                go_on(&parked.listener, parked.id);
            }
        }
    }

    /// Waits until the gate is open; false when that took too long.
    pub async fn opened_within(&self, limit: Duration) -> bool {
        let mut open = self.inner.open.subscribe();
        tokio::time::timeout(limit, open.wait_for(|open| *open)).await.is_ok_and(|r| r.is_ok())
    }

    /// Whether the agent itself, asked to change `path`, has to wait for the gate.
    pub fn guards(&self, path: &Path) -> bool {
        self.inner.workspace.holds(path)
    }

    /// Calls that wait now. Those whose caller was killed or interrupted meanwhile are not counted.
    pub fn waiting(&self) -> u32 {
        let mut state = self.inner.lock();
        state.parked.retain(|p| is_valid(&p.listener, p.id));
        state.parked.len() as u32
    }

    /// Takes over the listener of a filter that was just installed.
    pub fn watch(&self, listener: OwnedFd) -> io::Result<()> {
        let mut state = self.inner.lock();
        let epoll = match &state.epoll {
            Some(fd) => fd.as_raw_fd(),
            None => {
                let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC)?;
                let raw = epoll.as_raw_fd();
                let inner = Arc::clone(&self.inner);
                std::thread::Builder::new()
                    .name("gate".into())
                    .stack_size(256 * 1024)
                    .spawn(move || inner.supervise(raw))?;
                state.epoll = Some(epoll);
                raw
            }
        };
        let raw = listener.as_raw_fd();
        // SAFETY: both descriptors are open; the kernel copies its argument. Failure is fine: older kernels
        // don't know the flag.
        unsafe { libc::ioctl(raw, NOTIF_SET_FLAGS as _, SYNC_WAKE_UP) };
        let key = state.next_key;
        state.next_key += 1;
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: key };
        // SAFETY: both descriptors are open and `event` lives through the call.
        if unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, raw, &mut event) } != 0 {
            return Err(io::Error::last_os_error());
        }
        state.listeners.insert(key, Arc::new(listener));
        Ok(())
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread that judges reported calls. It ends with the agent.
    fn supervise(&self, epoll: RawFd) {
        block_signals();
        // Without a /proc nothing can be judged, and everything reported waits.
        let resolver = Resolver::new().ok();
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 16];
        loop {
            // SAFETY: `events` has room for 16.
            let n = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), 16, -1) };
            for event in &events[..n.max(0) as usize] {
                let (flags, key) = (event.events, event.u64);
                let Some(listener) = self.lock().listeners.get(&key).cloned() else { continue };
                if flags & libc::EPOLLIN as u32 != 0 {
                    self.judge(resolver.as_ref(), &listener);
                } else if flags & libc::EPOLLHUP as u32 != 0 {
                    // The last process with this filter has ended. EPOLLERR alone says only that a signal came
                    // while the kernel looked. Closing the descriptor would not take it out of the set while a
                    // child between fork and exec still has a copy, so it is taken out here.
                    let raw = listener.as_raw_fd();
                    // SAFETY: both descriptors are open; no event is needed to remove one.
                    unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, raw, std::ptr::null_mut()) };
                    let mut state = self.lock();
                    state.parked.retain(|p| !Arc::ptr_eq(&p.listener, &listener));
                    state.listeners.remove(&key);
                }
            }
        }
    }

    fn judge(&self, resolver: Option<&Resolver>, listener: &Arc<OwnedFd>) {
        let Some(report) = receive(listener) else { return };
        if *self.open.borrow() || !self.would_change_workspace(resolver, &report) {
            return go_on(listener, report.id);
        }
        // What was read belongs to the caller only if the caller is still in that call.
        if !is_valid(listener, report.id) {
            return;
        }
        let mut state = self.lock();
        if *self.open.borrow() {
            return go_on(listener, report.id);
        }
        state.parked.retain(|p| p.pid != report.pid);
        state.parked.push(Parked { listener: Arc::clone(listener), id: report.id, pid: report.pid });
    }

    /// Whether the reported call would change something below the workspace, or may for all that can be known.
    fn would_change_workspace(&self, resolver: Option<&Resolver>, report: &Report) -> bool {
        let Some(resolver) = resolver else { return true };
        if report.arch != filter::NATIVE {
            return true;
        }
        let Some(names) = calls::names(report.nr.into(), &report.args) else { return true };
        names.iter().flatten().any(|named| match resolver.locate(report.pid, named) {
            Ok(Some(place)) => self.workspace.is_touched_by(resolver, &place),
            Ok(None) => false,
            Err(place::Unknown) => true,
        })
    }
}

/// Room for a newer kernel's longer structs.
#[repr(C, align(8))]
struct Buffer<T>(T, [u8; 256]);

fn receive(listener: &OwnedFd) -> Option<Report> {
    // SAFETY: all zeroes is a valid value, and what the kernel asks for.
    let mut buffer: Buffer<Report> = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the buffer is larger than what the kernel writes.
    let r = unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_RECV as _, &mut buffer) };
    (r == 0).then_some(buffer.0)
}

/// Lets a call go on in the kernel. An error means that its caller is gone or was interrupted.
fn go_on(listener: &OwnedFd, id: u64) {
    let mut answer = Buffer(Answer { id, val: 0, error: 0, flags: FLAG_CONTINUE }, [0; 256]);
    // SAFETY: the answer lives through the call.
    until_not_interrupted(|| unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SEND as _, &mut answer) });
}

fn is_valid(listener: &OwnedFd, id: u64) -> bool {
    // SAFETY: the kernel reads one u64.
    until_not_interrupted(|| unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_ID_VALID as _, &id) })
}

/// A signal to the agent says nothing about the call: an answer lost to it would leave a process waiting forever.
fn until_not_interrupted(mut call: impl FnMut() -> libc::c_int) -> bool {
    loop {
        if call() == 0 {
            return true;
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return false;
        }
    }
}

/// Leaves all signals of the process to its other threads.
fn block_signals() {
    // SAFETY: sigset_t has no invalid values.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
    }
}

/// A filter ready to be installed, and the way its listener comes back: made once, used by each child between
/// fork and exec.
pub struct Installer {
    program: Vec<libc::sock_filter>,
    parent: OwnedFd,
    child: OwnedFd,
}

impl Installer {
    pub fn new() -> io::Result<Self> {
        let mut pair = [0; 2];
        // SAFETY: `pair` has room for two descriptors.
        if unsafe {
            libc::socketpair(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr())
        } != 0
        {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so both are open and ours.
        let [parent, child] = pair.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(Self { program: filter::program(), parent, child })
    }

    /// Installs the filter on the calling thread and sends its listener to the agent. Runs between fork and
    /// exec: it only makes system calls. None of those after the filter is in place is reported by it.
    ///
    /// # Safety
    /// The calling thread never gets rid of the filter: call it in a child that is about to exec.
    pub unsafe fn install(&self) -> Result<(), i32> {
        let program =
            libc::sock_fprog { len: self.program.len() as u16, filter: self.program.as_ptr().cast_mut() };
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        // SAFETY: plain system calls on memory that lives through them.
        unsafe {
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
                return Err(*libc::__errno_location());
            }
            let listener =
                libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program);
            if listener < 0 {
                return Err(*libc::__errno_location());
            }
            send_fd(self.child.as_raw_fd(), listener as RawFd)
        }
    }

    /// Throws away what children sent that then failed to exec: the next child's listener must be its own.
    pub fn discard_listeners(&self) {
        while self.take_listener().is_ok() {}
    }

    /// The listener that a child has sent.
    pub fn take_listener(&self) -> io::Result<OwnedFd> {
        let mut byte = 0u8;
        let mut iov = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let mut control = Control { bytes: [0; 64] };
        // SAFETY: everything that the message points to lives through the call.
        unsafe {
            let mut message: libc::msghdr = MaybeUninit::zeroed().assume_init();
            message.msg_iov = &mut iov;
            message.msg_iovlen = 1;
            message.msg_control = (&raw mut control).cast();
            message.msg_controllen = size_of::<Control>() as _;
            let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
            if libc::recvmsg(self.parent.as_raw_fd(), &mut message, flags) < 0 {
                return Err(io::Error::last_os_error());
            }
            let head = libc::CMSG_FIRSTHDR(&message);
            if head.is_null() || (*head).cmsg_type != libc::SCM_RIGHTS {
                return Err(io::Error::other("the child sent no listener"));
            }
            Ok(OwnedFd::from_raw_fd(libc::CMSG_DATA(head).cast::<RawFd>().read_unaligned()))
        }
    }
}

#[repr(C, align(8))]
struct Control {
    bytes: [u8; 64],
}

/// # Safety
/// Only system calls, for use between fork and exec; both descriptors are open.
unsafe fn send_fd(socket: RawFd, fd: RawFd) -> Result<(), i32> {
    let mut byte = 0u8;
    let mut iov = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = Control { bytes: [0; 64] };
    // SAFETY: everything that the message points to lives through the call; the buffer has room for one
    // descriptor.
    unsafe {
        let mut message: libc::msghdr = MaybeUninit::zeroed().assume_init();
        message.msg_iov = &mut iov;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
        let head = libc::CMSG_FIRSTHDR(&message);
        (*head).cmsg_level = libc::SOL_SOCKET;
        (*head).cmsg_type = libc::SCM_RIGHTS;
        (*head).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
        libc::CMSG_DATA(head).cast::<RawFd>().write_unaligned(fd);
        if libc::sendmsg(socket, &message, 0) < 0 {
            return Err(*libc::__errno_location());
        }
    }
    Ok(())
}
