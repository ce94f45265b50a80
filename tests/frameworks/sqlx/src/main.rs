//! Applies `migrations` as an app with sqlx does when it starts.

use std::error::Error;
use std::path::Path;

use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, SqliteConnection};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let options: SqliteConnectOptions = std::env::var("DATABASE_URL")?.parse()?;
    let mut db = SqliteConnection::connect_with(&options.create_if_missing(true)).await?;
    Migrator::new(Path::new("migrations")).await?.run(&mut db).await?;
    db.close().await?;
    Ok(())
}
