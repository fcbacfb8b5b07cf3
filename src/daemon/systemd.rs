//! Notifications to systemd (sd_notify(3)).

/// Reports states of the service. Without systemd this does nothing.
pub(super) fn notify_systemd(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!(event = "systemd_notify_failed", error:%; "");
    }
}
