//! A destination in memory that does as it is told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

/// What the destination does next with an event, by its body.
pub(super) type Script = Box<dyn Fn(&str, u32) -> Result<(), Failure> + Send + Sync>;

/// A destination in memory.
pub(super) struct Fake {
    nature: Nature,
    pub(super) script: Script,
    /// A batch with an event that is refused for good is refused as a whole.
    pub(super) whole: bool,
    taken: std::sync::mpsc::Sender<String>,
    pub(super) down: AtomicBool,
    pub(super) calls: AtomicU64,
    /// Order keys that are in flight.
    #[expect(clippy::disallowed_types, reason = "a test is not on the path of a request")]
    keys: std::sync::Mutex<HashMap<u64, u32>>,
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fake")
    }
}

impl Fake {
    pub(super) fn new(nature: Nature, script: Script) -> (Self, std::sync::mpsc::Receiver<String>) {
        let (taken, receiver) = std::sync::mpsc::channel();
        let fake = Self {
            nature,
            script,
            whole: false,
            taken,
            down: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            keys: HashMap::new().into(),
        };
        (fake, receiver)
    }

    fn enter(&self, batch: &[Event], by: bool) {
        let mut keys = self.keys.lock().expect("no panic before");
        for key in batch.iter().filter_map(|event| event.order_key) {
            let count = keys.entry(key).or_default();
            if by {
                *count += 1;
                assert_eq!(*count, 1, "two events of one key in flight");
            } else {
                *count -= 1;
            }
        }
    }
}

impl Sink for Fake {
    fn nature(&self) -> Nature {
        self.nature
    }

    fn deliver<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Delivered> {
        let parallel = !self.nature.sequential;
        let deliver = async move {
            self.calls.fetch_add(1, Ordering::Relaxed);
            if parallel {
                self.enter(batch, true);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            if parallel {
                self.enter(batch, false);
            }
            if self.down.load(Ordering::Relaxed) {
                return Delivered::None(Failure::temporary("connection refused"));
            }
            let judged: Vec<Result<(), Failure>> = batch
                .iter()
                .map(|event| {
                    (self.script)(&String::from_utf8_lossy(event.payload()), event.attempts)
                })
                .collect();
            if let Some(Err(failure)) = judged.iter().find(|one| one.is_err() && self.whole) {
                return Delivered::None(failure.clone());
            }
            for (event, verdict) in batch.iter().zip(&judged) {
                if verdict.is_ok() {
                    drop(self.taken.send(String::from_utf8_lossy(event.payload()).into_owned()));
                }
            }
            Delivered::Each(judged)
        };
        deliver.boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Failure>> {
        let down = self.down.load(Ordering::Relaxed);
        let answer = if down { Err(Failure::temporary("still away")) } else { Ok(()) };
        futures_util::future::ready(answer).boxed()
    }
}
