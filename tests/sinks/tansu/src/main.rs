//! Tansu, a broker of Kafka's protocol, over a file of `SQLite`: of its stores that need no server
//! the one that keeps users, and not in the program that the tests have from `PyPI`.
//!
//! `forebay-test-tansu PORT ADVERTISED FILE DOOR` listens on loopback and sends its clients to the port
//! ADVERTISED. DOOR is `open`, or `closed` but for the users of the store, who log in by SCRAM, or
//! `plain USER PASSWORD`. FILE is in its working folder.
//!
//! By itself Tansu takes any password that comes as it is, so that one is judged here; all else of that
//! login is Tansu's.

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;

use rama::{Context as Connection, Service as _};
use rsasl::callback::{Context, SessionCallback, SessionData};
use rsasl::config::SASLConfig;
use rsasl::property::{AuthId, Password};
use rsasl::validate::{Validate, ValidationError};
use tansu_auth::{Justification, Success};
use tansu_broker::coordinator::group::administrator::Controller;
use tansu_broker::service::services;
use tansu_storage::{BrokerRegistrationRequest, Storage as _, StorageContainer};
use tokio::net::TcpListener;
use url::Url;
use uuid::Uuid;

const USAGE: &str = "forebay-test-tansu PORT ADVERTISED FILE open|closed|plain [USER PASSWORD]";
const CLUSTER: &str = "tests";
const NODE: i32 = 111;

/// The one who comes in by a password as it is.
struct Known {
    user: String,
    password: String,
}

impl SessionCallback for Known {
    fn validate(
        &self,
        _session: &SessionData,
        context: &Context<'_>,
        validate: &mut Validate<'_>,
    ) -> Result<(), ValidationError> {
        let user = context.get_ref::<AuthId>();
        let password = context.get_ref::<Password>();
        if user != Some(&self.user) || password != Some(self.password.as_bytes()) {
            return Err(ValidationError::Boxed("another user or password".into()));
        }
        validate.with::<Justification, _>(|| Ok(Ok(Success::default()))).map(drop)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [port, advertised, file, door @ ..] = words.as_slice() else { return Err(USAGE.into()) };
    let storage = StorageContainer::builder()
        .cluster_id(CLUSTER)
        .node_id(NODE)
        .advertised_listener(Url::parse(&format!("tcp://127.0.0.1:{advertised}"))?)
        .storage(Url::parse(&format!("sqlite:///{file}"))?)
        .silent(true)
        .build()
        .await?;
    let logins = match door {
        ["open"] => None,
        ["closed"] => Some(tansu_auth::configuration(storage.clone())?),
        ["plain", user, password] => {
            let known = Known { user: (*user).into(), password: (*password).into() };
            Some(SASLConfig::builder().with_defaults().with_callback(known)?)
        }
        _ => return Err(USAGE.into()),
    };
    let itself = BrokerRegistrationRequest {
        broker_id: NODE,
        cluster_id: CLUSTER.into(),
        incarnation_id: Uuid::from_u128(1),
        rack: None,
    };
    storage.register_broker(itself).await?;
    let groups = Controller::with_storage(storage.clone())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse()?)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let logins = logins.as_ref().map(Arc::clone);
        let service = services(CLUSTER, groups.clone(), storage.clone(), logins)?;
        tokio::spawn(async move { service.serve(Connection::default(), stream).await });
    }
}
