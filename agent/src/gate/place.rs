//! Where in the file tree a call of another process would act.
//!
//! Paths are walked here component by component, relative to the caller's own root, working directory and
//! descriptors, and symbolic links are followed as the kernel would follow them for the caller, `/proc/self`
//! included. The answer is a path as the agent sees it. Where it can't be known, the answer is [`Unknown`], and
//! the caller has to wait. Between this answer and the call itself the tree may change: see ADR 0003.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, fstatfs, openat, readlinkat, statat};
use rustix::io::Errno;

use super::calls::{Last, Named, PathArg};

const PROC_SUPER_MAGIC: i64 = 0x9fa0;
/// The inode number of the root of every procfs.
const PROC_ROOT_INO: u64 = 1;
/// As many symbolic links as the kernel follows.
const MAX_LINKS: u32 = 40;
const PATH_MAX: usize = 4096;

/// A place that could not be made out: memory that can't be read, a `/proc` that is not there.
#[derive(Debug)]
pub struct Unknown;

/// Where a call acts.
#[derive(Debug)]
pub struct Place {
    /// As the agent sees it, free of symbolic links as far as it exists.
    pub path: PathBuf,
    /// It is a file with more than one name, so another of its names may lie anywhere on this device.
    pub linked_on: Option<u64>,
    /// The entry itself moves or goes, and everything below it with it.
    pub moves: bool,
}

fn o_path() -> OFlags {
    OFlags::PATH | OFlags::CLOEXEC
}

/// Resolves what one process or thread names.
pub struct Resolver {
    proc_dir: OwnedFd,
    own_pid: String,
}

impl Resolver {
    pub fn new() -> std::io::Result<Self> {
        let proc_dir = rustix::fs::open("/proc", o_path() | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Self { proc_dir, own_pid: std::process::id().to_string() })
    }

    /// Where `named` lies for the thread `pid`; `None` when it is no file at all.
    pub fn locate(&self, pid: u32, named: &Named) -> Result<Option<Place>, Unknown> {
        match *named {
            Named::Fd(fd) => self.at(&self.of(pid, &format!("fd/{fd}"))?, false).map(Some),
            Named::Address(pointer, length) => match unix_path(pid, pointer, length)? {
                Some(text) => {
                    let arg = PathArg {
                        dir: libc::AT_FDCWD,
                        pointer,
                        last: Last::NewEntry,
                        may_be_empty: false,
                        content_stays: false,
                    };
                    self.path(pid, &arg, &text).map(Some)
                }
                None => Ok(None),
            },
            Named::Path(ref arg) => {
                let text = if arg.pointer == 0 { Vec::new() } else { read_string(pid, arg.pointer)? };
                if text.is_empty() {
                    // Null, or an empty path with the flag for it, means the descriptor. Without the flag the
                    // call fails whatever we say.
                    if arg.pointer != 0 && !arg.may_be_empty {
                        return Ok(None);
                    }
                    return self.at(&self.base(pid, arg.dir)?, false).map(Some);
                }
                let mut place = self.path(pid, arg, &text)?;
                if arg.content_stays {
                    place.linked_on = None;
                }
                Ok(Some(place))
            }
        }
    }

    fn of(&self, pid: u32, what: &str) -> Result<OwnedFd, Unknown> {
        openat(&self.proc_dir, format!("{pid}/{what}"), o_path(), Mode::empty()).map_err(|_| Unknown)
    }

    fn base(&self, pid: u32, dir: RawFd) -> Result<OwnedFd, Unknown> {
        if dir == libc::AT_FDCWD { self.of(pid, "cwd") } else { self.of(pid, &format!("fd/{dir}")) }
    }

    /// The path of an open descriptor of ours.
    fn path_of(&self, fd: BorrowedFd<'_>) -> Result<PathBuf, Unknown> {
        let link = format!("{}/fd/{}", self.own_pid, fd.as_raw_fd());
        let text = readlinkat(&self.proc_dir, link, Vec::with_capacity(256)).map_err(|_| Unknown)?;
        Ok(PathBuf::from(OsStr::from_bytes(text.as_bytes())))
    }

    fn at(&self, fd: &OwnedFd, moves: bool) -> Result<Place, Unknown> {
        let path = self.path_of(fd.as_fd())?;
        let st = fstat(fd).map_err(|_| Unknown)?;
        let file = FileType::from_raw_mode(st.st_mode) == FileType::RegularFile;
        let linked_on = (file && st.st_nlink > 1).then_some(st.st_dev);
        Ok(Place { path, linked_on, moves })
    }

    fn path(&self, pid: u32, arg: &PathArg, text: &[u8]) -> Result<Place, Unknown> {
        let root = self.of(pid, "root")?;
        let absolute = text[0] == b'/';
        let start = if absolute { dup(&root)? } else { self.base(pid, arg.dir)? };
        let mut parts: Vec<Vec<u8>> = components(text);
        let trailing = text.ends_with(b"/");
        if let Last::Entry | Last::NewEntry = arg.last {
            let moves = arg.last == Last::Entry;
            let Some(name) = parts.pop() else { return self.at(&start, moves) };
            if name == b".." || name == b"." {
                parts.push(name); // an error for every such call; judged by the directory it names
                return Ok(Place { moves, ..self.walk(pid, &root, start, parts, true)? });
            }
            let mut place = self.walk(pid, &root, start, parts, true)?;
            place.path.push(OsStr::from_bytes(&name));
            return Ok(Place { path: place.path, linked_on: None, moves });
        }
        self.walk(pid, &root, start, parts, arg.last == Last::Followed || trailing)
    }

    /// Walks on from `current`. What is missing is judged by the deepest directory that is there, because the
    /// rest may come into being before the call goes on.
    fn walk(
        &self,
        pid: u32,
        root: &OwnedFd,
        mut current: OwnedFd,
        parts: Vec<Vec<u8>>,
        follow: bool,
    ) -> Result<Place, Unknown> {
        let mut todo: Vec<Vec<u8>> = parts.into_iter().rev().collect();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b"." {
                continue;
            }
            if name == b".." {
                if !same(&current, root)? {
                    match openat(&current, "..", o_path() | OFlags::DIRECTORY, Mode::empty()) {
                        Ok(up) => current = up,
                        Err(_) => return self.missing(&current, name, todo),
                    }
                }
                continue;
            }
            let next = match openat(&current, &*name, o_path() | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::NAMETOOLONG | Errno::LOOP) => {
                    return self.missing(&current, name, todo);
                }
                Err(_) => return Err(Unknown),
            };
            let st = fstat(&next).map_err(|_| Unknown)?;
            let is_link = FileType::from_raw_mode(st.st_mode) == FileType::Symlink;
            if !is_link || (todo.is_empty() && !follow) {
                current = next;
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return self.missing(&current, name, todo);
            }
            let text = match self.proc_link(pid, &current, &name)? {
                ProcLink::No => {
                    readlinkat(&next, "", Vec::with_capacity(256)).map_err(|_| Unknown)?.into_bytes()
                }
                ProcLink::Text(text) => text,
                // The kernel jumps straight to the object; so do we.
                ProcLink::Object(fd) => {
                    current = fd;
                    continue;
                }
            };
            if text.first() == Some(&b'/') {
                current = dup(root)?;
            }
            todo.extend(components(&text).into_iter().rev());
        }
        self.at(&current, false)
    }

    fn missing(&self, at: &OwnedFd, name: Vec<u8>, todo: Vec<Vec<u8>>) -> Result<Place, Unknown> {
        let mut path = self.path_of(at.as_fd())?;
        for part in std::iter::once(name).chain(todo.into_iter().rev()) {
            if part == b".." {
                break; // what lies before it is missing, so the call fails or acts below what is there
            }
            path.push(OsStr::from_bytes(&part));
        }
        Ok(Place { path, linked_on: None, moves: false })
    }

    /// How to follow a link that lies in `dir`, if that is in a procfs, where links mean something else to each
    /// reader.
    fn proc_link(&self, pid: u32, dir: &OwnedFd, name: &[u8]) -> Result<ProcLink, Unknown> {
        if fstatfs(dir).map_err(|_| Unknown)?.f_type as i64 != PROC_SUPER_MAGIC {
            return Ok(ProcLink::No);
        }
        if fstat(dir).map_err(|_| Unknown)?.st_ino != PROC_ROOT_INO {
            return openat(dir, name, o_path(), Mode::empty()).map(ProcLink::Object).map_err(|_| Unknown);
        }
        if name != b"self" && name != b"thread-self" {
            return Ok(ProcLink::No);
        }
        // A procfs of another pid namespace numbers its processes differently.
        let own = readlinkat(dir, "self", Vec::new()).map_err(|_| Unknown)?;
        if own.as_bytes() != self.own_pid.as_bytes() {
            return Err(Unknown);
        }
        Ok(ProcLink::Text(pid.to_string().into_bytes()))
    }
}

enum ProcLink {
    No,
    Text(Vec<u8>),
    Object(OwnedFd),
}

fn dup(fd: &OwnedFd) -> Result<OwnedFd, Unknown> {
    fd.try_clone().map_err(|_| Unknown)
}

fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/').filter(|part| !part.is_empty()).map(<[u8]>::to_vec).collect()
}

fn same(a: &OwnedFd, b: &OwnedFd) -> Result<bool, Unknown> {
    let (a, b) = (fstat(a).map_err(|_| Unknown)?, fstat(b).map_err(|_| Unknown)?);
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// The tree that the gate guards.
pub struct Workspace {
    literal: PathBuf,
}

impl Workspace {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { literal: path.into() }
    }

    /// Whether acting at `place` may change the tree. The workspace is looked up each time: sync may make it.
    pub fn is_touched_by(&self, resolver: &Resolver, place: &Place) -> bool {
        let real = rustix::fs::open(&self.literal, o_path(), Mode::empty())
            .ok()
            .and_then(|fd| Some((resolver.path_of(fd.as_fd()).ok()?, fstat(&fd).ok()?.st_dev)));
        if touches(&self.literal, place) {
            return true;
        }
        match real {
            Some((path, device)) => touches(&path, place) || place.linked_on == Some(device),
            None => false,
        }
    }

    /// The same question for a path that the agent itself is asked to change.
    pub fn holds(&self, path: &Path) -> bool {
        let real = std::fs::canonicalize(&self.literal).unwrap_or_else(|_| self.literal.clone());
        path.starts_with(&self.literal) || resolve_own(path).starts_with(&real)
    }
}

fn touches(workspace: &Path, place: &Place) -> bool {
    place.path.starts_with(workspace) || (place.moves && workspace.starts_with(&place.path))
}

/// A path of our own with the links in what exists of it followed; the rest is kept as it is.
pub fn resolve_own(path: &Path) -> PathBuf {
    let mut rest = PathBuf::new();
    let mut at = path;
    for _ in 0..=MAX_LINKS {
        if let Ok(real) = std::fs::canonicalize(at) {
            return if rest.as_os_str().is_empty() { real } else { real.join(rest) };
        }
        // A dangling link: what it names is what a write would make.
        if let Ok(target) = std::fs::read_link(at) {
            let target = at.parent().unwrap_or(Path::new("/")).join(target);
            return resolve_own_once(&target).join(rest);
        }
        let (Some(parent), Some(name)) = (at.parent(), at.file_name()) else { break };
        rest = if rest.as_os_str().is_empty() { PathBuf::from(name) } else { Path::new(name).join(rest) };
        at = parent;
    }
    path.to_path_buf()
}

fn resolve_own_once(path: &Path) -> PathBuf {
    match (path.parent().and_then(|p| std::fs::canonicalize(p).ok()), path.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path.to_path_buf(),
    }
}

/// Reads a string of another process, up to its NUL.
fn read_string(pid: u32, pointer: u64) -> Result<Vec<u8>, Unknown> {
    let mut out = Vec::with_capacity(256);
    let mut at = pointer;
    while out.len() < PATH_MAX {
        // Never across a page border: the next page may not be there.
        let room = (PATH_MAX as u64 - at % PATH_MAX as u64) as usize;
        let mut buf = [0u8; PATH_MAX];
        let got = read_memory(pid, at, &mut buf[..room.min(PATH_MAX - out.len())])?;
        match buf[..got].iter().position(|b| *b == 0) {
            Some(end) => {
                out.extend_from_slice(&buf[..end]);
                return Ok(out);
            }
            None => out.extend_from_slice(&buf[..got]),
        }
        at += got as u64;
    }
    Err(Unknown)
}

/// The path in a socket address; `None` for another family and for abstract names.
fn unix_path(pid: u32, pointer: u64, length: u64) -> Result<Option<Vec<u8>>, Unknown> {
    let mut buf = [0u8; 110];
    let want = (length as usize).min(buf.len());
    if want < 3 {
        return Ok(None);
    }
    let got = read_memory(pid, pointer, &mut buf[..want])?;
    let buf = &buf[..got];
    if buf.len() < 3 || u16::from_ne_bytes([buf[0], buf[1]]) != libc::AF_UNIX as u16 || buf[2] == 0 {
        return Ok(None);
    }
    let path = &buf[2..];
    Ok(Some(path.split(|b| *b == 0).next().unwrap_or(path).to_vec()))
}

fn read_memory(pid: u32, at: u64, buf: &mut [u8]) -> Result<usize, Unknown> {
    let local = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    let remote = libc::iovec { iov_base: at as *mut libc::c_void, iov_len: buf.len() };
    // SAFETY: `local` describes `buf`, which lives and is writable; `remote` is only looked at by the kernel in
    // the other process.
    let got = unsafe { libc::process_vm_readv(pid as libc::pid_t, &local, 1, &remote, 1, 0) };
    if got > 0 {
        return Ok(got as usize);
    }
    // Some profiles deny that call, and allow the file.
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::open(format!("/proc/{pid}/mem")).map_err(|_| Unknown)?;
    match file.read_at(buf, at) {
        Ok(n) if n > 0 => Ok(n),
        _ => Err(Unknown),
    }
}

/// Whether an entry exists, whatever it is.
pub fn exists(path: &Path) -> bool {
    statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}
