//! The queue of MULTI: requests kept as they came, parsed at EXEC, since a queued SELECT decides what later ones mean.

use crate::resp::{Arg, Request};

/// Requests between MULTI and EXEC.
#[derive(Debug, Default)]
pub struct Queue {
    source: Vec<u8>,
    args: Vec<Arg>,
    /// Where each request's arguments end.
    ends: Vec<usize>,
    /// A request was refused: EXEC will refuse all.
    pub dirty: bool,
    /// Some queued command writes.
    pub writes: bool,
    /// A command is queued that changes what later ones mean or how they are answered: SELECT, HELLO.
    pub selects: bool,
}

impl Queue {
    /// False when the queue would hold more than `bytes_max`.
    pub fn push(&mut self, request: Request<'_>, bytes_max: usize) -> bool {
        let bytes: usize = request.iter().map(|arg| arg.len() + size_of::<Arg>()).sum();
        if self.bytes() + bytes > bytes_max.min(u32::MAX as usize) {
            return false;
        }
        for arg in request.iter() {
            self.args.push(Arg { at: self.source.len() as u32, len: arg.len() as u32 });
            self.source.extend_from_slice(arg);
        }
        self.ends.push(self.args.len());
        true
    }
    pub fn len(&self) -> usize {
        self.ends.len()
    }
    pub fn bytes(&self) -> usize {
        self.source.len() + self.args.len() * size_of::<Arg>()
    }
    pub fn requests(&self) -> impl Iterator<Item = Request<'_>> {
        let mut from = 0;
        self.ends.iter().map(move |&end| {
            let request = Request::new(&self.source, &self.args[from..end]);
            from = end;
            request
        })
    }
}
