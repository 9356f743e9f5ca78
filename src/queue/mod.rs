//! Queue types: qos0 and session; bounds, drop policy, expiry.
