//! The judge: what was promised, what came, and the verdict.
//!
//! Every message is followed from its publisher to every subscriber that must get it. Nothing is sampled: counts are exact.
//!
//! | promise | QoS 0 | QoS 1 | QoS 2 |
//! |---|---|---|---|
//! | an acknowledged message arrives | no: counted, `kept` at best | yes | yes |
//! | it arrives once | yes | no: counted, `kept` at best | yes |
//! | it arrives after what the same publisher sent before | yes | yes | yes |
//! | it arrives as it was sent, where it belongs, with its QoS, not as retained | yes | yes | yes |
//! | a publish is acknowledged, once, by the right packet | | yes | yes |
//!
//! The QoS is that of the delivery, the smaller of the publisher's and the subscriber's. A copy that comes corrupted does not count
//! as received. What a publisher still had unacknowledged when its connection died may or may not arrive, and what a
//! subscriber missed because its own connection died is counted apart (as undeliverable); the dead connection is a broken promise by itself.

mod ledger;
mod stream;
mod verdict;

pub use ledger::{Force, Found, Lane, Probed, RetainedLane};
pub use stream::{Arrival, Stream};
pub use verdict::{Counts, PublisherEnd, SubscriberEnd, Verdict, judge};
