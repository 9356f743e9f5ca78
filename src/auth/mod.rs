//! Identity and permissions; never blocks.
