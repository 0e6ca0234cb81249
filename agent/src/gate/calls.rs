//! What a reported system call names: which paths and descriptors, and how the kernel would follow them.
//!
//! It promises a reading of the argument registers for each call that [`super::filter`] reports, and `None` for
//! one that it does not know, which then has to wait. Reading memory and resolving paths is left to
//! [`super::place`].

use std::ffi::c_long;

use super::filter::{SYS_FCHMODAT2, SYS_FILE_SETATTR, SYS_REMOVEXATTRAT, SYS_SETXATTRAT};

const AT_FDCWD: i32 = libc::AT_FDCWD;

/// One thing that a call names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    Path(PathArg),
    /// An open descriptor.
    Fd(i32),
    /// A socket address, a path only in the unix family: pointer and length.
    Address(u64, u64),
}

/// A path argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathArg {
    /// What it is relative to: a descriptor or `AT_FDCWD`.
    pub dir: i32,
    /// Where it lies in the memory of the caller. Null stands for the directory descriptor itself.
    pub pointer: u64,
    pub last: Last,
    /// An empty path stands for the directory descriptor itself.
    pub may_be_empty: bool,
    /// The content stays as it is, so other names of the same file do not matter: the source of a hard link.
    pub content_stays: bool,
}

/// How the last component is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// The entry in its directory moves or goes, and with it everything below; what it is does not matter.
    Entry,
    /// An entry is made; where there is one already, nothing changes.
    NewEntry,
    /// What it names changes, after symbolic links.
    Followed,
    /// What it names changes, be it a link.
    NotFollowed,
}

/// What one call names; no call names more than two things.
pub type Names = [Option<Named>; 2];

fn path(dir: i32, pointer: u64, last: Last) -> PathArg {
    PathArg { dir, pointer, last, may_be_empty: false, content_stays: false }
}

fn one(p: PathArg) -> Option<Names> {
    Some([Some(Named::Path(p)), None])
}

fn two(a: PathArg, b: PathArg) -> Option<Names> {
    Some([Some(Named::Path(a)), Some(Named::Path(b))])
}

/// What `open` with these flags does to its last component; `None` when it changes nothing.
fn opened(flags: u64) -> Option<Last> {
    let flags = flags as i32;
    if flags & libc::O_PATH != 0 {
        return None;
    }
    let exclusive = flags & libc::O_CREAT != 0 && flags & libc::O_EXCL != 0;
    Some(if exclusive || flags & libc::O_NOFOLLOW != 0 { Last::NotFollowed } else { Last::Followed })
}

/// The names in a call's registers. `None` for a call that is not known here; a call that turns out to change
/// nothing names nothing.
pub fn names(nr: c_long, args: &[u64; 6]) -> Option<Names> {
    use Last::{Entry, Followed, NewEntry, NotFollowed};
    const NOTHING: Option<Names> = Some([None, None]);
    let [a0, a1, a2, a3, a4, _] = *args;
    let fd = |a: u64| a as i32;
    // `AT_SYMLINK_NOFOLLOW` and `AT_EMPTY_PATH` as most of the `at` calls take them.
    let at = |dir: u64, pointer: u64, flags: u64| {
        let flags = flags as i32;
        let last = if flags & libc::AT_SYMLINK_NOFOLLOW != 0 { NotFollowed } else { Followed };
        let may_be_empty = flags & libc::AT_EMPTY_PATH != 0;
        one(PathArg { may_be_empty, ..path(fd(dir), pointer, last) })
    };
    match nr {
        libc::SYS_openat => match opened(a2) {
            Some(last) => one(path(fd(a0), a1, last)),
            None => NOTHING,
        },
        libc::SYS_renameat | libc::SYS_renameat2 => two(path(fd(a0), a1, Entry), path(fd(a2), a3, Entry)),
        libc::SYS_unlinkat => one(path(fd(a0), a1, Entry)),
        libc::SYS_mkdirat | libc::SYS_mknodat => one(path(fd(a0), a1, NewEntry)),
        libc::SYS_linkat => {
            let flags = a4 as i32;
            let last = if flags & libc::AT_SYMLINK_FOLLOW != 0 { Followed } else { NotFollowed };
            let may_be_empty = flags & libc::AT_EMPTY_PATH != 0;
            let source = PathArg { may_be_empty, content_stays: true, ..path(fd(a0), a1, last) };
            two(source, path(fd(a2), a3, NewEntry))
        }
        libc::SYS_symlinkat => one(path(fd(a1), a2, NewEntry)),
        libc::SYS_fchmodat => one(path(fd(a0), a1, Followed)),
        SYS_FCHMODAT2 | libc::SYS_utimensat => at(a0, a1, a3),
        libc::SYS_fchownat | SYS_FILE_SETATTR => at(a0, a1, a4),
        SYS_SETXATTRAT | SYS_REMOVEXATTRAT => at(a0, a1, a2),
        libc::SYS_fchmod
        | libc::SYS_fchown
        | libc::SYS_fsetxattr
        | libc::SYS_fremovexattr
        | libc::SYS_ioctl => Some([Some(Named::Fd(fd(a0))), None]),
        libc::SYS_truncate | libc::SYS_setxattr | libc::SYS_removexattr => one(path(AT_FDCWD, a0, Followed)),
        libc::SYS_lsetxattr | libc::SYS_lremovexattr => one(path(AT_FDCWD, a0, NotFollowed)),
        libc::SYS_bind => Some([Some(Named::Address(a1, a2)), None]),
        other => older(other, args),
    }
}

/// Calls that only x86 has kept.
#[cfg(target_arch = "x86_64")]
fn older(nr: c_long, args: &[u64; 6]) -> Option<Names> {
    use Last::{Entry, Followed, NewEntry, NotFollowed};
    let [a0, a1, ..] = *args;
    let cwd = |pointer: u64, last: Last| path(AT_FDCWD, pointer, last);
    match nr {
        libc::SYS_open => match opened(a1) {
            Some(last) => one(cwd(a0, last)),
            None => Some([None, None]),
        },
        libc::SYS_creat | libc::SYS_chmod | libc::SYS_chown | libc::SYS_utime | libc::SYS_utimes => {
            one(cwd(a0, Followed))
        }
        libc::SYS_lchown => one(cwd(a0, NotFollowed)),
        libc::SYS_rename => two(cwd(a0, Entry), cwd(a1, Entry)),
        libc::SYS_link => two(PathArg { content_stays: true, ..cwd(a0, NotFollowed) }, cwd(a1, NewEntry)),
        libc::SYS_symlink => one(cwd(a1, NewEntry)),
        libc::SYS_unlink | libc::SYS_rmdir => one(cwd(a0, Entry)),
        libc::SYS_mkdir | libc::SYS_mknod => one(cwd(a0, NewEntry)),
        libc::SYS_futimesat => one(path(a0 as i32, a1, Followed)),
        _ => None,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn older(_nr: c_long, _args: &[u64; 6]) -> Option<Names> {
    None
}

#[cfg(test)]
mod tests {
    use super::super::filter::REPORTED;
    use super::*;

    #[test]
    fn every_reported_call_is_known() {
        for nr in REPORTED {
            assert!(names(*nr, &[0; 6]).is_some(), "{nr}");
        }
        assert!(names(libc::SYS_getpid, &[0; 6]).is_none());
    }

    #[test]
    fn flags_decide_about_the_last_component() {
        let last = |flags: i32| match names(libc::SYS_openat, &[7, 1, flags as u64, 0, 0, 0]) {
            Some([Some(Named::Path(p)), None]) => Some((p.dir, p.last)),
            _ => None,
        };
        assert_eq!(last(libc::O_WRONLY), Some((7, Last::Followed)));
        assert_eq!(last(libc::O_WRONLY | libc::O_NOFOLLOW), Some((7, Last::NotFollowed)));
        assert_eq!(last(libc::O_CREAT | libc::O_EXCL), Some((7, Last::NotFollowed)));
        assert_eq!(last(libc::O_RDWR | libc::O_PATH), None);
    }
}
