//! Queries and replies: queues, connections, counters.
