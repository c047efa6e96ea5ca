//! The way of answers from apply to the clients' connections.
//!
//! A completion wakes its connection's task. Where one thread serves all clients, each such wake-up from another thread is a system
//! call: tokio's plain queue tells the sleeper of every task. So the answers of a batch go there together, to one task that hands
//! them out. (`redis-benchmark -t set -P 64`, 50 clients: eight answers a batch.)

use crate::apply::Answers;
use crate::apply::pending::Answered;
use std::thread::ThreadId;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Each answer from the thread that applied its chunk. For many threads, where tokio wakes those who sleep and no others.
pub fn at_once() -> Answers {
    Box::new(|answered| answered.into_iter().for_each(Answered::finish))
}

/// By a task of the one thread that serves clients; what that thread applied itself, at once.
pub fn together(clients: &Handle, thread: ThreadId) -> Answers {
    let (sender, mut receiver) = mpsc::unbounded_channel::<Vec<Answered>>();
    clients.spawn(async move {
        while let Some(answered) = receiver.recv().await {
            answered.into_iter().for_each(Answered::finish);
        }
    });
    Box::new(move |answered| {
        if std::thread::current().id() == thread {
            answered.into_iter().for_each(Answered::finish);
        } else {
            // The runtime may have ended, and its connections with it
            let _ = sender.send(answered);
        }
    })
}
