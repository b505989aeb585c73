//! The store that the settings name. Nothing is asked of it here.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::{Certificate, ClientOptions, ObjectStore, RetryConfig};

use super::{Bucket, Settings};
use crate::verify::SecretText;

/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Makes the client; an answer may take so long.
pub(super) fn open(
    settings: &Settings,
    timeout: Duration,
) -> object_store::Result<Arc<dyn ObjectStore>> {
    // The client takes the process's provider of cryptography. Is one chosen already, it is this.
    _ = rustls::crypto::ring::default_provider().install_default();
    let client = client(settings, timeout)?;
    // The engine tries again, and it knows what else waits.
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let secret = settings.secret_key.as_ref().map(SecretText::expose_secret);
    Ok(match &settings.bucket {
        Bucket::Folder => Arc::new(LocalFileSystem::new().with_fsync(true)),
        Bucket::S3(bucket) => {
            let mut builder = AmazonS3Builder::from_env()
                .with_bucket_name(bucket)
                .with_allow_http(settings.allow_http)
                .with_client_options(client)
                .with_retry(retry);
            if let Some(endpoint) = &settings.endpoint {
                builder = builder.with_endpoint(endpoint);
            }
            if let Some(region) = &settings.region {
                builder = builder.with_region(region);
            }
            if let (Some(key), Some(secret)) = (&settings.access_key, secret) {
                builder = builder.with_access_key_id(key).with_secret_access_key(secret);
            }
            if let Some(token) = &settings.session_token {
                builder = builder.with_token(token.expose_secret());
            }
            Arc::new(builder.build()?)
        }
        Bucket::Gcs(bucket) => {
            let mut builder = GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(bucket)
                .with_client_options(client)
                .with_retry(retry);
            if let Some(endpoint) = &settings.endpoint {
                builder = builder.with_base_url(endpoint);
            }
            if let Some(secret) = secret {
                builder = builder.with_service_account_key(secret);
            }
            Arc::new(builder.build()?)
        }
        Bucket::Azure(container) => {
            let mut builder = MicrosoftAzureBuilder::from_env()
                .with_container_name(container)
                .with_allow_http(settings.allow_http)
                .with_client_options(client)
                .with_retry(retry);
            if let Some(endpoint) = &settings.endpoint {
                builder = builder.with_endpoint(endpoint.clone());
            }
            if let Some(account) = &settings.access_key {
                builder = builder.with_account(account);
            }
            if let Some(secret) = secret {
                builder = builder.with_access_key(secret);
            }
            Arc::new(builder.build()?)
        }
    })
}

fn client(settings: &Settings, timeout: Duration) -> object_store::Result<ClientOptions> {
    let mut client = ClientOptions::new()
        .with_timeout(timeout)
        .with_connect_timeout(timeout.min(CONNECT_MAX))
        .with_allow_http(settings.allow_http);
    if let Some(pem) = &settings.ca_pem {
        for authority in Certificate::from_pem_bundle(pem)? {
            client = client.with_root_certificate(authority);
        }
    }
    Ok(client)
}
