//! Tansu, a broker of Kafka's protocol, over a file of `SQLite`: of its stores that need no server
//! the one that keeps users, and not in the program that the tests have from `PyPI`.
//!
//! `forebay-test-tansu PORT ADVERTISED FILE open|closed` listens on loopback, sends its clients to the
//! port ADVERTISED, and lets everybody in or those who log in. FILE is in its working folder.

use std::error::Error;

use tansu_broker::broker::Broker;
use tansu_broker::coordinator::group::administrator::Controller;
use tansu_storage::StorageContainer;
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

const USAGE: &str = "forebay-test-tansu PORT ADVERTISED FILE open|closed";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [port, advertised, file, door] = words.as_slice() else { return Err(USAGE.into()) };
    let broker = Broker::<Controller<StorageContainer>, StorageContainer>::builder()
        .node_id(111)
        .cluster_id("tests")
        .incarnation_id(Uuid::from_u128(1))
        .listener(Url::parse(&format!("tcp://127.0.0.1:{port}"))?)
        .advertised_listener(Url::parse(&format!("tcp://127.0.0.1:{advertised}"))?)
        .storage(Url::parse(&format!("sqlite:///{file}"))?)
        .authentication(door == "closed")
        .silent(true)
        .build()
        .await?;
    broker.main(Instant::now()).await?;
    Ok(())
}
