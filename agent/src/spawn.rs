//! Starts processes and collects them.
//!
//! It promises: a child in a session and process group of its own, started with the cost of a vfork, with the
//! write gate's filter when asked for; one reaper for everything, so that orphans do not pile up under the first
//! process and nobody's exit status is taken by another. What is done with a child's output is left to the
//! callers.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::time::Instant;

use domain::{Error, Result};
use tokio::sync::oneshot;

use crate::gate::{Gate, Installer};
use crate::users::User;

/// What to start.
pub struct Command<'a> {
    /// Program and arguments; the program is searched in the `PATH` of `env` when it has no slash.
    pub argv: &'a [String],
    pub env: &'a BTreeMap<String, String>,
    pub cwd: &'a Path,
    pub stdin: BorrowedFd<'a>,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
    /// Make `stdin` the controlling terminal.
    pub terminal: bool,
    /// Make it wait here before it changes the workspace.
    pub gate: Option<&'a Gate>,
    /// Become this account first.
    pub user: Option<&'a User>,
}

/// How a child ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub peak_rss_bytes: u64,
    pub at: Instant,
}

/// A child that runs, or has ended and not been looked at.
pub struct Child {
    pub pid: i32,
    pub started: Instant,
    pub ended: oneshot::Receiver<Ended>,
}

/// All children of the agent. Lives on one thread.
pub struct Processes {
    inner: RefCell<Inner>,
}

struct Inner {
    stack: Option<Stack>,
    installer: Option<Installer>,
    running: HashMap<i32, oneshot::Sender<Ended>>,
}

pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Default for Processes {
    fn default() -> Self {
        Self { inner: RefCell::new(Inner { stack: None, installer: None, running: HashMap::new() }) }
    }
}

impl Processes {
    /// Starts a process. `Invalid` when it is the command's fault: no such program, no such directory.
    pub fn spawn(&self, command: &Command<'_>) -> Result<Child> {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        if inner.stack.is_none() {
            inner.stack =
                Some(Stack::new().map_err(|e| Error::exhausted("get a stack to fork with").caused_by(e))?);
        }
        if command.gate.is_some() && inner.installer.is_none() {
            let installer = Installer::new();
            inner.installer =
                Some(installer.map_err(|e| Error::exhausted("prepare the write gate").caused_by(e))?);
        }
        let mut plan = Plan::new(command)?;
        plan.installer = command.gate.and(inner.installer.as_ref()).map_or(std::ptr::null(), |i| i);
        let stack = inner.stack.as_ref().map_or(std::ptr::null_mut(), Stack::top);
        let started = Instant::now();
        let pid = plan.run(stack)?;
        // The child has called exec or has ended; with a filter, its listener has been sent.
        let (tell, ended) = oneshot::channel();
        if plan.failed_step != Step::None as c_int {
            if let Some(installer) = &inner.installer {
                installer.discard_listeners();
            }
            inner.running.insert(pid, tell); // the reaper collects what is left of it
            return Err(plan.failure(command));
        }
        if let (Some(gate), Some(installer)) = (command.gate, inner.installer.as_ref())
            && let Err(e) = installer.take_listener().and_then(|listener| gate.watch(listener))
        {
            // Without a listener its writes would fail instead of waiting.
            signal_group(pid, libc::SIGKILL);
            inner.running.insert(pid, tell);
            return Err(Error::permanent("take over the write gate of a new process").caused_by(e));
        }
        inner.running.insert(pid, tell);
        Ok(Child { pid, started, ended })
    }

    /// Collects every process that has ended: own children and orphans alike. Called after each SIGCHLD.
    pub fn reap(&self) {
        loop {
            let mut status = 0;
            // SAFETY: all zeroes is a valid rusage; both out-pointers are good for the call.
            let (pid, usage) = unsafe {
                let mut usage: libc::rusage = std::mem::zeroed();
                (libc::wait4(-1, &mut status, libc::WNOHANG, &mut usage), usage)
            };
            if pid <= 0 {
                return;
            }
            let Some(tell) = self.inner.borrow_mut().running.remove(&pid) else { continue };
            let ended = Ended {
                code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
                signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
                peak_rss_bytes: usage.ru_maxrss as u64 * 1024,
                at: Instant::now(),
            };
            let _ = tell.send(ended); // nobody waits for a child whose start failed
        }
    }
}

/// Signals a whole process group; a group that is gone is fine.
pub fn signal_group(pgid: i32, signal: i32) {
    if pgid > 1 {
        // SAFETY: no memory is involved.
        unsafe { libc::kill(-pgid, signal) };
    }
}

/// Whether any process of a group is left.
pub fn group_lives(pgid: i32) -> bool {
    // SAFETY: no memory is involved.
    pgid > 1 && unsafe { libc::kill(-pgid, 0) } == 0
}

/// Where a program is, as exec will look for it.
pub fn candidates(program: &str, env: &BTreeMap<String, String>) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let path = env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    path.split(':')
        .map(|d| if d.is_empty() { format!("./{program}") } else { format!("{d}/{program}") })
        .collect()
}

/// The step at which a child failed.
#[derive(Clone, Copy, PartialEq)]
#[repr(i32)]
enum Step {
    None,
    Session,
    Terminal,
    Descriptors,
    Directory,
    User,
    Filter,
    Exec,
}

/// Everything that the child needs, laid out before the fork: between fork and exec nothing may be allocated.
struct Plan {
    candidates: Vec<*const c_char>,
    argv: Vec<*const c_char>,
    /// As `argv`, for a file without a `#!` line: `/bin/sh file args…`.
    shell_argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    cwd: CString,
    fds: [c_int; 3],
    terminal: bool,
    user: Option<Account>,
    installer: *const Installer,
    failed_step: c_int,
    failed_errno: c_int,
    _strings: Vec<CString>,
}

/// The numbers of a [`User`].
struct Account {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

fn c_string(what: &str, text: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(text).map_err(|e| Error::invalid(format!("{what} holds a NUL byte")).caused_by(e))
}

impl Plan {
    fn new(command: &Command<'_>) -> Result<Self> {
        let Some(program) = command.argv.first().filter(|p| !p.is_empty()) else {
            return Err(Error::invalid("argv is empty: expected a program and its arguments"));
        };
        let mut strings = Vec::with_capacity(command.argv.len() + command.env.len() + 12);
        let mut keep = |s: CString| {
            let p = s.as_ptr(); // the heap block stays where it is when the CString moves
            strings.push(s);
            p
        };
        let mut argv = Vec::with_capacity(command.argv.len() + 1);
        for arg in command.argv {
            argv.push(keep(c_string("argv", arg.as_str())?));
        }
        let mut envp = Vec::with_capacity(command.env.len() + 1);
        for (name, value) in command.env {
            envp.push(keep(c_string("the environment", format!("{name}={value}"))?));
        }
        let mut paths = Vec::new();
        for path in candidates(program, command.env) {
            paths.push(keep(c_string("PATH", path)?));
        }
        let mut shell_argv = vec![keep(c"/bin/sh".to_owned()), std::ptr::null()];
        shell_argv.extend(argv.iter().skip(1));
        for list in [&mut argv, &mut shell_argv, &mut envp] {
            list.push(std::ptr::null());
        }
        Ok(Self {
            candidates: paths,
            argv,
            shell_argv,
            envp,
            cwd: c_string("cwd", command.cwd.as_os_str().as_encoded_bytes())?,
            fds: [command.stdin.as_raw_fd(), command.stdout.as_raw_fd(), command.stderr.as_raw_fd()],
            terminal: command.terminal,
            user: command.user.map(|u| Account { uid: u.uid, gid: u.gid, groups: u.groups.clone() }),
            installer: std::ptr::null(),
            failed_step: Step::None as c_int,
            failed_errno: 0,
            _strings: strings,
        })
    }

    /// Forks as vfork does: the child borrows our memory until it has called exec, and this thread waits for
    /// that. So nothing is copied, and the child's errors can be read here.
    fn run(&mut self, stack: *mut c_void) -> Result<i32> {
        // No handler of ours may run in the child while it uses our memory.
        // SAFETY: sigset_t has no invalid values; the child function keeps to system calls on the plan, which
        // outlives it because CLONE_VFORK holds this thread until the child has left our memory.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            let pid = libc::clone(child, stack, flags, (&raw mut *self).cast());
            let error = io::Error::last_os_error();
            libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
            if pid < 0 {
                return Err(Error::exhausted("start a process").caused_by(error));
            }
            Ok(pid)
        }
    }

    fn failure(&self, command: &Command<'_>) -> Error {
        let cause = io::Error::from_raw_os_error(self.failed_errno);
        let step = self.failed_step;
        if step == Step::Directory as c_int {
            Error::invalid(format!("enter the working directory `{}`", command.cwd.display()))
                .caused_by(cause)
        } else if step == Step::Exec as c_int {
            let program = &command.argv[0];
            match self.failed_errno {
                libc::ENOENT => Error::invalid(format!("there is no program `{program}` in this sandbox")),
                libc::ENOMEM | libc::EAGAIN => Error::exhausted(format!("run `{program}`")).caused_by(cause),
                _ => Error::invalid(format!("run `{program}`")).caused_by(cause),
            }
        } else if step == Step::User as c_int {
            let user = command.user.map_or("", |u| u.name.as_str());
            Error::permanent(format!("become the user `{user}`")).caused_by(cause)
        } else if step == Step::Filter as c_int {
            Error::permanent("install the write gate: seccomp user notification is not to be had here")
                .caused_by(cause)
        } else {
            let what =
                if step == Step::Terminal as c_int { "take the terminal" } else { "set up a new process" };
            Error::permanent(what).caused_by(cause)
        }
    }
}

/// The child, between clone and exec. It shares our memory: system calls only, no allocation, no panic.
extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: `Plan::run` passes its own plan and waits; nobody else touches it meanwhile. The calls are
    // async-signal-safe.
    unsafe {
        let plan = &mut *plan.cast::<Plan>();
        let (step, errno) = prepare_and_exec(plan);
        plan.failed_step = step as c_int;
        plan.failed_errno = errno;
        libc::_exit(127)
    }
}

unsafe fn prepare_and_exec(plan: &mut Plan) -> (Step, c_int) {
    // SAFETY: see `child`.
    unsafe {
        let errno = || *libc::__errno_location();
        if libc::setsid() < 0 {
            return (Step::Session, errno());
        }
        if plan.terminal && libc::ioctl(plan.fds[0], libc::TIOCSCTTY as _, 0) < 0 {
            return (Step::Terminal, errno());
        }
        for (to, from) in plan.fds.iter().enumerate() {
            if libc::dup2(*from, to as c_int) < 0 {
                return (Step::Descriptors, errno());
            }
        }
        if libc::chdir(plan.cwd.as_ptr()) < 0 {
            return (Step::Directory, errno());
        }
        // Handlers point into our memory, and what we ignore the program must not.
        let mut default: libc::sigaction = std::mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        for signal in 1..65 {
            libc::sigaction(signal, &default, std::ptr::null_mut());
        }
        if let Some(account) = &plan.user {
            // Bare system calls: the C library's own would change all threads of the memory that we share.
            let groups = (account.groups.len(), account.groups.as_ptr());
            if libc::syscall(libc::SYS_setgroups, groups.0, groups.1) < 0
                || libc::syscall(libc::SYS_setresgid, account.gid, account.gid, account.gid) < 0
                || libc::syscall(libc::SYS_setresuid, account.uid, account.uid, account.uid) < 0
            {
                return (Step::User, errno());
            }
        }
        if !plan.installer.is_null()
            && let Err(errno) = (*plan.installer).install()
        {
            return (Step::Filter, errno);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        let mut refused = libc::ENOENT;
        for path in &plan.candidates {
            libc::execve(*path, plan.argv.as_ptr(), plan.envp.as_ptr());
            match errno() {
                libc::ENOENT | libc::ENOTDIR => {}
                libc::ENOEXEC => {
                    plan.shell_argv[1] = *path;
                    libc::execve(plan.shell_argv[0], plan.shell_argv.as_ptr(), plan.envp.as_ptr());
                    return (Step::Exec, libc::ENOEXEC);
                }
                // Another directory of PATH may hold one that can be run.
                libc::EACCES => refused = libc::EACCES,
                other => return (Step::Exec, other),
            }
        }
        (Step::Exec, refused)
    }
}

/// The stack of a child between clone and exec.
struct Stack {
    base: *mut c_void,
}

const STACK_SIZE: usize = 64 * 1024;

impl Stack {
    fn new() -> io::Result<Self> {
        // SAFETY: a fresh private mapping.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                STACK_SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { base }) }
    }

    fn top(&self) -> *mut c_void {
        // SAFETY: one past the mapping, aligned to a page.
        unsafe { self.base.byte_add(STACK_SIZE) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no child uses it: `Plan::run` has returned.
        unsafe { libc::munmap(self.base, STACK_SIZE) };
    }
}
