//! What a CONNECT asks for, and what it gets.

use super::options::Options;
use super::violation::Violation;
use crate::base::topic::is_topic_name;
use crate::base::{QoS, Version};
use crate::codec::Connect;

/// A session that never expires (MQTT 5 section 3.1.2.11.2).
pub const EXPIRY_NEVER: u32 = u32::MAX;

/// Receive Maximum where CONNECT names none.
const RECEIVE_MAXIMUM_DEFAULT: u16 = u16::MAX;

/// The longest client identifier an MQTT 3.1 server has to take.
const CLIENT_ID_SIZE_MAX_V310: usize = 23;

/// What one connection may do: CONNECT and the operator's limits together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// Protocol version.
    pub version: Version,
    /// Keep alive in force, in seconds; 0 is none.
    pub keep_alive_secs: u16,
    /// Whether the server's keep alive replaces the client's, to be announced.
    pub keep_alive_is_servers: bool,
    /// Session expiry in force, in seconds; [`EXPIRY_NEVER`] is never.
    pub session_expiry_secs: u32,
    /// Whether the expiry differs from what was asked, to be announced.
    pub session_expiry_is_servers: bool,
    /// Deliveries in flight.
    pub window: u16,
    /// The largest packet the client takes, in bytes.
    pub packet_size_max: u32,
    /// Aliases this broker may define.
    pub topic_alias_maximum: u16,
    /// Whether reason strings and user properties may be sent on anything but PUBLISH, CONNACK and DISCONNECT.
    pub problem_information: bool,
    /// Whether CONNACK may carry Response Information.
    pub response_information: bool,
}

/// Checks a CONNECT and settles the terms.
///
/// # Errors
/// The rule it breaks.
pub fn terms(connect: &Connect<'_>, options: &Options) -> Result<Terms, Violation> {
    check_client_id(connect, options)?;
    if connect.authentication_method.is_some() {
        // No method is supported. [MQTT-4.12.0-1]
        return Err(Violation::AuthenticationMethod);
    }
    if let Some(will) = &connect.will
        && !is_topic_name(will.topic)
    {
        return Err(Violation::WillTopic);
    }
    let asked = asked_expiry(connect);
    let session_expiry_secs = options.session_expiry_max_secs.map_or(asked, |max| asked.min(max));
    let keep_alive_max = options.keep_alive_max_secs;
    let keep_alive_is_servers =
        keep_alive_max > 0 && (connect.keep_alive == 0 || connect.keep_alive > keep_alive_max);
    // [MQTT-3.1.2-21]
    let keep_alive_secs =
        if keep_alive_is_servers && connect.version.is_v5() { keep_alive_max } else { connect.keep_alive };
    let receive_maximum = connect.receive_maximum.map_or(RECEIVE_MAXIMUM_DEFAULT, std::num::NonZero::get);
    Ok(Terms {
        version: connect.version,
        keep_alive_secs,
        keep_alive_is_servers: keep_alive_is_servers && connect.version.is_v5(),
        session_expiry_secs,
        session_expiry_is_servers: session_expiry_secs != asked && connect.version.is_v5(),
        window: receive_maximum.min(options.prefetch.max(1)),
        packet_size_max: connect.packet_size_max.map_or(u32::MAX, std::num::NonZero::get),
        topic_alias_maximum: connect.topic_alias_maximum.min(options.topic_alias_maximum),
        problem_information: connect.request_problem_information,
        response_information: connect.request_response_information,
    })
}

/// The session expiry a CONNECT asks for, in seconds. MQTT 3 has only "ends with the connection" and "never".
fn asked_expiry(connect: &Connect<'_>) -> u32 {
    match connect.version {
        Version::V5 => connect.session_expiry.unwrap_or(0),
        Version::V310 | Version::V311 if connect.clean_start => 0,
        Version::V310 | Version::V311 => EXPIRY_NEVER,
    }
}

/// The expiry in force after a DISCONNECT that carries one.
///
/// # Errors
/// [`Violation::ExpiryRaised`] if it was 0 and is not any more (MQTT 5 section 3.14.2.2.2).
pub fn expiry_on_disconnect(current: u32, asked: Option<u32>, options: &Options) -> Result<u32, Violation> {
    let Some(asked) = asked else { return Ok(current) };
    if current == 0 && asked > 0 {
        return Err(Violation::ExpiryRaised);
    }
    Ok(options.session_expiry_max_secs.map_or(asked, |max| asked.min(max)))
}

fn check_client_id(connect: &Connect<'_>, options: &Options) -> Result<(), Violation> {
    let size = connect.client_id.len();
    let allowed = match connect.version {
        // 1 to 23 characters says MQTT 3.1; longer ones are taken, as everybody does, up to the bound.
        Version::V310 => size >= 1 && size <= options.client_id_size_max.max(CLIENT_ID_SIZE_MAX_V310),
        // [MQTT-3.1.3-8] of 3.1.1: an empty one needs a clean session.
        Version::V311 => size <= options.client_id_size_max && (size > 0 || connect.clean_start),
        Version::V5 => size <= options.client_id_size_max,
    };
    if allowed { Ok(()) } else { Err(Violation::ClientIdentifier) }
}

/// The QoS of a delivery: the lower of the publisher's and the subscription's. [MQTT-3.8.4-8]
#[must_use]
pub fn delivery_qos(published: QoS, subscribed: QoS) -> QoS {
    published.min(subscribed)
}
