//! What is done to the server in the middle of a run.

use std::time::Duration;

use crate::text;

/// One blow and its moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blow {
    pub(crate) at: Duration,
}

/// `kill9@10s`: the process ends without a word and is started again.
pub(crate) fn blow(text: &str) -> Result<Blow, String> {
    match text.split_once('@') {
        Some(("kill9", moment)) => Ok(Blow { at: text::span(moment)? }),
        _ => Err("is kill9@MOMENT, as \"kill9@10s\"".to_owned()),
    }
}

/// The blows of a run, in order.
#[derive(Clone, Debug)]
pub(crate) struct Chaos {
    blows: Vec<Blow>,
    struck: usize,
}

impl Chaos {
    pub(crate) fn new(mut blows: Vec<Blow>) -> Self {
        blows.sort_unstable_by_key(|blow| blow.at);
        Self { blows, struck: 0 }
    }

    /// Whether one has its time; each is told once.
    pub(crate) fn strikes(&mut self, now: Duration) -> bool {
        let strikes = self.blows.get(self.struck).is_some_and(|blow| blow.at <= now);
        self.struck += usize::from(strikes);
        strikes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_blow_strikes_once_in_its_time() {
        let blows = ["kill9@5s", "kill9@2s"].map(|text| blow(text).expect("it can be read"));
        let mut chaos = Chaos::new(blows.to_vec());
        let strikes = [1, 2, 2, 4, 9, 9].map(|seconds| chaos.strikes(Duration::from_secs(seconds)));
        assert_eq!(strikes, [false, true, false, false, true, false]);
        assert!(blow("kill@5s").is_err() && blow("kill9").is_err() && blow("kill9@5").is_err());
    }
}
