//! Logs as this format's first broker wrote them, in `tests/fixtures/log`: they are read by every later one.
