//! The handshake with a client on the TLS port.

use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

/// A handshake that takes longer comes to nothing.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// What every TLS client sends first: a record of this type.
const HANDSHAKE: u8 = 0x16;
const CLEAR: &[u8] =
    b"-ERR this port speaks TLS only: connect with TLS (redis-cli --tls), or to the server's plain port\r\n";

/// The stream inside TLS. A client that does not speak TLS is told so in clear.
pub async fn shake_hands(config: Arc<ServerConfig>, mut stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let handshake = async {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE {
            // What it sent is read: else the socket would be reset and the text lost
            let _ = stream.read(&mut [0; 4096]).await?;
            stream.write_all(CLEAR).await?;
            stream.shutdown().await?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the client does not speak TLS"));
        }
        TlsAcceptor::from(config).accept(stream).await
    };
    tokio::time::timeout(HANDSHAKE_MAX, handshake).await?
}
