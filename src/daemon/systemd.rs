//! Notifications to systemd (sd_notify(3)).

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use sd_notify::NotifyState;

/// Reports states of the service. Without systemd this does nothing.
pub(super) fn notify_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = notify(states) {
        log::warn!(event = "systemd_notify_failed", error:%; "");
    }
}

/// sd-notify takes every name for a path; one that begins with `@` is of the abstract namespace.
fn notify(states: &[NotifyState<'_>]) -> io::Result<()> {
    let socket = env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    let Some(name) = socket.as_bytes().strip_prefix(b"@") else {
        return sd_notify::notify(states);
    };
    let text: String = states.iter().map(|state| format!("{state}\n")).collect();
    let address = SocketAddr::from_abstract_name(name)?;
    UnixDatagram::unbound()?
        .send_to_addr(text.as_bytes(), &address)
        .map(drop)
}
