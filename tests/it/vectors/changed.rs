//! Every accepted vector with something changed, and to every other sender's source: refused by
//! the whole server, but for what `tests/unseen.toml` says that a scheme cannot see.
//!
//! Places are drawn with a fixed seed. `IT_MUTATIONS` says how many for each kind of change and
//! vector; 0 is every one.

use forebay::config::Source;
use forebay::handshake::{Handshakes, Terms};
use forebay::verify::{Algorithm, Format, KeyEncoding, presets};

use super::hall::{Case, Hall, halls};
use super::vector::{Unseen, kin, same_body};
use crate::support::http::Request;
use crate::support::random::Random;
use crate::support::{Driver, setting};

for_each_driver![
    a_changed_request_is_refused,
    a_request_under_another_key_is_refused,
    a_request_of_one_sender_is_refused_by_every_other,
];

const DAY_S: u64 = 86_400;

fn verified() -> Vec<Case> {
    let mut cases = Case::all();
    cases.retain(|case| case.vector.verified());
    cases
}

/// As many numbers below `bound` as the run is to try; each is there once.
fn draw(random: &mut Random, bound: usize) -> Vec<usize> {
    let count = usize::try_from(setting("IT_MUTATIONS", 6)).unwrap();
    if count == 0 || bound <= count {
        return (0..bound).collect();
    }
    let mut drawn: Vec<usize> =
        (0..count).map(|_| usize::try_from(random.between(0, bound as u64 - 1)).unwrap()).collect();
    drawn.sort_unstable();
    drawn.dedup();
    drawn
}

/// A change: what it is, the request and the time.
type Change = (String, Request, u64);

/// Every drawn change of a case that the server has to see.
fn changes(case: &Case, unseen: &Unseen, random: &mut Random) -> Vec<Change> {
    let (preset, request, now_s) = (&*case.profile.name, case.request(), case.vector.now_s());
    let mut found = Vec::new();
    for name in case.vector.headers.keys().filter(|name| !unseen.header(preset, name)) {
        if !name.eq_ignore_ascii_case("content-length") {
            found.push((format!("no {name}"), request.clone().without(name), now_s));
        }
    }
    let seen = unseen.body(preset);
    for bit in draw(random, 8 * request.body.len()) {
        let mut changed = request.clone();
        changed.body[bit / 8] ^= 1 << (bit % 8);
        if !same_body(case.profile, seen, &request.body, &changed.body) {
            found.push((format!("bit {bit} of the body"), changed, now_s));
        }
    }
    found.extend(signatures(case, unseen, random));
    found.extend(queries(case, random));
    if !unseen.clock(preset) {
        found.push(("a day later".to_owned(), request.clone(), now_s + DAY_S));
        found.push(("a day before".to_owned(), request, now_s.saturating_sub(DAY_S)));
    }
    found
}

/// The header with the signature, in every drawn place another character.
fn signatures(case: &Case, unseen: &Unseen, random: &mut Random) -> Vec<Change> {
    let scheme = &case.profile.scheme;
    let request = case.request();
    let header =
        if scheme.algorithm == Algorithm::Basic { "authorization" } else { &scheme.header };
    let aliases = scheme.aliases.values().flatten().map(String::as_str);
    let mut names = std::iter::once(header).chain(aliases);
    let is = |known: &str, name: &str| known.eq_ignore_ascii_case(name);
    let found = names.find_map(|name| request.headers.iter().position(|(own, _)| is(own, name)));
    let Some(at) = found.filter(|_| !unseen.spare_signatures(&case.vector.name)) else {
        // It stands in the body or in the query, or another one is left.
        return Vec::new();
    };
    let value = &request.headers[at].1;
    let start = unseen.signature_start(&case.profile.name, value);
    let bits = draw(random, 7 * (value.len() - start)).into_iter();
    let change = |bit: usize| {
        let mut changed = request.clone();
        let byte = &mut changed.headers[at].1[start + bit / 7];
        *byte ^= 1 << (bit % 7);
        // What is no text in a header does not come as far as a signature.
        let text = byte.is_ascii_graphic() || *byte == b' ' && (1..value.len() - 1).contains(&bit);
        text.then(|| (format!("bit {bit} of {header}"), changed, case.vector.now_s()))
    };
    bits.filter_map(change).collect()
}

/// The query where it is signed, in every drawn place another character.
fn queries(case: &Case, random: &mut Random) -> Vec<Change> {
    let scheme = &case.profile.scheme;
    let signs = |part: &String| part == "query" || part.starts_with("url");
    let url = scheme.jwt.as_ref().is_some_and(|jwt| jwt.url_sha256.is_some());
    let request = case.request();
    let Some(start) = request.target.find('?').map(|mark| mark + 1) else { return Vec::new() };
    if !(url || scheme.format == Format::Params || scheme.signed.iter().any(signs)) {
        return Vec::new();
    }
    let places = draw(random, request.target.len() - start).into_iter();
    let change = |place: usize| {
        let at = start + place;
        let other = if &request.target[at..=at] == "x" { "y" } else { "x" };
        let mut changed = request.clone();
        changed.target.replace_range(at..=at, other);
        (format!("character {place} of the query"), changed, case.vector.now_s())
    };
    places.map(change).collect()
}

fn a_changed_request_is_refused(driver: Driver) {
    let unseen = Unseen::read();
    let (mut tried, mut random) = (0, Random::new(1));
    for cases in halls(verified()) {
        let mut hall = Hall::start(driver, &cases);
        for case in &cases {
            for (what, request, now_s) in changes(case, &unseen, &mut random) {
                let answer = hall.send_at(&request, now_s);
                assert_eq!(hall.taken(case), 0, "{}, {what}: {answer:?}", case.vector.name);
                tried += 1;
            }
            // And as it was it is taken.
            let answer = hall.send(case);
            assert_eq!(hall.taken(case), 1, "{}: {answer:?}", case.vector.name);
        }
    }
    assert!(tried >= 1000, "only {tried} changes were tried");
}

/// The secrets of a case with another character in a drawn place; none where that is no key, or
/// the same one.
fn other_secrets(case: &Case, unseen: &Unseen, place: u64) -> Option<Vec<String>> {
    let scheme = &case.profile.scheme;
    if unseen.key(&case.profile.name) {
        return None;
    }
    let public = scheme.key_encoding == KeyEncoding::PublicKey;
    let other = |secret: &String| {
        // Around a public key stand its armour and its algorithm, which have spare bits.
        let among = if public { secret.len() / 4..secret.len() / 2 } else { 0..secret.len() };
        let at = among.start + usize::try_from(place).unwrap() % among.len();
        let same = secret.as_bytes()[at].eq_ignore_ascii_case(&b'b');
        let mut other = secret.clone();
        other.replace_range(at..=at, if same { "c" } else { "b" });
        other
    };
    let secrets: Vec<String> = case.vector.secrets.iter().map(other).collect();
    case.vector.verifier(case.profile, &secrets).is_ok().then_some(secrets)
}

fn a_request_under_another_key_is_refused(driver: Driver) {
    let unseen = Unseen::read();
    let mut random = Random::new(2);
    let rounds = match setting("IT_MUTATIONS", 4) {
        // The longest secret that is no certificate.
        0 => 512,
        rounds => rounds.min(4),
    };
    for cases in halls(verified()) {
        let mut hall = Hall::start(driver, &cases);
        let mut tried = 0;
        for _ in 0..rounds {
            let place = random.between(0, 1 << 20);
            let under = |case: &Case| other_secrets(case, &unseen, place);
            hall.reload(&cases, |case, source| {
                let secrets = under(case).unwrap_or_else(|| case.vector.secrets.clone());
                source.verifier = case.vector.verifier(case.profile, &secrets).unwrap();
            });
            for case in cases.iter().filter(|case| under(case).is_some()) {
                let answer = hall.send(case);
                let name = &case.vector.name;
                assert_eq!(hall.taken(case), 0, "{name}, place {place}: {answer:?}");
                tried += 1;
            }
        }
        assert!(tried > 0, "no key was changed");
        hall.reload(&cases, Case::fit);
        for case in &cases {
            let answer = hall.send(case);
            assert_eq!(hall.taken(case), 1, "{}: {answer:?}", case.vector.name);
        }
    }
}

/// The first vector of each sender that there is.
fn one_of_each() -> Vec<Case> {
    let mut cases = verified();
    cases.sort_by_key(|case| (&case.profile.name, case.source.len(), case.source.clone()));
    cases.dedup_by_key(|case| &case.profile.name);
    cases
}

fn a_request_of_one_sender_is_refused_by_every_other(driver: Driver) {
    let mut tried = 0;
    for cases in halls(one_of_each()) {
        let mut hall = Hall::start(driver, &cases);
        for other in presets() {
            let strange = |case: &Case| {
                let verifier = case.vector.verifier(other, &case.vector.secrets);
                (!kin(&case.profile.name, &other.name)).then_some(verifier)?.ok()
            };
            // Its path, its URL and its media types, so that the scheme alone is another one.
            let fit = |case: &Case, source: &mut Source| match strange(case) {
                Some(verifier) => {
                    source.verifier = verifier;
                    source.answers = other.answers.clone();
                    let terms = Terms::default();
                    let asks = Handshakes::new(&other.handshakes, &other.scheme, terms);
                    source.handshakes = asks.unwrap();
                }
                None => case.fit(source),
            };
            hall.reload(&cases, fit);
            for case in cases.iter().filter(|case| strange(case).is_some()) {
                let answer = hall.send(case);
                let names = (&case.profile.name, &other.name);
                assert_eq!(hall.taken(case), 0, "{names:?}: {answer:?}");
                tried += 1;
            }
        }
        hall.reload(&cases, Case::fit);
        for case in &cases {
            let answer = hall.send(case);
            assert_eq!(hall.taken(case), 1, "{}: {answer:?}", case.vector.name);
        }
    }
    assert!(tried >= 1500, "only {tried} pairs were tried");
}
