//! `look backup`: asks a running node for a run and adds it to a directory.

use super::{BackupError, MANIFEST, Manifest, Run, io_error};
use crate::node::tls::ClientFiles;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConnection, StreamOwned};

/// A checkpoint of much data takes long, and the node answers only when it is durable.
const PATIENCE: Duration = Duration::from_secs(600);
/// Longest answer taken.
const ANSWER_BYTES_MAX: usize = 1 << 30;
const LOCK: &str = "LOCK";

/// Where the node is and how it is greeted, as for redis-cli.
#[derive(Clone, Debug)]
pub struct Server {
    pub host: String,
    pub port: u16,
    pub user: Option<String>,
    pub password: Option<String>,
    /// None: in clear.
    pub tls: Option<ClientFiles>,
}

/// Adds a run to `dir`. Tells what was done.
pub fn backup(dir: &Path, server: &Server) -> Result<String, BackupError> {
    let (_lock, mut manifest) = open_directory(dir)?;
    let mut connection = Connection::open(server)?;
    let base = manifest.runs.last().copied();
    let begun = match base {
        Some(base) => connection.call(&["LOOK.BACKUP", "BEGIN", &base.to_text()])?,
        None => connection.call(&["LOOK.BACKUP", "BEGIN"])?,
    };
    let begun = String::from_utf8_lossy(&begun).into_owned();
    let (id, run) =
        begun.split_once(' ').and_then(|(id, run)| Some((id, Run::parse(run)?))).ok_or_else(|| connection.puzzled())?;
    if base.is_some_and(|base| base.cluster != run.cluster) {
        let _ = connection.call(&["LOOK.BACKUP", "END", id]);
        return Err(BackupError::OtherCluster(dir.into()));
    }
    let number = base.map_or(1, |base| base.number + 1);
    let run = receive(&mut connection, id, Run { number, ..run }, dir)?;
    manifest.runs.push(run);
    manifest.write(dir)?;
    let _ = connection.call(&["LOOK.BACKUP", "END", id]);
    Ok(told(&run, dir))
}

fn told(run: &Run, dir: &Path) -> String {
    let kind = if run.pages_from == 0 { "full" } else { "incremental" };
    let entries = (run.last + 1).saturating_sub(run.first);
    let since = match (run.number, run.follows) {
        (1, _) => "",
        (_, 1) => ", and every epoch since the run before",
        _ => "; not at the epochs since the run before: the log does not reach back so far",
    };
    format!(
        "run {} in {}: {kind}, {}, {entries} log entries; consistent at epoch {}{since}",
        run.number,
        dir.display(),
        crate::node::verify::bytes(run.bytes),
        run.last_epoch
    )
}

/// A directory that is empty or a backup, locked against other backups. What an interrupted run left goes.
fn open_directory(dir: &Path) -> Result<(File, Manifest), BackupError> {
    let io = io_error(dir);
    fs::create_dir_all(dir).map_err(&io)?;
    let ours = |name: &str| name == LOCK || name == "BACKUP.new" || name.starts_with("run-");
    let names: Vec<String> = fs::read_dir(dir)
        .map_err(&io)?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let known = names.iter().any(|name| name == MANIFEST);
    if !known && !names.iter().all(|name| ours(name)) {
        return Err(BackupError::Foreign(dir.into()));
    }
    let lock = File::options().append(true).create(true).open(dir.join(LOCK)).map_err(&io)?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| BackupError::Locked(dir.into()))?;
    let manifest = if known { Manifest::read(dir)? } else { Manifest::default() };
    let complete: Vec<_> = manifest.runs.iter().map(|run| run.file(dir)).collect();
    for name in names.iter().filter(|name| name.starts_with("run-")) {
        let path = dir.join(name);
        if !complete.contains(&path) {
            fs::remove_file(&path).map_err(&io)?;
        }
    }
    Ok((lock, manifest))
}

/// Writes what the node streams to the run's file, durably. It counts once the manifest names it.
fn receive(connection: &mut Connection, id: &str, mut run: Run, dir: &Path) -> Result<Run, BackupError> {
    let path = run.file(dir);
    let io = io_error(&path);
    let mut file = File::create(&path).map_err(&io)?;
    let mut check = xxhash_rust::xxh3::Xxh3::new();
    loop {
        let piece = connection.call(&["LOOK.BACKUP", "NEXT", id])?;
        if piece.is_empty() {
            break;
        }
        check.update(&piece);
        file.write_all(&piece).map_err(&io)?;
        let before = run.bytes >> 28;
        run.bytes += piece.len() as u64;
        if run.bytes >> 28 > before {
            eprintln!("{} received", crate::node::verify::bytes(run.bytes));
        }
    }
    run.check = check.digest();
    file.sync_all().map_err(&io)?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(&io)?;
    Ok(run)
}

/// In clear or not.
trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// TLS over `stream`; what is wrong with the files or the server's certificate is said before anything is asked.
fn shake_hands(mut stream: TcpStream, host: &str, files: &ClientFiles) -> io::Result<Box<dyn Stream>> {
    let config = files.load().map_err(io::Error::other)?;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(Box::new(StreamOwned::new(connection, stream)))
}

struct Connection {
    stream: BufReader<Box<dyn Stream>>,
    name: String,
}

impl Connection {
    fn open(server: &Server) -> Result<Connection, BackupError> {
        let name = format!("{}:{}", server.host, server.port);
        let open = || {
            let stream = TcpStream::connect((server.host.as_str(), server.port))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            match &server.tls {
                None => Ok(Box::new(stream) as Box<dyn Stream>),
                Some(files) => shake_hands(stream, &server.host, files),
            }
        };
        let stream = open().map_err(|e: io::Error| BackupError::Server(name.clone(), e))?;
        let mut connection = Connection { stream: BufReader::new(stream), name };
        if let Some(password) = &server.password {
            match &server.user {
                Some(user) => connection.call(&["AUTH", user, password])?,
                None => connection.call(&["AUTH", password])?,
            };
        }
        Ok(connection)
    }

    /// Sends a request; tells the string that answers it.
    fn call(&mut self, words: &[&str]) -> Result<Vec<u8>, BackupError> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        let failed = |name: &str, e| BackupError::Server(name.into(), e);
        let stream = self.stream.get_mut();
        stream.write_all(&request).and_then(|()| stream.flush()).map_err(|e| failed(&self.name, e))?;
        match self.answer().map_err(|e| failed(&self.name, e))? {
            Ok(bytes) => Ok(bytes),
            Err(refusal) => Err(BackupError::Refused(self.name.clone(), refusal)),
        }
    }

    fn answer(&mut self) -> io::Result<Result<Vec<u8>, String>> {
        let mut line = Vec::new();
        (&mut self.stream).take(64 << 10).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        match text.split_at_checked(1) {
            Some(("-", error)) => Ok(Err(error.to_owned())),
            Some(("+", word)) => Ok(Ok(word.as_bytes().to_vec())),
            Some(("$", len)) => {
                let len = len.parse::<usize>().ok().filter(|len| *len <= ANSWER_BYTES_MAX);
                let len = len.ok_or_else(|| io::Error::other("an answer of impossible length"))?;
                let mut bytes = Vec::new();
                (&mut self.stream).take(len as u64 + 2).read_to_end(&mut bytes)?;
                match bytes.len() == len + 2 {
                    true => bytes.truncate(len),
                    false => return Err(io::ErrorKind::UnexpectedEof.into()),
                }
                Ok(Ok(bytes))
            }
            _ => Err(io::Error::other("not an answer of a Look node")),
        }
    }

    fn puzzled(&self) -> BackupError {
        BackupError::Server(self.name.clone(), io::Error::other("not an answer of this version of Look"))
    }
}
