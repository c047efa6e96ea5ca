//! The way of answers from apply to the clients' connections.
//!
//! A completion wakes its connection's task. Where one thread serves all clients, each such wake-up from another thread is a system
//! call: tokio's plain queue tells the sleeper of every task. So the answers that one root shows go there together, to one task that hands
//! them out.

use crate::apply::Answers;
use crate::apply::pending::Answered;
use std::thread::ThreadId;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Each answer from the thread that applied its chunk. For many threads, where tokio wakes those who sleep and no others.
pub fn at_once() -> Answers {
    Box::new(|answered| answered.drain(..).for_each(Answered::finish))
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
            answered.drain(..).for_each(Answered::finish);
        } else {
            // The runtime may have ended, and its connections with it
            let _ = sender.send(std::mem::take(answered));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::pending::{Completion, Cost, Outcome, Pending, Plan};
    use crate::base::Epoch;
    use crate::resp::ReplyBuf;
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use tokio::runtime::Builder;

    /// Tells where it was finished.
    fn answered(epoch: u64, told: &Sender<(u64, ThreadId)>) -> Answered {
        let told = told.clone();
        let done = Box::new(move |completion: Completion| {
            let _ = told.send((completion.epoch.0, std::thread::current().id()));
        });
        let (plan, reply, cost) = (Plan::default(), ReplyBuf::default(), Cost::default());
        let pending = Pending { plan, reply, reply_bytes_max: 0, slow_us: -1, cost, done };
        Answered { pending, epoch: Epoch(epoch), outcome: Outcome::Applied }
    }

    fn check(heard: &Receiver<(u64, ThreadId)>, on: ThreadId, epochs: std::ops::Range<u64>) {
        for epoch in epochs {
            assert_eq!(heard.recv().expect("is finished"), (epoch, on));
        }
        assert!(heard.try_recv().is_err());
    }

    #[test]
    fn answers_are_finished_in_order_on_the_thread_that_serves_clients() {
        let runtime = Builder::new_current_thread().build().unwrap();
        let clients = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || drop(runtime.block_on(stopped)));
        let answers = Arc::new(together(&clients, thread.thread().id()));
        let (told, heard) = channel();
        for batch in 0..100 {
            answers(&mut (batch * 10..batch * 10 + 10).map(|epoch| answered(epoch, &told)).collect());
        }
        check(&heard, thread.thread().id(), 0..1000);
        let (here, said) = (answers.clone(), told.clone());
        let at_once = clients.spawn(async move {
            here(&mut vec![answered(0, &said)]);
            // No other task had a turn
            check(&heard, std::thread::current().id(), 0..1);
            heard
        });
        let heard = clients.block_on(at_once).expect("finished when the call returned");
        drop(stop);
        thread.join().unwrap();
        answers(&mut vec![answered(0, &told)]);
        assert!(heard.try_recv().is_err(), "nobody is there to be answered");
    }

    #[test]
    fn many_threads_finish_their_own() {
        let (told, heard) = channel();
        at_once()(&mut vec![answered(0, &told), answered(1, &told)]);
        check(&heard, std::thread::current().id(), 0..2);
    }
}
