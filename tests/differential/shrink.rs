//! Makes a failing sequence small: removes ever smaller runs of steps as long as it still fails.

use crate::common::Server;
use crate::run::{Coverage, Divergence, Sequence, Step, run};

/// How many attempts a shrink may cost.
const ATTEMPTS_MAX: usize = 400;

pub fn shrink(mut failing: Sequence, mut why: Divergence, redis: &Server, look: &Server) -> (Sequence, Divergence) {
    let mut attempts = 0;
    let mut try_steps = |steps: Vec<Step>, burst: usize, from: &Sequence| -> Option<(Sequence, Divergence)> {
        attempts += 1;
        let candidate = Sequence { steps, burst, ..from.clone() };
        if attempts > ATTEMPTS_MAX {
            None
        } else {
            run(&candidate, redis, look, &mut Coverage::new()).map(|d| (candidate, d))
        }
    };
    if let Some(found) = try_steps(failing.steps.clone(), 1, &failing) {
        (failing, why) = found;
    }
    let mut run_length = failing.steps.len().div_ceil(2);
    while run_length > 0 {
        let mut at = 0;
        while at < failing.steps.len() {
            let mut steps = failing.steps.clone();
            steps.drain(at..(at + run_length).min(steps.len()));
            match try_steps(steps, failing.burst, &failing) {
                Some(found) => (failing, why) = found,
                None => at += run_length,
            }
        }
        run_length /= 2;
    }
    for at in 0..failing.steps.len() {
        let mut inner = 0;
        while let Step::Transaction { queued, .. } = &failing.steps[at] {
            if inner >= queued.len() {
                break;
            }
            let mut steps = failing.steps.clone();
            if let Step::Transaction { queued, .. } = &mut steps[at] {
                queued.remove(inner);
            }
            match try_steps(steps, failing.burst, &failing) {
                Some(found) => (failing, why) = found,
                None => inner += 1,
            }
        }
    }
    (failing, why)
}
