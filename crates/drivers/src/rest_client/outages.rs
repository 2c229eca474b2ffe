//! Which servers give no answers now: one log line when that begins and one when it ends, whatever the number of calls.

use ahash::AHashMap;
use host::outage::Outage;
use parking_lot::Mutex;
use reqwest::Url;

/// Servers that are remembered; what a script makes of a call's data could name any number of them.
const SERVERS: usize = 1000;

/// The servers that gave no answer when they were asked last.
#[derive(Default)]
pub struct Outages(Mutex<AHashMap<String, Outage>>);

/// "http://host:80"
pub fn server(url: &Url) -> String {
    let port = url.port_or_known_default().map_or(String::new(), |port| format!(":{port}"));
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

impl Outages {
    pub fn begins(&self, url: &Url, why: &str) {
        let server = server(url);
        let mut lost = self.0.lock();
        // One more than fit is told each time.
        let known = lost.len() < SERVERS || lost.contains_key(&server);
        let outage = if known { lost.entry(server.clone()).or_default().clone() } else { Outage::default() };
        drop(lost);
        if outage.begins() {
            host::error!("rest_client", "{server} gives no answer: {why} ({})", url.path());
        }
    }

    pub fn ends(&self, url: &Url) {
        let mut lost = self.0.lock();
        if lost.is_empty() {
            return;
        }
        let server = server(url);
        let gone = lost.remove(&server);
        drop(lost);
        if gone.is_some_and(|outage| outage.ends()) {
            host::notice!("rest_client", "{server} answers again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_ports_and_are_bounded() {
        let outages = Outages::default();
        for n in 0..SERVERS + 10 {
            let url = Url::parse(&format!("http://user:secret@h{n}/x?y")).unwrap();
            assert_eq!(server(&url), format!("http://h{n}:80"));
            outages.begins(&url, "why");
        }
        assert_eq!(outages.0.lock().len(), SERVERS);
        outages.ends(&Url::parse("http://h1/other").unwrap());
        assert_eq!(outages.0.lock().len(), SERVERS - 1);
    }
}
