//! The program that the kernel runs for each system call of a gated process.
//!
//! It promises that a call which can't change a file is let through in the kernel, and that each call which can
//! is reported to the agent. It looks at numbers and flags only; what a path means is [`super::place`]'s to find.
//! Reads never leave the kernel: `open` and `openat` are sorted by their flags, which are registers.

use std::ffi::c_long;

use libc::sock_filter;

// Newer than the libc crate's tables; the numbers are the same on every architecture from 424 on.
pub const SYS_IO_URING_SETUP: c_long = 425;
pub const SYS_OPENAT2: c_long = 437;
pub const SYS_FCHMODAT2: c_long = 452;
pub const SYS_SETXATTRAT: c_long = 463;
pub const SYS_REMOVEXATTRAT: c_long = 466;
pub const SYS_FILE_SETATTR: c_long = 469;

/// `ioctl` requests that change an inode and need no writable descriptor.
pub const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
pub const FS_IOC32_SETFLAGS: u32 = 0x4004_6602;
pub const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;

#[cfg(target_arch = "x86_64")]
pub const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub const NATIVE: u32 = 0xc000_00b7;

/// Flags of `open` with any of which it may change something. `O_TMPFILE` needs one of the first two.
pub const OPENS_FOR_CHANGE: u32 = (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC) as u32;

/// Reported whatever their arguments are.
pub const REPORTED: &[c_long] = &[
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_fchmodat,
    SYS_FCHMODAT2,
    libc::SYS_fchmod,
    libc::SYS_fchownat,
    libc::SYS_fchown,
    libc::SYS_truncate,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    SYS_SETXATTRAT,
    SYS_REMOVEXATTRAT,
    SYS_FILE_SETATTR,
    libc::SYS_bind,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_creat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utime,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utimes,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_futimesat,
];

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_NOTIFY: u32 = 0x7fc0_0000;
const RET_ERRNO: u32 = 0x0005_0000;

const LOAD: u16 = 0x20; // ld [k]
const JUMP_EQ: u16 = 0x15;
const JUMP_GE: u16 = 0x35;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;

const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
/// Offset of the low half of an argument; both architectures are little endian.
const fn offset_arg(n: u32) -> u32 {
    16 + 8 * n
}

fn op(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// The filter of the architecture that the agent was built for.
pub fn program() -> Vec<sock_filter> {
    let mut p = vec![
        op(LOAD, OFFSET_ARCH, 0, 0),
        op(JUMP_EQ, NATIVE, 1, 0),
        // Another architecture's call (int 0x80): its numbers mean something else, so each of them is reported.
        op(RETURN, RET_NOTIFY, 0, 0),
        op(LOAD, OFFSET_NR, 0, 0),
    ];
    #[cfg(target_arch = "x86_64")]
    p.extend([op(JUMP_GE, 0x4000_0000, 0, 1), op(RETURN, RET_ERRNO | libc::ENOSYS as u32, 0, 0)]);
    // What hides its paths from a filter is not there; programs then use what does not.
    for nr in [SYS_OPENAT2, SYS_IO_URING_SETUP] {
        p.extend([op(JUMP_EQ, nr as u32, 0, 1), op(RETURN, RET_ERRNO | libc::ENOSYS as u32, 0, 0)]);
    }
    p.extend([
        op(JUMP_EQ, libc::SYS_open_by_handle_at as u32, 0, 1),
        op(RETURN, RET_ERRNO | libc::EPERM as u32, 0, 0),
    ]);
    #[cfg(target_arch = "x86_64")]
    open_by_flags(&mut p, libc::SYS_open, 1);
    open_by_flags(&mut p, libc::SYS_openat, 2);
    p.extend([
        op(JUMP_EQ, libc::SYS_ioctl as u32, 0, 6),
        op(LOAD, offset_arg(1), 0, 0),
        op(JUMP_EQ, FS_IOC_SETFLAGS, 3, 0),
        op(JUMP_EQ, FS_IOC32_SETFLAGS, 2, 0),
        op(JUMP_EQ, FS_IOC_FSSETXATTR, 1, 0),
        op(RETURN, RET_ALLOW, 0, 0),
        op(RETURN, RET_NOTIFY, 0, 0),
    ]);
    for nr in REPORTED {
        p.extend([op(JUMP_EQ, *nr as u32, 0, 1), op(RETURN, RET_NOTIFY, 0, 0)]);
    }
    p.push(op(RETURN, RET_ALLOW, 0, 0));
    p
}

fn open_by_flags(p: &mut Vec<sock_filter>, nr: c_long, flags: u32) {
    p.extend([
        op(JUMP_EQ, nr as u32, 0, 4),
        op(LOAD, offset_arg(flags), 0, 0),
        op(JUMP_SET, OPENS_FOR_CHANGE, 0, 1),
        op(RETURN, RET_NOTIFY, 0, 0),
        op(RETURN, RET_ALLOW, 0, 0),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would do, for the few instructions in use.
    fn run(arch: u32, nr: c_long, args: [u64; 6]) -> u32 {
        let p = program();
        let (mut at, mut a) = (0, 0u32);
        loop {
            let i = &p[at];
            at += 1;
            match i.code {
                LOAD if i.k == OFFSET_NR => a = nr as u32,
                LOAD if i.k == OFFSET_ARCH => a = arch,
                LOAD => a = args[((i.k - 16) / 8) as usize] as u32,
                RETURN => return i.k,
                code => {
                    let yes = match code {
                        JUMP_EQ => a == i.k,
                        JUMP_GE => a >= i.k,
                        JUMP_SET => a & i.k != 0,
                        other => panic!("instruction {other:#x}"),
                    };
                    at += usize::from(if yes { i.jt } else { i.jf });
                }
            }
        }
    }

    #[test]
    fn reads_stay_in_the_kernel_and_changes_are_reported() {
        let openat = |flags: i32| run(NATIVE, libc::SYS_openat, [0, 0, flags as u64, 0, 0, 0]);
        assert_eq!(openat(libc::O_RDONLY | libc::O_CLOEXEC), RET_ALLOW);
        assert_eq!(openat(libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW), RET_ALLOW);
        for flags in
            [libc::O_WRONLY, libc::O_RDWR, libc::O_CREAT, libc::O_TRUNC, libc::O_TMPFILE | libc::O_RDWR, 3]
        {
            assert_eq!(openat(flags), RET_NOTIFY, "{flags:#x}");
        }
        assert_eq!(run(NATIVE, libc::SYS_read, [0; 6]), RET_ALLOW);
        assert_eq!(run(NATIVE, libc::SYS_sendmsg, [0; 6]), RET_ALLOW);
        assert_eq!(run(NATIVE, libc::SYS_execve, [0; 6]), RET_ALLOW);
        for nr in REPORTED {
            assert_eq!(run(NATIVE, *nr, [0; 6]), RET_NOTIFY, "{nr}");
        }
    }

    #[test]
    fn what_can_not_be_judged_is_refused_or_reported() {
        assert_eq!(run(NATIVE, SYS_OPENAT2, [0; 6]), RET_ERRNO | libc::ENOSYS as u32);
        assert_eq!(run(NATIVE, SYS_IO_URING_SETUP, [0; 6]), RET_ERRNO | libc::ENOSYS as u32);
        assert_eq!(run(NATIVE, libc::SYS_open_by_handle_at, [0; 6]), RET_ERRNO | libc::EPERM as u32);
        assert_eq!(run(0x4000_0003, 3, [0; 6]), RET_NOTIFY, "i386 read");
        #[cfg(target_arch = "x86_64")]
        assert_eq!(run(NATIVE, libc::SYS_read | 0x4000_0000, [0; 6]), RET_ERRNO | libc::ENOSYS as u32, "x32");
        let ioctl = |request: u32| run(NATIVE, libc::SYS_ioctl, [0, request.into(), 0, 0, 0, 0]);
        assert_eq!(ioctl(FS_IOC_SETFLAGS), RET_NOTIFY);
        assert_eq!(ioctl(FS_IOC_FSSETXATTR), RET_NOTIFY);
        assert_eq!(ioctl(libc::TCGETS as u32), RET_ALLOW);
    }
}
