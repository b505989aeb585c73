//! A connection, the channels on it, and an end to it that waits for nobody.
//!
//! The client drives each connection by a thread of its own, which lives for as long as its socket
//! does. A server that hangs keeps a socket open for ever; so the socket is shut down as soon as its
//! link is let go, whatever the client still waits for. That also keeps what is queued in the client
//! from being written behind the back of what the next connection publishes.

use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::queue::SegQueue;
use lapin::options::ConfirmSelectOptions;
use lapin::runtime::default_runtime;
use lapin::tcp::RustlsConnector;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties};
use tokio::sync::watch;

use super::failure::of_connect;
use super::{Server, Settings};
use crate::drain::sink::Failure;
use crate::drain::sinks::trust::Trust;

/// How long the two sides may take to say goodbye where nothing is open between them.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// A connection that was entered.
#[derive(Debug)]
pub(super) struct Link {
    connection: Connection,
    /// Channels on which nothing is open: a returned message belongs to a confirm of its channel,
    /// but does not say to which, so that no two batches share one.
    idle: SegQueue<Channel>,
    pub(super) trust: Trust,
    /// Gone with the link; true if it ends in peace.
    alive: watch::Sender<bool>,
}

impl Link {
    /// Connects and logs in.
    pub(super) async fn open(
        server: &Server,
        settings: &Settings,
        timeout: Duration,
    ) -> Result<Self, Failure> {
        let runtime = default_runtime().map_err(|error| of_connect(&error))?;
        let tls = server.tls.then(|| RustlsConnector::from(Arc::clone(&settings.tls)));
        let (alive, ending) = watch::channel(false);
        let properties = ConnectionProperties::default().with_connection_name("forebay".into());
        let connected = Connection::connector(
            uri(server, settings),
            runtime,
            async move |uri: AMQPUri, runtime| {
                let AMQPAuthority { host, port, .. } = uri.authority;
                let connected = async {
                    let addresses = runtime.to_socket_addrs((host.clone(), port));
                    let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
                    if let AsyncTcpStream::Plain(plain) = &stream {
                        let socket = plain.get_ref().as_fd().try_clone_to_owned()?;
                        tokio::spawn(end_of(TcpStream::from(socket), ending.clone()));
                    }
                    match &tls {
                        Some(tls) => stream.into_rustls(tls, &host).await,
                        None => Ok(stream),
                    }
                };
                // On a thread of the client's: nobody else would end it.
                match tokio::time::timeout(timeout, connected).await {
                    Ok(connected) => connected.map_err(lapin::Error::from),
                    Err(late) => Err(std::io::Error::from(late).into()),
                }
            },
            properties,
        );
        let connection = connected.await.map_err(|error| of_connect(&error))?;
        Ok(Self { connection, idle: SegQueue::new(), trust: Trust::default(), alive })
    }

    /// Whether it is connected, as far as anybody knows.
    pub(super) fn is_up(&self) -> bool {
        self.connection.status().connected()
    }

    /// Whether the server takes nothing for now, for want of memory or disk.
    pub(super) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// No frame of the connection is larger, in bytes.
    pub(super) fn frame_bytes_max(&self) -> usize {
        usize::try_from(self.connection.configuration().frame_max()).unwrap_or(usize::MAX)
    }

    /// A channel that nobody else has.
    pub(super) async fn channel(&self) -> lapin::Result<Channel> {
        while let Some(channel) = self.idle.pop() {
            if channel.status().connected() {
                return Ok(channel);
            }
        }
        self.new_channel().await
    }

    pub(super) async fn new_channel(&self) -> lapin::Result<Channel> {
        let channel = self.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }

    /// Gives back a channel on which nothing is open.
    pub(super) fn done_with(&self, channel: Channel) {
        self.idle.push(channel);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.alive.send_replace(self.trust.holds() && !self.is_blocked());
    }
}

/// Shuts the socket down once its link is gone.
async fn end_of(socket: TcpStream, mut link: watch::Receiver<bool>) {
    while link.changed().await.is_ok() {}
    if *link.borrow() {
        tokio::time::sleep(GOODBYE_MAX).await;
    }
    // It fails where the socket has ended by itself.
    _ = socket.shutdown(Shutdown::Both);
}

fn uri(server: &Server, settings: &Settings) -> AMQPUri {
    let heartbeat = u16::try_from(settings.heartbeat.as_secs()).unwrap_or(u16::MAX).max(1);
    AMQPUri {
        scheme: if server.tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: settings.user.clone(),
                password: settings.password.expose_secret().to_owned(),
            },
            host: server.host.clone(),
            port: server.port,
        },
        vhost: settings.vhost.clone(),
        query: AMQPQueryString { heartbeat: Some(heartbeat), ..AMQPQueryString::default() },
    }
}
