//! Subscriptions that are confirmed without a hand: one GET each, from a thread of its own.
//!
//! ```text
//! line --Invitation--> bounded queue --> forebay-confirm --one GET--> sns.REGION.amazonaws.com
//! ```
//!
//! An [`Invitation`] is made only of an address at SNS, and reaches the queue only out of a new
//! event whose signature and topic were verified. A request never waits for any of this: what the
//! queue has no room for is left to the operator, as is a GET that fails.

use std::sync::Arc;
use std::thread;

use crossbeam::channel::{self, Receiver, Sender};
use http::Uri;

use crate::config::OutgoingConfig;
use crate::limits::CONFIRMATIONS_MAX;
use crate::observe::SourceCounters;
use crate::outgoing::{Client, GetError};
use crate::verify::sns;

/// What to do with an invitation to confirm a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Confirm {
    /// Keep it as an event and say so in the log; the operator follows it.
    #[default]
    Log,
    /// The same, and follow it.
    Auto,
}

impl Confirm {
    /// As the configuration spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Auto => "auto",
        }
    }
}

/// An address at SNS that confirms a subscription when it is asked for.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation(Uri);

impl Invitation {
    /// Reads the `SubscribeURL` of a message; none if it leads anywhere else.
    pub(super) fn new(url: &str) -> Option<Self> {
        let query = sns::path_at_sns(url)?.strip_prefix('?')?;
        let mut actions =
            form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "Action");
        let (_, action) = actions.next()?;
        let confirms = action == "ConfirmSubscription" && actions.next().is_none();
        let uri = url.parse().ok().filter(|_| confirms)?;
        Some(Self(uri))
    }

    fn host(&self) -> &str {
        self.0.host().unwrap_or_default()
    }
}

/// Its token is not for logs.
impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Invitation").field(&self.host()).finish()
    }
}

#[derive(Debug)]
struct Job {
    invitation: Invitation,
    source: Arc<SourceCounters>,
}

/// Follows invitations in the background; its clones share one thread, which ends with the last.
#[derive(Clone, Debug)]
pub struct Confirmer(Sender<Job>);

impl Confirmer {
    /// Starts the thread.
    pub fn start(config: &OutgoingConfig) -> Self {
        let (queue, jobs) = channel::bounded(CONFIRMATIONS_MAX);
        let config = config.clone();
        let run = move || follow_all(&config, &jobs);
        if let Err(error) = thread::Builder::new().name("forebay-confirm".to_owned()).spawn(run) {
            tracing::warn!(%error, "no such thread: subscriptions are confirmed by hand");
        }
        Self(queue)
    }

    /// Has an invitation followed. False if it is not, since too many wait.
    pub fn follow(&self, invitation: Invitation, source: &Arc<SourceCounters>) -> bool {
        self.0.try_send(Job { invitation, source: Arc::clone(source) }).is_ok()
    }
}

fn follow_all(config: &OutgoingConfig, jobs: &Receiver<Job>) {
    for Job { invitation, source } in jobs {
        let confirmed = follow(config, &invitation);
        source.confirmation(confirmed.is_ok());
        let (host, source) = (invitation.host(), source.name());
        match confirmed {
            Ok(()) => tracing::info!(source, host, "subscription confirmed"),
            Err(error) => tracing::error!(
                source,
                host,
                %error,
                "subscription not confirmed: open the SubscribeURL of the event that is stored \
                 for it, see `forebay tail`, or let the sender ask again"
            ),
        }
    }
}

/// A client for each: there are few, and none keeps a connection.
fn follow(config: &OutgoingConfig, invitation: &Invitation) -> Result<(), GetError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Client::new(config)?.get(&invitation.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_confirmation_at_a_host_of_sns_is_an_invitation() {
        let query = "?Action=ConfirmSubscription&TopicArn=arn:aws:sns:eu-west-1:1:live&Token=t";
        for host in ["sns.us-east-1.amazonaws.com", "sns.cn-north-1.amazonaws.com.cn"] {
            let invitation = Invitation::new(&format!("https://{host}/{query}")).expect(host);
            assert_eq!(invitation.host(), host);
            assert!(!format!("{invitation:?}").contains("Token"), "{invitation:?}");
        }
        let host = "https://sns.us-east-1.amazonaws.com";
        for url in [
            format!("http://sns.us-east-1.amazonaws.com/{query}"),
            format!("{host}{query}"),
            format!("{host}/"),
            format!("{host}/path{query}"),
            format!("{host}/?Action=Unsubscribe&Token=t"),
            format!("{host}/?Token=t"),
            format!("{host}/{query}&Action=Unsubscribe"),
            format!("{host}/{query} HTTP/1.1"),
            format!("{host}/{query}\r\nx: y"),
            format!("{host}.evil.test/{query}"),
            format!("{host}.cn.evil.test/{query}"),
            format!("{host}:8443/{query}"),
            format!("{host}@evil.test/{query}"),
            format!("https://user@sns.us-east-1.amazonaws.com/{query}"),
            format!("https://evil.test/sns.us-east-1.amazonaws.com/{query}"),
            format!("https://evil.test#.amazonaws.com/{query}"),
            format!("https://sns.evil.test?.amazonaws.com/{query}"),
            format!("https://sns.evil\\.amazonaws.com/{query}"),
            format!("https://sns.a.b.amazonaws.com/{query}"),
            format!("https://sns..amazonaws.com/{query}"),
            format!("https://sns.amazonaws.com/{query}"),
            format!("https://evilsns.us-east-1.amazonaws.com/{query}"),
            format!("https://SNS.us-east-1.amazonaws.com/{query}"),
            format!("https:///sns.us-east-1.amazonaws.com/{query}"),
            String::new(),
        ] {
            assert_eq!(Invitation::new(&url), None, "{url}");
        }
    }
}
