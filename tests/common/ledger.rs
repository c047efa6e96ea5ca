//! What a writer knows of its own writes, and what a restarted server must then hold.
//!
//! A connection's writes apply in order, so after a crash the server holds a prefix of what was sent: at least
//! everything acknowledged, at most everything sent, nothing twice. Step `n` of a writer is five requests:
//!
//! ```text
//! INCR c:w   SET u:w:n n   RPUSH l:w n   MULTI INCR a:w INCR b:w EXEC
//! ```

use super::resp::{Connection, Reply};
use super::{Random, words};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

pub struct Ledger {
    pub writer: usize,
    /// Steps whose every reply has come.
    pub acknowledged: i64,
    /// Steps sent at all.
    pub sent: i64,
    /// Steps known to be in the data since the last check: the older ones are only sampled.
    checked: i64,
}

const REQUESTS: usize = 7;

impl Ledger {
    pub fn new(writer: usize) -> Self {
        Ledger { writer, acknowledged: 0, sent: 0, checked: 0 }
    }

    fn step(&self, n: i64) -> Vec<Vec<Vec<u8>>> {
        let w = self.writer;
        [
            format!("INCR c:{w}"),
            format!("SET u:{w}:{n} {n}"),
            format!("RPUSH l:{w} {n}"),
            "MULTI".into(),
            format!("INCR a:{w}"),
            format!("INCR b:{w}"),
            "EXEC".into(),
        ]
        .iter()
        .map(|line| words(line))
        .collect()
    }

    /// Sends steps, `depth` at a time, until the connection breaks. A reply that is wrong is the error's text.
    pub fn write_until_broken(&mut self, connection: &mut Connection, depth: i64) -> Result<(), String> {
        self.write_while(connection, depth, &AtomicBool::new(true))
    }

    /// The same under a disk that dies: replies that come once `powered` is false count for nothing, whatever they say.
    /// (While the file system goes down a sync may wrongly succeed: nobody outside a dead machine would hear of it.)
    pub fn write_while(&mut self, connection: &mut Connection, depth: i64, powered: &AtomicBool) -> Result<(), String> {
        loop {
            let first = self.sent + 1;
            let requests: Vec<_> = (first..first + depth).flat_map(|n| self.step(n)).collect();
            self.sent += depth;
            let mut bytes = Vec::new();
            requests.iter().for_each(|r| super::resp::encode(r, &mut bytes));
            if connection.send_raw(&bytes).is_err() {
                return Ok(());
            }
            for n in first..first + depth {
                for request in 0..REQUESTS {
                    match connection.read() {
                        _ if !powered.load(Ordering::SeqCst) => return Ok(()),
                        Ok(reply) => self.expect(n, request, &reply)?,
                        Err(e) if e.kind() == io::ErrorKind::InvalidData => return Err(e.to_string()),
                        Err(_) => return Ok(()),
                    }
                }
                self.acknowledged = n;
            }
        }
    }

    fn expect(&self, n: i64, request: usize, reply: &Reply) -> Result<(), String> {
        let simple = |s: &str| Reply::Simple(s.as_bytes().to_vec());
        let expected = match request {
            0 | 2 => Reply::Int(n),
            1 | 3 => simple("OK"),
            4 | 5 => simple("QUEUED"),
            _ => Reply::Array(vec![Reply::Int(n), Reply::Int(n)]),
        };
        if *reply == expected {
            return Ok(());
        }
        Err(format!("writer {}, step {n}, request {request}: expected {expected:?}, got {reply:?}", self.writer))
    }

    /// Compares the restarted server with what is known, then finishes a half-done step, so that the next one starts whole.
    pub fn check(&mut self, connection: &mut Connection, random: &mut Random) -> Result<(), String> {
        let w = self.writer;
        let mut number = |line: String| -> Result<i64, String> {
            let reply = connection.line(&line).map_err(|e| format!("{line}: {e}"))?;
            if reply.is_nil() { Ok(0) } else { reply.int().ok_or_else(|| format!("{line}: {reply:?}")) }
        };
        let counter = number(format!("GET c:{w}"))?;
        let length = number(format!("LLEN l:{w}"))?;
        let (a, b) = (number(format!("GET a:{w}"))?, number(format!("GET b:{w}"))?);
        let known = format!(
            "writer {w}: acknowledged {}, sent {}; INCR {counter}, RPUSH {length}, MULTI {a} and {b}",
            self.acknowledged, self.sent
        );
        if a != b {
            return Err(format!("a transaction was torn: {known}"));
        }
        if a < self.acknowledged {
            return Err(format!("an acknowledged write is lost: {known}"));
        }
        if counter > self.sent {
            return Err(format!("a write was applied twice: {known}"));
        }
        if !(counter >= length && length >= a && a >= counter - 1) {
            return Err(format!("not a prefix of what was sent: {known}"));
        }
        self.check_list(connection, length)?;
        self.check_keys(connection, length, counter, random)?;
        for (behind, line) in [
            (true, format!("SET u:{w}:{counter} {counter}")),
            (length < counter, format!("RPUSH l:{w} {counter}")),
            (a < counter, format!("INCR a:{w}")),
            (a < counter, format!("INCR b:{w}")),
        ] {
            if behind && counter > 0 {
                connection.line(&line).map_err(|e| format!("{line}: {e}"))?;
            }
        }
        (self.acknowledged, self.sent, self.checked) = (counter, counter, counter);
        Ok(())
    }

    fn check_list(&self, connection: &mut Connection, length: i64) -> Result<(), String> {
        let from = self.checked.min(length);
        let line = format!("LRANGE l:{} {from} -1", self.writer);
        let items = connection.line(&line).map_err(|e| format!("{line}: {e}"))?;
        let wrong = items.items().iter().zip(from + 1..).find(|(item, n)| item.int() != Some(*n));
        wrong.map_or(Ok(()), |(item, n)| {
            Err(format!("{line}: expected {n}, got {item:?}: doubled, lost or out of order"))
        })
    }

    fn check_keys(
        &self,
        connection: &mut Connection,
        length: i64,
        counter: i64,
        random: &mut Random,
    ) -> Result<(), String> {
        let w = self.writer;
        let mut steps: Vec<i64> = (self.checked + 1..=length).collect();
        if self.checked > 0 {
            steps.extend((0..50).map(|_| random.between(1, self.checked)));
        }
        for some in steps.chunks(500) {
            let mut request = words("MGET");
            request.extend(some.iter().map(|n| format!("u:{w}:{n}").into_bytes()));
            let reply = connection.call(&request).map_err(|e| format!("MGET: {e}"))?;
            if let Some((value, n)) = reply.items().iter().zip(some).find(|(value, n)| value.int() != Some(**n)) {
                return Err(format!("u:{w}:{n} holds {value:?}"));
            }
        }
        let next = format!("EXISTS u:{w}:{}", counter + 1);
        match connection.line(&next).map_err(|e| format!("{next}: {e}"))? {
            Reply::Int(0) => Ok(()),
            other => Err(format!("{next}: {other:?}, though INCR stands at {counter}")),
        }
    }
}
