//! `forebay demo`: the main job on an embedded configuration.
//!
//! It makes a data folder and a secret, starts a receiver, sends it a short signed burst with
//! duplicates, forgeries and stale requests in it, shows what becomes of each, reads the accepted
//! events back out of the log as any other program would, and stays up until Ctrl-C.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use forebay_log::{Clock, From, Kind, Reader};
use http::{HeaderName, HeaderValue, header};
use ring::rand::{SecureRandom, SystemRandom};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::outgoing::Outgoing;
use super::row::Style;
use super::{EXIT_TEMPORARY, terminal};
use crate::config;
use crate::server::Server;
use crate::verify::{self, NamedSecret, SecretText, SignInput};

/// The sender that the demo plays.
const PRESET: &str = "standard-webhooks";
/// Bytes of the secret before base64.
const SECRET_BYTES: usize = 32;
/// The lane of its configuration.
const LANE: &str = "events";
/// How long a wait for events may keep Ctrl-C waiting.
const WAIT: Duration = Duration::from_millis(200);
/// Beyond the tolerance of the preset.
const STALE: Duration = Duration::from_secs(3600);
/// How its configuration begins; one that begins otherwise is somebody's own.
const WRITTEN_BY: &str = "# Written by `forebay demo`.";
/// Between two requests, so that the burst can be read as it happens.
const PACE: Duration = Duration::from_millis(60);

/// Arguments of `forebay demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// The data folder; made if it does not exist.
    #[arg(long, value_name = "DIR", default_value = "forebay-demo")]
    dir: PathBuf,
    /// Where to receive; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// End after the burst instead of staying up.
    #[arg(long)]
    once: bool,
}

/// Plays the demo.
pub(super) fn run(args: &DemoArgs) -> ExitCode {
    match play(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::complain(error.as_ref());
            ExitCode::from(EXIT_TEMPORARY)
        }
    }
}

type Failure = Box<dyn std::error::Error>;

fn is_closed_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref().is_some_and(terminal::closed)
}

fn play(args: &DemoArgs) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (secret, config_file) = prepare(args)?;
    let config = config::load(&config_file, std::iter::empty()).map_err(|error| {
        terminal::report(&error);
        io::Error::other("the demo's own configuration is wrong")
    })?;
    let server = Server::start(config, &Clock::System)?;
    let screen = Screen::new();
    say(&format!(
        "forebay receives on http://{} by {}; data, secret and configuration are in {}\n",
        server.address(),
        server.driver().name(),
        args.dir.display()
    ))?;
    say("1. A burst: signed events, duplicates of them, forgeries, stale requests.\n")?;
    let secret =
        NamedSecret { name: "demo".to_owned(), value: SecretText::new(secret), key_id: None };
    let mut reader = Reader::open(args.dir.join("lanes").join(LANE))?;
    reader.seek(From::Latest)?;
    let sender = Sender { address: server.address(), secret };
    sender.burst(screen)?;
    say("\n2. What the log holds, read as `forebay tail` reads it:\n")?;
    screen.tail(&mut reader)?;
    say(&sender.invitation(&args.dir, server.admin_address()))?;
    if args.once {
        server.stop();
        return Ok(());
    }
    say("Up until Ctrl-C. Events as they arrive:\n")?;
    while signals.pending().next().is_none() {
        screen.tail(&mut reader)?;
        reader.wait(WAIT)?;
    }
    say("\nDraining ...")?;
    server.stop();
    Ok(())
}

/// The folder with secret and configuration in it.
fn prepare(args: &DemoArgs) -> Result<(String, PathBuf), Failure> {
    let dir = &args.dir;
    let config_file = dir.join("forebay.toml");
    if fs::read(&config_file).is_ok_and(|text| !text.starts_with(WRITTEN_BY.as_bytes())) {
        let file = config_file.display();
        return Err(format!("{file} is not the demo's; name a folder of its own with --dir").into());
    }
    let prepared = || -> Result<_, Failure> {
        fs::create_dir_all(dir)?;
        let secret = secret(dir)?;
        write_config(args, &config_file)?;
        Ok((secret, config_file))
    };
    prepared().map_err(|error| {
        let dir = dir.display();
        format!("cannot make the folder {dir}; name another one with --dir: {error}").into()
    })
}

/// The demo's secret: made once, kept beside the data.
fn secret(dir: &Path) -> Result<String, Failure> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = dir.join("demo.secret");
    if let Ok(known) = fs::read_to_string(&path) {
        return Ok(known.trim().to_owned());
    }
    let mut bytes = [0; SECRET_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no random bytes"))?;
    let secret = format!("whsec_{}", BASE64_STANDARD.encode(bytes));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{secret}")?;
    Ok(secret)
}

fn write_config(args: &DemoArgs, file: &Path) -> io::Result<()> {
    let dir = fs::canonicalize(&args.dir)?;
    let text = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
    let config = format!(
        r#"{WRITTEN_BY}
data_dir = {data}

[receive]
listen = "{listen}"
receivers = 1

[admin]
listen = "127.0.0.1:0"

[[lane]]
name = "{LANE}"
ack = "synced"
segment_size = "16MiB"
retention = {{ age = "72h", size = "256MiB" }}
disk_reserve = "32MiB"
dedupe_capacity = 100000

[[source]]
name = "demo"
path = "/hooks/demo"
preset = "{PRESET}"
lane = "{LANE}"
secrets = [{{ name = "demo", file = {secret} }}]
"#,
        data = text(&dir),
        listen = args.listen,
        secret = text(&dir.join("demo.secret")),
    );
    fs::write(file, config)
}

/// Plays a provider.
struct Sender {
    address: SocketAddr,
    secret: NamedSecret,
}

/// One request of the burst.
struct Sent {
    id: String,
    event_type: &'static str,
    time_ns: u64,
    forged: bool,
    what: &'static str,
}

impl Sender {
    fn burst(&self, screen: Screen) -> Result<(), Failure> {
        let now = Clock::System.wall_ns();
        let stale = now.saturating_sub(u64::try_from(STALE.as_nanos())?);
        let run = now / 1_000_000;
        let types = [
            "room.started",
            "participant.joined",
            "stream.live",
            "participant.left",
            "recording.ready",
            "room.finished",
        ];
        for (number, event_type) in types.into_iter().enumerate() {
            let id = format!("evt_{run}_{number}");
            let sent =
                |what, time_ns, forged| Sent { id: id.clone(), event_type, time_ns, forged, what };
            self.show(&sent("signed", now, false), screen)?;
            match number {
                1 | 4 => self.show(&sent("duplicate", now, false), screen)?,
                2 => self.show(&sent("forged", now, true), screen)?,
                3 => self.show(&sent("stale", stale, false), screen)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn show(&self, sent: &Sent, screen: Screen) -> Result<(), Failure> {
        let body = format!(
            r#"{{"id":"{}","type":"{}","data":{{"room":"final","viewers":48210}}}}"#,
            sent.id, sent.event_type
        );
        let mut headers = self.headers(sent, body.as_bytes())?;
        headers.push((header::CONNECTION, HeaderValue::from_static("close")));
        // A forgery: the signature is right, but for another body.
        let body = if sent.forged { body.replace("final", "other") } else { body };
        let authority = self.address.to_string();
        let request = Outgoing {
            authority: &authority,
            target: "/hooks/demo",
            headers: &headers,
            body: body.as_bytes(),
        };
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(&request.http())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        screen.request(sent, status, &answer)?;
        thread::sleep(PACE);
        Ok(())
    }

    fn headers(&self, sent: &Sent, body: &[u8]) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
        let input = SignInput {
            id: &sent.id,
            now_ns: sent.time_ns,
            event_type: sent.event_type,
            target: "/",
            body,
        };
        let profile = verify::preset(PRESET).ok_or("the demo's preset is missing")?;
        Ok(verify::sign(profile, self.secret.clone(), &input)?)
    }

    /// How the reader can send one more, by curl and openssl alone.
    fn invitation(&self, dir: &Path, admin: SocketAddr) -> String {
        let dir = dir.display();
        format!(
            r#"
3. Send one more yourself (again within five minutes: a duplicate):

id=evt_mine; ts=$(date +%s); body='{{"type":"hello.world","data":{{"from":"me"}}}}'
key=$(cut -d_ -f2 {dir}/demo.secret | base64 -d | od -An -vtx1 | tr -d ' \n')
sig=$(printf '%s.%s.%s' "$id" "$ts" "$body" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | base64)
curl -i http://{address}/hooks/demo -H 'content-type: application/json' -H "webhook-id: $id" -H "webhook-timestamp: $ts" -H "webhook-signature: v1,$sig" -d "$body"

   Or with the program alone:    forebay sign --provider {PRESET} --secret-file {dir}/demo.secret --url http://{address}/hooks/demo | sh
   Watch from another terminal:  forebay tail --dir {dir} --follow
   Counters:                     curl http://{admin}/metrics
"#,
            address = self.address,
        )
    }
}

/// Standard output, with colours on a terminal.
#[derive(Clone, Copy)]
struct Screen {
    coloured: bool,
}

impl Screen {
    fn new() -> Self {
        Self { coloured: terminal::coloured(&io::stdout()) }
    }

    /// Prints what has come since the last call.
    fn tail(self, reader: &mut Reader) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let style = Style::Pretty { coloured: self.coloured };
        while let Some(record) = reader.next()? {
            if record.kind() == Kind::Event {
                style.print(&mut out, LANE, &record)?;
            }
        }
        Ok(out.flush()?)
    }

    fn request(self, sent: &Sent, status: u16, answer: &str) -> io::Result<()> {
        let (colour, became) = match (status, sent.what) {
            (200, "duplicate") => ("33", "known, acknowledged again, not stored again".to_owned()),
            (200, _) => ("32", "accepted: verified, stored, synced".to_owned()),
            _ => ("31", format!("refused: {}", detail(answer))),
        };
        let became = if self.coloured { format!("\x1b[{colour}m{became}\x1b[0m") } else { became };
        say(&format!("  {:<10} {:<20} {status}  {became}", sent.what, sent.event_type))
    }
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// The sentence of a problem body.
fn detail(answer: &str) -> String {
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let problem: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    problem["detail"].as_str().unwrap_or("no answer").to_owned()
}
