//! The only place with glommio, io-uring, sockets, files, clocks and threads.

pub mod machine;
