//! Sinks that speak HTTPS, before servers whose certificates are right and wrong.

use std::path::Path;
use std::sync::Arc;

use forebay::drain::sink::{Class, Delivered, Sink};

use super::events::{Events, names_of};
use super::suite::class_of;
use super::{Counterpart, certificates, now};

/// A counterpart behind TLS.
pub(super) trait Secured: Counterpart {
    /// One that shows this certificate, by this key.
    fn start_secured(certificate: &Path, key: &Path) -> Self;

    /// Where it speaks TLS, on loopback.
    fn secured_port(&self) -> u16;

    /// A sink that sends to this origin and trusts this authority; none: those that the system
    /// trusts.
    fn sink_at(&self, origin: &str, authority: Option<&Path>) -> Arc<dyn Sink>;
}

pub(super) fn who_is_not_vouched_for_gets_no_event<C: Secured>() {
    let folder = tempfile::tempdir().unwrap();
    let [authority, certificate, key] = certificates::of_loopback(folder.path(), "server");
    let [stranger, ..] = certificates::of_loopback(folder.path(), "stranger");
    let server = C::start_secured(&certificate, &key);
    let at = |host: &str| format!("https://{host}:{}", server.secured_port());
    let mut lane = Events::of_lane("main");
    let (first, second) = (lane.next(3), lane.next(3));
    let right = server.sink_at(&at("127.0.0.1"), Some(&authority));
    assert_eq!(now(right.deliver(&first)), Delivered::All);
    for (host, authority, why) in [
        ("127.0.0.1", Some(&*stranger), "unknownissuer"),
        ("127.0.0.1", None, "unknownissuer"),
        ("localhost", Some(&*authority), "notvalidforname"),
    ] {
        let sink = server.sink_at(&at(host), authority);
        let delivered = now(sink.deliver(&second));
        assert_eq!(class_of(&delivered), Some(Class::Misconfigured), "{delivered:?}");
        // Some tell it in rustls's words, others by the name that rustls has for it.
        let told = format!("{delivered:?}").replace(' ', "").to_lowercase();
        assert!(told.contains(why), "{why}: {delivered:?}");
        assert_eq!(now(sink.probe()).map_err(|failure| failure.class), Err(Class::Misconfigured));
    }
    assert_eq!(server.stored(), names_of(&first));
    assert_eq!(now(right.deliver(&second)), Delivered::All);
    assert_eq!(server.stored(), names_of(&[first, second].concat()));
}
