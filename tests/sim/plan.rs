//! What a seed decides before anything happens: the cluster and its weather, how much its clients do, and which faults come how often.

use crate::common::{Random, setting};
use crate::net::{Ms, Weather};
use crate::node::Settings;

pub const MEMBERSHIP: &str = "membership";
pub const REPLACE: &str = "replace";
pub const FAULTS: [&str; 15] = [
    "kill",
    "power",
    "torn write",
    "fsync error",
    "disk full",
    "bit flip",
    "slow disk",
    "partition",
    "one-way",
    "loss",
    "pause",
    "clock jump",
    "kill all",
    MEMBERSHIP,
    REPLACE,
];

/// How a cluster lives: `LOOK_SIM_LIFE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Seconds full of faults.
    Short,
    /// Days: little is asked for, and a fault comes every half minute or so. Time goes in larger steps, in which nothing is on its
    /// way for less than one of them.
    Long,
    /// As many operations as the machine can do.
    Dense,
}

impl Life {
    pub fn from_env() -> Life {
        match std::env::var("LOOK_SIM_LIFE").unwrap_or_default().as_str() {
            "" | "short" => Life::Short,
            "long" => Life::Long,
            "dense" => Life::Dense,
            other => panic!("LOOK_SIM_LIFE is short, long or dense, not {other:?}"),
        }
    }
}

pub struct Plan {
    pub settings: Settings,
    pub weather: Weather,
    /// Nothing is looked at more often than this.
    pub step: Ms,
    pub clients: u32,
    /// In use at once, and for how long.
    pub keys: u32,
    pub keys_for: Ms,
    /// Calls and transactions in a pipeline, and time between two pipelines of a client, at most.
    pub calls: usize,
    pub think: Ms,
    /// Whether clients mark their pipelines, so that the log tells what became of those without a reply.
    pub marks: bool,
    /// A round is a time of faults, a time without, and a check of all that clients saw in it.
    pub rounds: u32,
    pub faulty: Ms,
    /// Time between two faults, and until one is over, at most.
    pub pace: Ms,
    pub lasting: Ms,
    pub faults: Vec<&'static str>,
}

impl Plan {
    /// `LOOK_SIM_ROUNDS` and `LOOK_SIM_SECONDS` of faults in each change what the way of life says.
    pub fn new(seed: u64, random: &mut Random, life: Life) -> Plan {
        let often = random.chance(35);
        let settings = Settings {
            nodes: if random.chance(75) { 3 } else { 5 },
            checkpoint_entries: if often { 4 } else { *random.pick(&[20, 100, 1000]) },
            checkpoint_look: if often { 20 } else { 200 },
            keep_entries: if often { 0 } else { *random.pick(&[0, 10, 4096]) },
            segment_bytes: *random.pick(&[64 << 10, 256 << 10, 1 << 20]),
            history_bytes: *random.pick(&[0, 128 << 10]),
            heartbeat: 100,
            log_ms: *random.pick(&[0, 1, 5]),
            apply_ms: *random.pick(&[0, 0, 2, 20]),
        };
        let weather = Weather { delay_min: 0, delay_max: *random.pick(&[1, 5, 40]), loss_percent: 0 };
        // Not all kinds in every run: rare combinations come up only among few
        let mut faults: Vec<_> = FAULTS[..13].iter().copied().filter(|_| random.chance(60)).collect();
        // Fewer voters can lose fewer disks: one of these in a run
        match seed % 8 {
            1 => faults.push(MEMBERSHIP),
            5 => faults.push(REPLACE),
            _ => {}
        }
        if matches!(seed % 8, 1 | 5) {
            faults.retain(|kind| *kind != "bit flip");
        }
        let (clients, keys) = (2 + random.below(5) as u32, 2 + random.below(8) as u32);
        let pace = *random.pick(&[300, 1000, 3000]);
        let short = Plan {
            settings,
            weather,
            step: 1,
            clients,
            keys,
            keys_for: 4_000,
            calls: 4,
            think: 60,
            marks: false,
            rounds: 1,
            faulty: 10_000,
            pace,
            lasting: 4_000,
            faults,
        };
        let mut plan = match life {
            Life::Short => short,
            Life::Long => short.long(random),
            Life::Dense => short.dense(random),
        };
        plan.rounds = setting("LOOK_SIM_ROUNDS", plan.rounds.into()) as u32;
        plan.faulty = setting("LOOK_SIM_SECONDS", plan.faulty / 1000) * 1000;
        plan
    }

    /// Rounds of an hour. In three of four seeds the nodes' timers are five times as long as usual: most of what a quiet
    /// cluster does is to say that it is there.
    fn long(mut self, random: &mut Random) -> Plan {
        self.settings.checkpoint_look = 1000;
        self.settings.heartbeat = *random.pick(&[100, 500, 500, 500]);
        let (pace, keys) = (self.pace * 40, self.keys * 4);
        let often = Plan { pace, keys, keys_for: 60_000, marks: true, ..self };
        Plan { step: 20, think: 20_000, lasting: 30_000, rounds: 24, faulty: 3_600_000, ..often }
    }

    /// More keys, so that as many clients touch a key at once. (An even number of them, as in all lives with marks.)
    fn dense(self, random: &mut Random) -> Plan {
        let (clients, keys) = (self.clients * 4, 32 + 2 * random.below(48) as u32);
        Plan { clients, keys, keys_for: 2_000, calls: 8, think: 5, marks: true, rounds: 20, ..self }
    }
}
