//! Sends one request to an engine of a pool, with a lease: `cargo run --example request -- chat /health`.
//!
//! Lists the pools, waits until the one is ready, takes a lease of it, and asks the engine that the lease names. A drain or
//! a reload of the pool waits for the lease, which ends with its descriptor: when it is dropped, or when this program
//! ends, however it does.

use pool_managerd::client::{Client, Leasing};
use std::env;
use std::error::Error;
use std::process;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let id = arguments.next().ok_or("which pool?")?;
    let path = arguments.next().unwrap_or_else(|| "/health".to_owned());

    let client = Client::connect().await?;
    for pool in client.list().await? {
        println!("{}: {}", pool.id, pool.phase);
    }
    client.wait_ready(&id, Some(Duration::from_secs(60))).await?;

    let how = Leasing {
        wait: Some(Duration::from_secs(10)),
        holder: Some(format!("example request, process {}", process::id())),
        ..Leasing::default()
    };
    let lease = client.allocate_lease_with(&id, &how).await?;
    println!("{}: {}", lease.id, lease.endpoint);
    println!("{}", get(&lease.endpoint, &path).await?);
    drop(lease);
    Ok(())
}

/// The answer to one GET: its first line and its body.
async fn get(endpoint: &str, path: &str) -> Result<String, Box<dyn Error>> {
    match endpoint.strip_prefix("unix:") {
        Some(socket) => ask(UnixStream::connect(socket).await?, "localhost", path).await,
        None => {
            let authority = endpoint.strip_prefix("http://").ok_or("only http is spoken here")?;
            ask(TcpStream::connect(authority).await?, authority, path).await
        }
    }
}

async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    path: &str,
) -> Result<String, Box<dyn Error>> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("that is no HTTP")?;
    Ok(format!("{}\n{body}", head.lines().next().unwrap_or_default()))
}
