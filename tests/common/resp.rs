//! A RESP client that keeps every reply exactly as it was sent: the oracle must not share the server's code.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One reply. Numbers stay text, so that `:1`, `,1` and `,1.0` are three different things.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reply {
    Simple(Vec<u8>),
    Error(Vec<u8>),
    Int(i64),
    Bulk(Vec<u8>),
    Verbatim(Vec<u8>),
    NilBulk,
    NilArray,
    Nil3,
    Bool(bool),
    Double(Vec<u8>),
    BigNumber(Vec<u8>),
    Array(Vec<Reply>),
    Set(Vec<Reply>),
    Push(Vec<Reply>),
    Map(Vec<(Reply, Reply)>),
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reply::Simple(b) => write!(f, "+{}", b.escape_ascii()),
            Reply::Error(b) => write!(f, "-{}", b.escape_ascii()),
            Reply::Int(i) => write!(f, ":{i}"),
            Reply::Bulk(b) => write!(f, "\"{}\"", b.escape_ascii()),
            Reply::Verbatim(b) => write!(f, "=\"{}\"", b.escape_ascii()),
            Reply::NilBulk => write!(f, "$-1"),
            Reply::NilArray => write!(f, "*-1"),
            Reply::Nil3 => write!(f, "_"),
            Reply::Bool(b) => write!(f, "#{b}"),
            Reply::Double(b) => write!(f, ",{}", b.escape_ascii()),
            Reply::BigNumber(b) => write!(f, "({}", b.escape_ascii()),
            Reply::Array(items) => f.debug_list().entries(items).finish(),
            Reply::Set(items) => f.debug_set().entries(items).finish(),
            Reply::Push(items) => write!(f, ">{items:?}"),
            Reply::Map(pairs) => f.debug_map().entries(pairs.iter().map(|(k, v)| (k, v))).finish(),
        }
    }
}

impl Reply {
    pub fn is_error(&self) -> bool {
        matches!(self, Reply::Error(_))
    }

    pub fn is_nil(&self) -> bool {
        matches!(self, Reply::NilBulk | Reply::NilArray | Reply::Nil3)
    }

    pub fn int(&self) -> Option<i64> {
        match self {
            Reply::Int(i) => Some(*i),
            Reply::Bulk(b) | Reply::Simple(b) => std::str::from_utf8(b).ok()?.parse().ok(),
            _ => None,
        }
    }

    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Reply::Bulk(b) | Reply::Simple(b) | Reply::Verbatim(b) => Some(b),
            _ => None,
        }
    }

    pub fn text(&self) -> String {
        match self {
            Reply::Bulk(b) | Reply::Simple(b) | Reply::Verbatim(b) | Reply::Error(b) => {
                String::from_utf8_lossy(b).into_owned()
            }
            other => format!("{other:?}"),
        }
    }

    pub fn items(&self) -> &[Reply] {
        match self {
            Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => items,
            _ => &[],
        }
    }
}

pub struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    at: usize,
}

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Connection { stream, input: Vec::new(), at: 0 })
    }

    /// How long a reply may take before it counts as an error.
    pub fn patience(&self, longest: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(longest))
    }

    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub fn send(&mut self, args: &[Vec<u8>]) -> io::Result<()> {
        let mut out = Vec::new();
        encode(args, &mut out);
        self.send_raw(&out)
    }

    pub fn call(&mut self, args: &[Vec<u8>]) -> io::Result<Reply> {
        self.send(args)?;
        self.read()
    }

    /// `line("SET k v")`: words split at blanks.
    pub fn line(&mut self, line: &str) -> io::Result<Reply> {
        self.call(&super::words(line))
    }

    /// All requests in one write, then all replies.
    pub fn pipeline(&mut self, requests: &[Vec<Vec<u8>>]) -> io::Result<Vec<Reply>> {
        let mut out = Vec::new();
        requests.iter().for_each(|args| encode(args, &mut out));
        self.send_raw(&out)?;
        requests.iter().map(|_| self.read()).collect()
    }

    /// The next reply. Its bytes must be the one canonical spelling of its value.
    pub fn read(&mut self) -> io::Result<Reply> {
        if self.at > 1 << 16 {
            self.input.drain(..self.at);
            self.at = 0;
        }
        let start = self.at;
        let mut position = start;
        let reply = self.value(&mut position)?;
        self.at = position;
        let mut canonical = Vec::new();
        spell(&reply, &mut canonical);
        if canonical != self.input[start..position] {
            let got = self.input[start..position].escape_ascii().to_string();
            return Err(malformed(&format!("not canonical: {got}")));
        }
        Ok(reply)
    }

    /// True when the server has closed the connection and nothing more is to be read.
    pub fn at_end(&mut self) -> bool {
        self.at == self.input.len() && matches!(self.fill(), Err(e) if e.kind() == io::ErrorKind::UnexpectedEof)
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut block = [0u8; 16 * 1024];
        match self.stream.read(&mut block)? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "server closed the connection")),
            n => {
                self.input.extend_from_slice(&block[..n]);
                Ok(())
            }
        }
    }

    fn text_line(&mut self, position: &mut usize) -> io::Result<Vec<u8>> {
        let mut seen = *position;
        loop {
            if let Some(n) = self.input[seen..].windows(2).position(|w| w == b"\r\n") {
                let line = self.input[*position..seen + n].to_vec();
                *position = seen + n + 2;
                return Ok(line);
            }
            seen = self.input.len().saturating_sub(1).max(*position);
            self.fill()?;
        }
    }

    fn exactly(&mut self, position: &mut usize, len: usize) -> io::Result<Vec<u8>> {
        while self.input.len() < *position + len + 2 {
            self.fill()?;
        }
        let body = self.input[*position..*position + len].to_vec();
        *position += len + 2; // the canonical spelling checks the CR LF
        Ok(body)
    }

    fn values(&mut self, position: &mut usize, count: i64) -> io::Result<Vec<Reply>> {
        (0..count).map(|_| self.value(position)).collect()
    }

    fn value(&mut self, position: &mut usize) -> io::Result<Reply> {
        let line = self.text_line(position)?;
        let (&kind, rest) = line.split_first().ok_or_else(|| malformed("empty line"))?;
        let number = || -> io::Result<i64> {
            let text = std::str::from_utf8(rest).map_err(|_| malformed("number is not text"))?;
            text.parse().map_err(|_| malformed(&format!("number {text:?}")))
        };
        Ok(match kind {
            b'+' => Reply::Simple(rest.to_vec()),
            b'-' => Reply::Error(rest.to_vec()),
            b':' => Reply::Int(number()?),
            b',' => Reply::Double(rest.to_vec()),
            b'(' => Reply::BigNumber(rest.to_vec()),
            b'#' => Reply::Bool(rest == b"t"),
            b'_' => Reply::Nil3,
            b'$' if number()? < 0 => Reply::NilBulk,
            b'*' if number()? < 0 => Reply::NilArray,
            b'$' => Reply::Bulk(self.exactly(position, number()? as usize)?),
            b'=' => Reply::Verbatim(self.exactly(position, number()? as usize)?),
            b'*' => Reply::Array(self.values(position, number()?)?),
            b'~' => Reply::Set(self.values(position, number()?)?),
            b'>' => Reply::Push(self.values(position, number()?)?),
            b'%' => {
                let flat = self.values(position, number()? * 2)?;
                Reply::Map(flat.chunks(2).map(|kv| (kv[0].clone(), kv[1].clone())).collect())
            }
            other => return Err(malformed(&format!("type byte {:?}", other as char))),
        })
    }
}

/// A request in the multibulk form.
pub fn encode(args: &[Vec<u8>], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

fn spell(reply: &Reply, out: &mut Vec<u8>) {
    let line = |kind: u8, text: &[u8], out: &mut Vec<u8>| {
        out.push(kind);
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
    };
    let counted = |kind: u8, count: usize, out: &mut Vec<u8>| line(kind, count.to_string().as_bytes(), out);
    match reply {
        Reply::Simple(b) => line(b'+', b, out),
        Reply::Error(b) => line(b'-', b, out),
        Reply::Int(i) => line(b':', i.to_string().as_bytes(), out),
        Reply::Double(b) => line(b',', b, out),
        Reply::BigNumber(b) => line(b'(', b, out),
        Reply::Bool(b) => line(b'#', if *b { b"t" } else { b"f" }, out),
        Reply::Nil3 => line(b'_', b"", out),
        Reply::NilBulk => line(b'$', b"-1", out),
        Reply::NilArray => line(b'*', b"-1", out),
        Reply::Bulk(b) | Reply::Verbatim(b) => {
            counted(if matches!(reply, Reply::Bulk(_)) { b'$' } else { b'=' }, b.len(), out);
            out.extend_from_slice(b);
            out.extend_from_slice(b"\r\n");
        }
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            let kind = match reply {
                Reply::Array(_) => b'*',
                Reply::Set(_) => b'~',
                _ => b'>',
            };
            counted(kind, items.len(), out);
            items.iter().for_each(|item| spell(item, out));
        }
        Reply::Map(pairs) => {
            counted(b'%', pairs.len(), out);
            pairs.iter().for_each(|(k, v)| {
                spell(k, out);
                spell(v, out);
            });
        }
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed reply: {what}"))
}
