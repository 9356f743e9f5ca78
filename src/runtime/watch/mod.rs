//! The control thread: what is not on the way of a message and has good libraries. One ordinary thread with a small tokio runtime;
//! so far it serves health and metrics over HTTP.
//!
//! It talks to shards through the [`Desk`] only, and never waits for one longer than it says; a shard never
//! waits for it. It exists only if something is to be listened for.

mod http;
mod observer;
mod process;

use super::control::Control;
use super::desk::Desk;
use anyhow::{Context, Result, anyhow};
use observer::Observer;
pub(super) use process::ProcessFacts;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// The running thread; it ends when this is dropped.
pub(super) struct Watch {
    /// Dropped to end it.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts the thread, serving on these bound and listening sockets.
    ///
    /// # Errors
    /// If the system refuses the thread or what the runtime needs.
    pub(super) fn start(
        listeners: Vec<TcpListener>,
        control: Arc<Control>,
        desk: Arc<Desk>,
        answered: UnixStream,
        facts: ProcessFacts,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .context("the control thread's runtime")?;
        let (stop, stopped) = oneshot::channel();
        let body = move || {
            let served = runtime.block_on(async move {
                let observer = Observer::start(control, desk, answered, facts)?;
                for listener in listeners {
                    let listener = tokio::net::TcpListener::from_std(listener)?;
                    tokio::spawn(http::serve(listener, Arc::clone(&observer)));
                }
                // Ends by being dropped.
                let _ = stopped.await;
                Ok::<_, std::io::Error>(())
            });
            if let Err(error) = served {
                tracing::error!("health and metrics are not served: {error}");
            }
        };
        let thread = std::thread::Builder::new().name("control".to_owned()).spawn(body);
        let thread = thread.map_err(|error| anyhow!(error).context("the control thread"))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported; the shards are not concerned.
            let _ = thread.join();
        }
    }
}
