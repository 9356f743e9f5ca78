//! The `qos0` queue type: the connection's own out-buffer. No object, no task, no allocation; only this decision.

use super::options::Options;

/// What waits for a connection's socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backlog {
    /// Bytes in the out-buffer, all packets.
    pub bytes: usize,
    /// QoS 0 messages in it.
    pub messages: u32,
    /// Whether an earlier buffer is still on its way.
    pub socket_busy: bool,
}

/// Whether a QoS 0 message may be put behind the backlog; if not, it is dropped and counted.
///
/// Fast clients far behind a burst are not slow clients: the bound in messages only counts together with the one in bytes.
#[must_use]
pub fn admits(backlog: Backlog, options: &Options) -> bool {
    let bytes_max = options.qos0_bytes_max as usize;
    !backlog.socket_busy
        || backlog.bytes < bytes_max
        || (backlog.messages < options.qos0_messages_max && backlog.bytes < bytes_max.saturating_mul(4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_over_both_bounds_or_four_times_the_bytes_and_only_behind_a_busy_socket() {
        let options = Options { qos0_messages_max: 10, qos0_bytes_max: 100, ..Options::default() };
        let cases = [
            ((99, 1000, true), true),
            ((100, 9, true), true),
            ((100, 10, true), false),
            ((399, 9, true), true),
            ((400, 9, true), false),
            ((400, 1000, false), true),
        ];
        for ((bytes, messages, socket_busy), expected) in cases {
            assert_eq!(
                admits(Backlog { bytes, messages, socket_busy }, &options),
                expected,
                "{bytes} {messages} {socket_busy}"
            );
        }
    }
}
