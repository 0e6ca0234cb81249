//! Pokes the filesystem with single system calls, for the tests of the write gate: what no ordinary tool does,
//! or does only in company. Prints `ok` or the error's number; exits with 0 when the call was carried out.

use std::ffi::CString;
use std::io::{BufRead, Error, Write};
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

fn c(s: &str) -> CString {
    CString::new(std::ffi::OsStr::new(s).as_bytes()).unwrap()
}

fn check(r: i64) {
    if r < 0 {
        let errno = Error::last_os_error().raw_os_error().unwrap();
        println!("errno {errno}");
        std::process::exit(1);
    }
}

fn call(nr: i64, args: [usize; 6]) -> i64 {
    let [a, b, c, d, e, f] = args;
    unsafe { libc::syscall(nr, a, b, c, d, e, f) }
}

fn open(path: &str, flags: i32) -> i32 {
    let fd = unsafe { libc::open(c(path).as_ptr(), flags, 0o644) };
    check(fd.into());
    fd
}

fn write_x(fd: i32) {
    check(unsafe { libc::write(fd, b"x".as_ptr().cast(), 1) } as i64);
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |n: usize| args.get(n).map(String::as_str).unwrap_or_default();
    let at = libc::AT_FDCWD as usize;
    match arg(0) {
        "write" => write_x(open(arg(1), libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC)),
        "mmap" => {
            let fd = open(arg(1), libc::O_RDWR);
            unsafe {
                let p = libc::mmap(
                    std::ptr::null_mut(),
                    1,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED,
                    fd,
                    0,
                );
                assert_ne!(p, libc::MAP_FAILED);
                *p.cast::<u8>() = b'x';
                libc::msync(p, 1, libc::MS_SYNC);
            }
        }
        // A descriptor for reading becomes one for writing.
        "reopen" => {
            let fd = open(arg(1), libc::O_RDONLY);
            write_x(open(&format!("/proc/{}/fd/{fd}", arg(2)), libc::O_WRONLY));
        }
        "dirfd" => {
            let dir = open(arg(1), libc::O_RDONLY | libc::O_DIRECTORY);
            check(call(libc::SYS_mkdirat, [dir as usize, c(arg(2)).as_ptr() as usize, 0o755, 0, 0, 0]));
        }
        "truncate" => check(unsafe { libc::truncate(c(arg(1)).as_ptr(), 0) }.into()),
        "fchmod" => {
            let fd = open(arg(1), libc::O_RDONLY);
            check(unsafe { libc::fchmod(fd, 0o600) }.into());
        }
        "fchmodat2" => {
            let path = c(arg(1));
            check(call(452, [at, path.as_ptr() as usize, 0o600, 0, 0, 0]));
        }
        "futimens" => {
            let fd = open(arg(1), libc::O_RDONLY);
            check(call(libc::SYS_utimensat, [fd as usize, 0, 0, 0, 0, 0]));
        }
        "empty-path" => {
            let fd = open(arg(1), libc::O_PATH);
            let flags = libc::AT_EMPTY_PATH as usize;
            check(call(libc::SYS_fchownat, [fd as usize, c("").as_ptr() as usize, 0, 0, flags, 0]));
        }
        "setxattr" => {
            let (path, name) = (c(arg(1)), c("user.poke"));
            let r = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), b"x".as_ptr().cast(), 1, 0) };
            // The filesystem may not have them; that it was asked is what counts.
            if r < 0 && Error::last_os_error().raw_os_error() != Some(libc::EOPNOTSUPP) {
                check(r.into());
            }
        }
        "flags" => {
            let (fd, flags) = (open(arg(1), libc::O_RDONLY), 0i64);
            unsafe { libc::ioctl(fd, 0x4008_6602u64 as _, &flags) };
        }
        "tmpfile" => {
            let fd = unsafe { libc::open(c(arg(1)).as_ptr(), libc::O_TMPFILE | libc::O_WRONLY, 0o600) };
            assert!(fd >= 0 || Error::last_os_error().raw_os_error() == Some(libc::EOPNOTSUPP));
        }
        "bind" => {
            std::os::unix::net::UnixListener::bind(arg(1)).unwrap();
        }
        "mknod" => check(unsafe { libc::mknod(c(arg(1)).as_ptr(), libc::S_IFIFO | 0o600, 0) }.into()),
        "exchange" => {
            let (a, b) = (c(arg(1)), c(arg(2)));
            check(call(libc::SYS_renameat2, [at, a.as_ptr() as usize, at, b.as_ptr() as usize, 2, 0]));
        }
        "fork" => {
            // Forked and waiting before; writing after.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                let mut line = String::new();
                std::io::stdin().lock().read_line(&mut line).unwrap();
                write_x(open(arg(1), libc::O_WRONLY | libc::O_CREAT));
                std::process::exit(0);
            }
            let mut status = 0;
            unsafe { libc::waitpid(pid, &mut status, 0) };
            std::process::exit(libc::WEXITSTATUS(status));
        }
        "threads" => {
            let n: usize = arg(2).parse().unwrap();
            let dir = arg(1).to_owned();
            let threads: Vec<_> = (0..n)
                .map(|i| {
                    let path = format!("{dir}/{i}");
                    std::thread::spawn(move || write_x(open(&path, libc::O_WRONLY | libc::O_CREAT)))
                })
                .collect();
            threads.into_iter().for_each(|t| t.join().unwrap());
        }
        "io_uring" => {
            let mut params = [0u64; 32];
            check(call(425, [4, params.as_mut_ptr() as usize, 0, 0, 0, 0]));
        }
        "openat2" => {
            let how = [libc::O_WRONLY as u64 | libc::O_CREAT as u64, 0o644, 0];
            check(call(437, [at, c(arg(1)).as_ptr() as usize, how.as_ptr() as usize, 24, 0, 0]));
        }
        "handle" => check(call(libc::SYS_open_by_handle_at, [at, 0, 0, 0, 0, 0])),
        #[cfg(target_arch = "x86_64")]
        "x32" => check(call(libc::SYS_getpid | 0x4000_0000, [0; 6])),
        #[cfg(target_arch = "x86_64")]
        "int80" => {
            let mut result: u64 = 20; // getpid of i386
            unsafe { std::arch::asm!("int 0x80", inout("rax") result) };
            assert_eq!(result as u32, std::process::id());
        }
        // A handler without SA_RESTART: the wait at the gate ends with EINTR.
        "interrupted" => {
            extern "C" fn nothing(_: i32) {}
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = nothing as *const () as usize;
                libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut());
            }
            let fd = unsafe { libc::open(c(arg(1)).as_ptr(), libc::O_WRONLY | libc::O_CREAT, 0o644) };
            assert_eq!((fd, Error::last_os_error().raw_os_error()), (-1, Some(libc::EINTR)));
        }
        // The cost of opening for writing, in nanoseconds: best half's mean of n.
        "bench" => {
            let n: usize = arg(2).parse().unwrap();
            let path = c(arg(1));
            let mut took: Vec<u64> = (0..n)
                .map(|_| {
                    let started = Instant::now();
                    let fd = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CREAT, 0o644) };
                    let took = started.elapsed().as_nanos() as u64;
                    assert!(fd >= 0);
                    unsafe { libc::close(fd) };
                    took
                })
                .collect();
            took.sort_unstable();
            println!("{} {}", took[n / 2], took[n * 99 / 100]);
            return;
        }
        // Prints what it can read of another process's secrets.
        "spy" => {
            for file in ["environ", "mem", "fd/0", "cwd", "exe"] {
                let path = format!("/proc/{}/{file}", arg(1));
                println!("{file} {}", std::fs::File::open(path).is_ok());
            }
            return;
        }
        "print" => {
            let mut out = std::io::stdout().lock();
            for _ in 0..arg(1).parse::<usize>().unwrap() {
                out.write_all(&[b'.'; 4096]).unwrap();
            }
        }
        "connect" => {
            use std::io::Read;
            let mut tcp = std::net::TcpStream::connect(("127.0.0.1", arg(1).parse().unwrap())).unwrap();
            tcp.write_all(b"hello").unwrap();
            tcp.shutdown(std::net::Shutdown::Write).unwrap();
            let mut back = String::new();
            tcp.read_to_string(&mut back).unwrap();
            println!("{back}");
            return;
        }
        "read" => println!("{}", std::fs::read_to_string(arg(1)).unwrap().trim_end()),
        "status" => {
            let text = std::fs::read_to_string("/proc/self/status").unwrap();
            for line in text.lines().filter(|l| l.starts_with("Seccomp") || l.starts_with("NoNewPrivs")) {
                println!("{line}");
            }
        }
        "sleep" => loop {
            unsafe { libc::pause() };
        },
        // Leaves an orphan that ends at once, and says its number.
        "orphan" => {
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                let grandchild = unsafe { libc::fork() };
                if grandchild > 0 {
                    println!("{grandchild}");
                }
                std::process::exit(0);
            }
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        }
        other => panic!("poke: `{other}` is not known"),
    }
    println!("ok");
}
