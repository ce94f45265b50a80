//! The part of HTTP/1.1 that tests need: JSON over a persistent connection.

use std::io::{BufRead as _, BufReader, Error, Read as _, Result, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(30);

pub struct Client {
    address: SocketAddr,
    connection: BufReader<TcpStream>,
    /// The value of the header `Authorization`, if it is sent.
    pub authorization: Option<String>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Client { address, connection: BufReader::new(stream), authorization: None })
    }

    pub fn get(&mut self, path: &str) -> Result<(u16, Value)> {
        self.exchange("GET", path, "")
    }

    pub fn post(&mut self, path: &str, body: &Value) -> Result<(u16, Value)> {
        self.exchange("POST", path, &body.to_string())
    }

    pub fn patch(&mut self, path: &str, body: &Value) -> Result<(u16, Value)> {
        self.exchange("PATCH", path, &body.to_string())
    }

    fn exchange(&mut self, method: &str, path: &str, body: &str) -> Result<(u16, Value)> {
        let authorization = self.authorization.as_ref();
        let authorization = authorization.map(|value| format!("Authorization: {value}\r\n"));
        // One write per request, so that it is sent in one packet.
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             {}Content-Length: {}\r\n\r\n{body}",
            self.address,
            authorization.unwrap_or_default(),
            body.len()
        );
        self.connection.get_mut().write_all(request.as_bytes())?;
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| Error::other("no status line"))?;
        let length = self.content_length()?;
        let mut body = vec![0; length];
        self.connection.read_exact(&mut body)?;
        // Errors may come as plain text, and some answers have no body.
        let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
        Ok((status, serde_json::from_slice(&body).unwrap_or_else(|_| text())))
    }

    fn content_length(&mut self) -> Result<usize> {
        let mut length = 0;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(length);
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().map_err(Error::other)?;
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.connection.read_line(&mut line)? == 0 {
            return Err(Error::other("the server closed the connection"));
        }
        Ok(line.trim_end().to_owned())
    }
}
