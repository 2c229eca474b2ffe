//! Where a call goes: the modules that choose destinations from tables. One file or folder each, named as in the
//! reference. What they share stands in `destinations`.

pub mod carrierroute;
pub mod destinations;
pub mod dispatcher;
pub mod drouting;
pub mod fraud_detection;
pub mod load_balancer;
pub mod qrouting;

/// Works on what is loaded on a thread of its own: calls go on meanwhile. Where there are no threads, as in `fermata
/// test`, it is done at once.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    match tokio::runtime::Handle::try_current() {
        Ok(threads) => threads.spawn_blocking(work).await.map_err(|error| format!("reading failed: {error}")),
        Err(_) => Ok(work()),
    }
}

host::modules! { carrierroute, dispatcher, drouting, fraud_detection, load_balancer, qrouting }

#[cfg(test)]
#[allow(dead_code, unused_imports)]
mod testing {
    testing::over!(crate::ALL, modules::ALL, drivers::ALL);
}
