//! Do all nodes have the same state? A few times a second each node asks the voters for their digest at an entry that it
//! applied a round ago (by now the healthy ones have applied it, too). A node that a majority of voters contradicts takes
//! part no more; whoever sees another one differ says so.
//!
//! Why not compare in append requests: followers that disagree would have to tell each other, not the leader, which may be
//! the one that is wrong.

use super::Node;
use super::frame::{Builder, Kind};
use super::types::Reader;
use crate::apply::digests::Digests;
use crate::base::LogIndex;
use openraft::async_runtime::watch::WatchReceiver;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const ROUND: Duration = Duration::from_millis(200);

/// What the voters' digests at one entry say of this node's own.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    /// A majority of all voters agrees on another digest than this node's.
    contradicted: bool,
    /// All voters answered, and agree.
    settled: bool,
    /// Voters whose digest is not this node's.
    others: BTreeSet<u64>,
}

/// `answers`: digests of voters by id, this node's own among them if it is one. None: not known there, or no answer.
fn judge(own: u64, answers: &[(u64, Option<u64>)]) -> Verdict {
    let differ = |answer: Option<u64>| answer.filter(|digest| *digest != own);
    let agree_on = |digest| answers.iter().filter(|(_, answer)| *answer == Some(digest)).count();
    Verdict {
        contradicted: answers.iter().filter_map(|(_, a)| differ(*a)).any(|digest| agree_on(digest) * 2 > answers.len()),
        settled: answers.iter().all(|(_, answer)| *answer == Some(own)),
        others: answers.iter().filter(|(_, a)| differ(*a).is_some()).map(|(id, _)| *id).collect(),
    }
}

/// Until this node is contradicted or stops.
pub async fn watch(node: Arc<Node>, digests: Arc<Digests>) {
    let mut reported = BTreeSet::new();
    let (mut settled, mut index) = (LogIndex(0), digests.newest());
    loop {
        tokio::time::sleep(ROUND).await;
        let newest = digests.newest();
        if let Some(own) = digests.at(index).filter(|_| index > settled) {
            let verdict = judge(own, &ask(&node, index, own).await);
            if verdict.contradicted {
                return node.diverged(index).await;
            }
            for id in verdict.others.difference(&reported) {
                tracing::error!("node {id} has another state at entry {index} than this node: one of the two is wrong");
            }
            reported.extend(verdict.others);
            if verdict.settled {
                settled = index;
            }
        }
        index = newest;
    }
}

/// Every voter's digest at `index`.
async fn ask(node: &Arc<Node>, index: LogIndex, own: u64) -> Vec<(u64, Option<u64>)> {
    let voters: Vec<u64> = {
        let metrics = node.raft.server_metrics();
        metrics.borrow_watched().membership_config.membership().voter_ids().collect()
    };
    let answers = voters.into_iter().map(|id| async move {
        if id == node.id {
            return (id, Some(own));
        }
        let Some(links) = node.links(id) else { return (id, None) };
        let mut request = Builder::new(Kind::Digest, 0, 8);
        request.u64(index.0);
        let response = links.reads.call(request, ROUND).await.ok();
        (id, response.and_then(|frame| Reader(&frame.payload).u64()))
    });
    futures_util::future::join_all(answers).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_majority_of_all_voters_contradicts() {
        let verdict = |answers: &[Option<u64>]| {
            let answers: Vec<_> = answers.iter().enumerate().map(|(i, a)| (i as u64 + 1, *a)).collect();
            judge(7, &answers)
        };
        let settled = Verdict { contradicted: false, settled: true, others: BTreeSet::new() };
        assert_eq!(verdict(&[Some(7), Some(7), Some(7)]), settled);
        assert_eq!(verdict(&[Some(7), Some(7), None]), Verdict { settled: false, ..settled });
        let one = verdict(&[Some(7), Some(8), Some(7)]);
        assert_eq!((one.contradicted, one.others), (false, BTreeSet::from([2])));
        assert!(verdict(&[Some(7), Some(8), Some(8)]).contradicted);
        // Two that differ among themselves, or one of two voters, are no majority
        assert!(!verdict(&[Some(7), Some(8), Some(9)]).contradicted);
        assert!(!verdict(&[Some(7), Some(8)]).contradicted);
        assert!(!verdict(&[Some(7), Some(8), None]).contradicted);
        // A learner has no vote itself
        assert!(verdict(&[Some(8)]).contradicted);
    }
}
