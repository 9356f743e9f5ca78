//! One core's whole broker: composes the layers below; `handle_*` in, `poll_*` out.
