//! Descriptors of this process: how many clients they allow, besides what its log, pages and peers open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For all but clients. (Redis keeps 32 and has fewer files.)
const RESERVED: u64 = 256;

/// How many of so many clients this process may have. Raises its soft limit as far as they need.
pub fn room_for(clients: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = RESERVED.saturating_add(clients as u64);
    let current = limit.current.unwrap_or(u64::MAX);
    let raised = wanted.min(limit.maximum.unwrap_or(u64::MAX));
    let more = Rlimit { current: Some(raised), ..limit };
    let have = if current < raised && setrlimit(Resource::Nofile, more).is_ok() { raised } else { current };
    share(have).min(clients)
}

/// Of so many descriptors, those for clients.
fn share(descriptors: u64) -> usize {
    descriptors.saturating_sub(RESERVED).max(descriptors / 4) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_get_the_descriptors_of_the_log() {
        assert_eq!(share(10_256), 10_000);
        assert_eq!(share(1024), 768);
        assert_eq!(share(100), 25);
        assert_eq!(room_for(1), 1);
    }
}
