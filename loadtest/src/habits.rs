//! What senders do when they are not answered as they want: how often they try again, and when,
//! and what they never send because something older is still under way.

use std::time::Duration;

use forebay::verify::Profile;

/// As `LiveKit`'s resource queue has it: the events of a room that may wait for the one in flight.
const ROOM_DEPTH: usize = 200;
/// As `LiveKit` has it: how old an event may get in the queue of its room.
const ROOM_AGE: Duration = Duration::from_secs(30);
/// Attempts of a sender that says how long it tries, and not how often.
const ATTEMPTS: u32 = 8;
/// The most delays that are each twice the one before.
const DOUBLED_MAX: u32 = 10;
/// Retries of a sender of which nothing is known.
const UNKNOWN: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(25)];

/// One queue for each room, worked off one by one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rooms {
    /// More than these, and the newest is dropped.
    pub(crate) depth: usize,
    /// What is older when its turn comes is dropped.
    pub(crate) age: Duration,
}

/// How one sender behaves.
#[derive(Clone, Debug)]
pub(crate) struct Habits {
    /// The wait before each further attempt.
    pub(crate) delays: Vec<Duration>,
    pub(crate) rooms: Option<Rooms>,
    /// It takes every 4xx but 429 as final.
    pub(crate) client_errors_final: bool,
    /// A further attempt carries the signature of the first.
    pub(crate) signs_once: bool,
}

impl Habits {
    /// The sender of a preset, `compress` times as fast.
    pub(crate) fn of(profile: &Profile, compress: f64) -> Self {
        let mut habits = Self::known(profile);
        for delay in &mut habits.delays {
            *delay = delay.div_f64(compress);
        }
        if let Some(rooms) = &mut habits.rooms {
            rooms.age = rooms.age.div_f64(compress);
        }
        habits
    }

    fn known(profile: &Profile) -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 3600;
        let plain = |delays: Vec<Duration>| Self {
            delays,
            rooms: None,
            client_errors_final: false,
            signs_once: false,
        };
        let seconds = |all: &[u64]| plain(all.iter().copied().map(Duration::from_secs).collect());
        match profile.name.as_str() {
            // Its HTTP client doubles from a second, four times, with one token for all attempts.
            "livekit" => Self {
                rooms: Some(Rooms { depth: ROOM_DEPTH, age: ROOM_AGE }),
                client_errors_final: true,
                signs_once: true,
                ..seconds(&[1, 2, 4, 8])
            },
            // Six attempts within 10 h 36 min; the steps between are those that add up to it.
            "wave" => seconds(&[MINUTE, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 8 * HOUR]),
            // The example in its specification.
            "standard-webhooks" => seconds(&[
                5,
                5 * MINUTE,
                30 * MINUTE,
                2 * HOUR,
                5 * HOUR,
                10 * HOUR,
                14 * HOUR,
                20 * HOUR,
                24 * HOUR,
            ]),
            // The default of its server.
            "svix" => {
                seconds(&[5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 10 * HOUR])
            }
            // Others, Stripe among them, say how long they try with growing delays.
            _ => plain(growing(profile)),
        }
    }

    /// Whether an answer ends the matter.
    pub(crate) fn is_final(&self, status: u16) -> bool {
        let client_error = (400..500).contains(&status) && status != 429;
        (200..300).contains(&status) || (self.client_errors_final && client_error)
    }
}

/// Growing delays that together fill the sender's horizon: doubled each time, or, where that
/// would begin with next to nothing, longer by the same amount each time.
fn growing(profile: &Profile) -> Vec<Duration> {
    let Some(horizon) = profile.delivery.horizon else { return UNKNOWN.to_vec() };
    let delays = profile.delivery.attempts.unwrap_or(ATTEMPTS).clamp(1, 200) - 1;
    let weight = |step: u32| match delays {
        0..=DOUBLED_MAX => 2_f64.powf(f64::from(step)),
        _ => f64::from(step + 1),
    };
    let whole: f64 = (0..delays).map(weight).sum();
    let delay = |step| horizon.mul_f64(weight(step) / whole);
    (0..delays).map(delay).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn habits(preset: &str, compress: f64) -> Habits {
        Habits::of(forebay::verify::preset(preset).expect("a preset"), compress)
    }

    #[test]
    fn schedules_fill_the_horizons_that_the_presets_tell() {
        for name in ["wave", "standard-webhooks", "stripe"] {
            let profile = forebay::verify::preset(name).expect("a preset");
            let horizon = profile.delivery.horizon.expect("told").as_secs_f64();
            let habits = habits(name, 1.0);
            let sum: Duration = habits.delays.iter().sum();
            assert!((sum.as_secs_f64() / horizon - 1.0).abs() < 0.01, "{name}: {sum:?}");
            let attempts = profile.delivery.attempts.map_or(8, |attempts| attempts as usize);
            assert_eq!(habits.delays.len() + 1, attempts, "{name}");
        }
    }

    #[test]
    fn every_preset_has_habits_that_compress() {
        for profile in forebay::verify::presets() {
            let (slow, fast) = (Habits::of(profile, 1.0), Habits::of(profile, 60.0));
            // It never sends anything a second time.
            assert_eq!(slow.delays.is_empty(), profile.name == "github", "{}", profile.name);
            for (slow, fast) in slow.delays.iter().zip(&fast.delays) {
                assert!((slow.as_secs_f64() / fast.as_secs_f64() - 60.0).abs() < 0.01);
            }
        }
    }

    #[test]
    fn livekit_takes_client_errors_as_final_and_others_do_not() {
        let (livekit, stripe) = (habits("livekit", 1.0), habits("stripe", 1.0));
        assert!(livekit.is_final(200) && livekit.is_final(401) && !livekit.is_final(429));
        assert!(!livekit.is_final(503) && !stripe.is_final(401) && stripe.is_final(204));
        assert_eq!(livekit.rooms.map(|rooms| rooms.depth), Some(200));
        assert_eq!(habits("livekit", 60.0).rooms.map(|rooms| rooms.age.as_millis()), Some(500));
    }
}
