//! Opens a bucket or a directory.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use object_store::aws::{AmazonS3Builder, resolve_bucket_region};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::access::Access;
use crate::error::Failure;

/// How long one object may take: a few MiB over a bad line.
const LIMIT: Duration = Duration::from_secs(300);
/// How long nothing may arrive.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a store that fails is tried again.
const PATIENCE: Duration = Duration::from_secs(20);
/// The first of these that is set says how to sign requests.
const CREDENTIALS: [&str; 5] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
];
/// Names of hosts after that of a bucket, which some URLs have.
const HOSTS: [&str; 4] =
    [".digitaloceanspaces.com", ".backblazeb2.com", ".filebase.com", ".scw.cloud"];

/// Opens the place; `writes` also creates the directory of a `file:` URL.
///
/// # Errors
///
/// It is no directory, or there are no credentials.
pub async fn open(access: &Access, writes: bool) -> Result<Arc<dyn ObjectStore>> {
    let (scheme, bucket, path) = access.parts();
    let prefix = Key::parse(path).with_context(|| format!("{} is no URL", access.shown()))?;
    let cannot = || format!("cannot use {}", access.shown());
    if scheme == "file" {
        return directory(access, Path::new(&format!("{bucket}/{path}")), writes);
    }
    // An error means that another provider was installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(match scheme {
        "gs" => {
            let store = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
            let store = store.with_client_options(options(false)).with_retry(retry());
            Arc::new(PrefixStore::new(store.build().with_context(cannot)?, prefix))
        }
        "abs" => {
            let store = azure(access, bucket).build().with_context(cannot)?;
            Arc::new(PrefixStore::new(store, prefix))
        }
        _ => {
            let store = amazon(access, bucket).await?.build().with_context(cannot)?;
            Arc::new(PrefixStore::new(store, prefix))
        }
    })
}

fn options(plain: bool) -> ClientOptions {
    ClientOptions::new().with_timeout(LIMIT).with_read_timeout(SILENCE).with_allow_http(plain)
}

fn retry() -> RetryConfig {
    RetryConfig { max_retries: 4, retry_timeout: PATIENCE, ..RetryConfig::default() }
}

fn directory(access: &Access, dir: &Path, writes: bool) -> Result<Arc<dyn ObjectStore>> {
    if writes {
        fs_err::create_dir_all(dir)?;
    }
    let store = LocalFileSystem::new_with_prefix(dir).with_context(|| {
        Failure::new(format!("{} is no directory of a store", dir.display()))
            .hint(format!("check {}; cargo xtask snapshots publish creates it", access.named_by))
    })?;
    Ok(Arc::new(store.with_fsync(true)))
}

/// A bucket of S3 or of what speaks its language.
async fn amazon(access: &Access, host: &str) -> Result<AmazonS3Builder> {
    let key = access.get("access-key-id", &["AWS_ACCESS_KEY_ID", "LITESTREAM_ACCESS_KEY_ID"]);
    let secret = ["AWS_SECRET_ACCESS_KEY", "LITESTREAM_SECRET_ACCESS_KEY"];
    let secret = access.get("secret-access-key", &secret);
    let other = CREDENTIALS.iter().any(|name| std::env::var_os(name).is_some());
    if key.is_none() && !other {
        return Err(Failure::usage(format!("there are no credentials for {}", access.shown()))
            .hint("set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, unless it is Amazon, AWS_ENDPOINT_URL; of a profile: eval \"$(aws configure export-credentials --format env)\"")
            .into());
    }
    let (bucket, endpoint) = split(host);
    let variables = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
    let endpoint = access.get("endpoint", &[]).or(endpoint);
    let endpoint = endpoint.or_else(|| access.get("endpoint", &variables)).map(with_scheme);
    let options = options(endpoint.as_ref().is_some_and(|it| it.starts_with("http://")));
    let region = match access.get("region", &["AWS_REGION", "AWS_DEFAULT_REGION"]) {
        None if endpoint.is_none() => {
            // If that fails, the first request says why.
            resolve_bucket_region(bucket, &options).await.ok()
        }
        region => region,
    };
    let mut store = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(options)
        .with_retry(retry());
    if let (Some(key), Some(secret)) = (key, secret) {
        store = store.with_access_key_id(key).with_secret_access_key(secret);
    }
    if let Some(region) = region {
        store = store.with_region(region);
    }
    if let Some(endpoint) = endpoint {
        store = store.with_endpoint(endpoint);
    }
    Ok(store)
}

/// A container of Azure: `abs://ACCOUNT@CONTAINER/PATH`.
fn azure(access: &Access, host: &str) -> MicrosoftAzureBuilder {
    let (account, container) = host
        .split_once('@')
        .map_or((None, host), |(account, container)| (Some(account), container));
    let account = account.map(str::to_owned).or_else(|| access.get("account-name", &[]));
    let endpoint = access.get("endpoint", &[]).map(with_scheme);
    let options = options(endpoint.as_ref().is_some_and(|it| it.starts_with("http://")));
    let values = [
        (AzureConfigKey::AccountName, account),
        (AzureConfigKey::AccessKey, access.get("account-key", &["LITESTREAM_AZURE_ACCOUNT_KEY"])),
        (AzureConfigKey::SasKey, access.get("sas-token", &["LITESTREAM_AZURE_SAS_TOKEN"])),
        (AzureConfigKey::Endpoint, endpoint),
    ];
    let store = MicrosoftAzureBuilder::from_env()
        .with_container_name(container)
        .with_client_options(options)
        .with_retry(retry());
    let values = values.into_iter().filter_map(|(key, value)| value.map(|value| (key, value)));
    values.fold(store, |store, (key, value)| store.with_config(key, value))
}

/// The bucket, and the endpoint if the host names that too.
fn split(host: &str) -> (&str, Option<String>) {
    if let Some((bucket, _)) = host.split_once(".s3.").filter(|_| host.ends_with(".amazonaws.com"))
    {
        return (bucket, None);
    }
    let of_provider = HOSTS.iter().any(|end| host.ends_with(end));
    match host.split_once('.').filter(|_| of_provider) {
        Some((bucket, endpoint)) => (bucket, Some(endpoint.to_owned())),
        None => (host, None),
    }
}

/// An endpoint as a URL; what is on this machine needs no TLS.
fn with_scheme(endpoint: String) -> String {
    if endpoint.contains("://") {
        return endpoint;
    }
    let host = endpoint.split(':').next().unwrap_or_default();
    let scheme = if ["localhost", "127.0.0.1"].contains(&host) { "http" } else { "https" };
    format!("{scheme}://{endpoint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_may_name_bucket_and_endpoint() {
        assert_eq!(split("my.bucket"), ("my.bucket", None));
        assert_eq!(split("b.s3.eu-west-1.amazonaws.com"), ("b", None));
        let spaces = Some("nyc3.digitaloceanspaces.com".to_owned());
        assert_eq!(split("b.nyc3.digitaloceanspaces.com"), ("b", spaces));
        assert_eq!(with_scheme("localhost:9000".to_owned()), "http://localhost:9000");
        assert_eq!(with_scheme("s3.example.com".to_owned()), "https://s3.example.com");
    }
}
