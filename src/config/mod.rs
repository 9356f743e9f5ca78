//! The `rabbitmq.conf` dialect to one validated `Config`; each module owns its `Options`.
