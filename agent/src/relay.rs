//! The way out of a sandbox that may have no network: a port on its loopback whose connections are carried to
//! Hotbed, byte for byte. What is spoken over them is the business of both ends.

use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use domain::wire::ConnectionKind;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::api::App;
use crate::link;

/// How long a connection waits for a Hotbed that is restarting.
const PATIENCE: Duration = Duration::from_secs(5);
const BUFFER: usize = 64 * 1024;

/// Accepts forever. Without the port the sandbox works, only git can't reach Hotbed.
pub async fn serve_forever(app: Rc<App>) {
    if let Err(e) = raise_loopback() {
        eprintln!("hotbed-agent: bring up the loopback interface: {e}");
    }
    let port = app.boot.relay_port;
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Ok(listener) => listener,
        Err(e) => {
            eprintln!("hotbed-agent: listen on 127.0.0.1:{port} for git: {e}; going on without");
            return;
        }
    };
    loop {
        match listener.accept().await {
            Ok((inner, _)) => {
                tokio::task::spawn_local(carry(Rc::clone(&app), inner));
            }
            // Out of descriptors, say: it passes.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn carry(app: Rc<App>, mut inner: TcpStream) {
    let _ = inner.set_nodelay(true);
    let given_up = Instant::now() + PATIENCE;
    let mut outer = loop {
        match link::dial(&app.boot, ConnectionKind::Relay).await {
            Ok(outer) => break outer,
            Err(e) if e.kind().is_retryable() && Instant::now() < given_up => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(e) => {
                eprintln!("hotbed-agent: carry a connection to Hotbed: {}", e.chain());
                return;
            }
        }
    };
    // Each direction ends by itself: one that is done is shut down, the other goes on.
    let _ = tokio::io::copy_bidirectional_with_sizes(&mut inner, &mut outer, BUFFER, BUFFER).await;
}

/// A fresh network namespace has its loopback down. Engines raise it; where none did, try.
fn raise_loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    use std::os::fd::AsRawFd;
    // SAFETY: all zeroes is a valid ifreq, the name fits with its NUL, and the union is read as the kernel has
    // written it.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &mut request) != 0 {
            return Err(io::Error::last_os_error());
        }
        if request.ifr_ifru.ifru_flags & libc::IFF_UP as libc::c_short != 0 {
            return Ok(());
        }
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
