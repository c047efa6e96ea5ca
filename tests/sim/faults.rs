//! What a run does to its cluster, and how it undoes it.

use crate::clients::Connection;
use crate::cluster::Run;
use crate::net::{Ms, Weather};
use crate::plan::{MEMBERSHIP, REPLACE};
use look::disk::Disk;
use std::sync::atomic::Ordering;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    Start(usize),
    Resume(usize, Ms),
    Links,
    Weather,
    Disk(usize),
    /// The power goes as soon as the torn write has happened, or now.
    Power(usize, Ms),
}

impl Run {
    /// How many may lose their disks.
    fn spare(&self) -> usize {
        (self.nodes.len() - 1) / 2
    }

    pub fn fault(&mut self) {
        let up = self.up();
        if self.plan.faults.is_empty() || up.is_empty() {
            return;
        }
        let kind = *self.random.pick(&self.plan.faults);
        let i = *self.random.pick(&up);
        let long = 50 + self.random.below(self.plan.lasting as usize) as Ms;
        let end = self.now + long;
        self.net.note(kind.len() as u64 ^ (i as u64) << 8 ^ long << 16);
        match kind {
            "kill" => {
                self.nodes[i].kill();
                self.repairs.push((end, Repair::Start(i)));
            }
            "kill all" => {
                for i in up {
                    self.nodes[i].kill();
                    self.repairs.push((self.now + 10 + self.random.below(2000) as Ms, Repair::Start(i)));
                }
            }
            "power" => {
                self.nodes[i].cut_power();
                self.repairs.push((end, Repair::Start(i)));
            }
            "torn write" => {
                let disk = &self.nodes[i].disk;
                disk.cut_at(disk.ops() + 1 + self.random.below(4) as u64);
                self.repairs.push((self.now + 200, Repair::Power(i, long)));
            }
            "fsync error" => {
                let disk = &self.nodes[i].disk;
                disk.fail_at(disk.ops() + 1 + self.random.below(4) as u64);
            }
            "disk full" => {
                self.nodes[i].disk.set_capacity(1);
                self.repairs.push((end, Repair::Disk(i)));
            }
            "bit flip" => {
                if !self.flip(i) {
                    return;
                }
                self.repairs.push((end, Repair::Start(i)));
            }
            "slow disk" => {
                self.nodes[i].disk_slow.store(1 + self.random.next() % 600, Ordering::Relaxed);
                self.repairs.push((end, Repair::Disk(i)));
            }
            "partition" | "one-way" => self.partition(kind == "one-way", end),
            "loss" => {
                let loss_percent = 5 + self.random.below(40);
                self.net.set_weather(Weather { loss_percent, ..self.plan.weather.clone() });
                self.repairs.push((end, Repair::Weather));
            }
            "pause" => {
                self.nodes[i].paused = true;
                self.repairs.push((end, Repair::Resume(i, self.now)));
            }
            MEMBERSHIP => self.change_membership(i),
            REPLACE => {
                if !self.replace(i) {
                    return;
                }
            }
            _ => {
                let off = self.random.between(-100_000, 100_000);
                self.nodes[i].clock_off.store(off, Ordering::Relaxed);
            }
        }
        self.work.fault(kind);
    }

    /// Asks a node for a change as an operator would. Whether it is made is Look's to decide.
    fn change_membership(&mut self, i: usize) {
        let change = *self.random.pick(&["TRANSFER", "TRANSFER", "DEMOTE", "PROMOTE", "PROMOTE"]);
        let of = self.random.pick(&self.nodes).id;
        let (net, host) = (self.net.clone(), self.nodes[i].host);
        self.world.spawn(async move {
            if let Ok(mut connection) = Connection::open(&net, host).await {
                let answer = connection.ask(&format!("LOOK.CLUSTER {change} {of}")).await;
                tracing::info!("{change} {of}: {answer:?}");
            }
        });
    }

    /// A random set of the nodes that are there on one side.
    fn partition(&mut self, one_way: bool, end: Ms) {
        let hosts: Vec<_> = self.nodes.iter().filter(|node| !node.gone).map(|node| node.host).collect();
        let apart = 1 + self.random.next() % ((1 << hosts.len()) - 2);
        let side = |at: usize| apart >> at & 1;
        for (a, b) in (0..hosts.len()).flat_map(|a| (0..hosts.len()).map(move |b| (a, b))) {
            if side(a) != side(b) && (!one_way || side(a) == 1) {
                self.net.cut(hosts[a], hosts[b]);
            }
        }
        self.repairs.push((end, Repair::Links));
    }

    /// Turns a bit of the durable log of a stopped node, as long as others have what it loses. Only where more was written
    /// behind it: damage to the last write of all cannot be told from a torn one (`disk::highwater` says so).
    fn flip(&mut self, i: usize) -> bool {
        let spare = self.spare();
        if self.nodes.iter().filter(|n| n.lost).count() >= spare {
            return false;
        }
        let mut names: Vec<String> = self.nodes[i].disk.list().unwrap_or_default();
        names.retain(|name| name.starts_with("log-"));
        let Some(name) = names.last().cloned() else { return false };
        let contents = self.nodes[i].disk.contents(&name).unwrap_or_default();
        let used = contents.iter().rposition(|b| *b != 0).unwrap_or(0);
        if used < 64 << 10 {
            return false;
        }
        self.nodes[i].kill();
        self.nodes[i].lost = true;
        let bit = self.random.below(used / 2 * 8) as u64;
        self.nodes[i].disk.flip(&name, bit);
        true
    }

    pub fn repair(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.repairs).into_iter().partition(|(at, _)| *at <= now);
        self.repairs = later;
        for (_, repair) in due {
            self.undo(repair);
        }
    }

    pub fn undo(&mut self, repair: Repair) {
        match repair {
            Repair::Start(i) => {
                if self.nodes[i].process.is_none() && !self.nodes[i].gone {
                    self.nodes[i].start();
                }
            }
            Repair::Resume(i, since) => {
                if self.nodes[i].paused {
                    self.nodes[i].resume(self.now - since);
                }
            }
            Repair::Links => self.net.heal(),
            Repair::Weather => self.net.set_weather(self.plan.weather.clone()),
            Repair::Disk(i) => {
                self.nodes[i].disk.set_capacity(u64::MAX);
                self.nodes[i].disk_slow.store(0, Ordering::Relaxed);
            }
            Repair::Power(i, long) => {
                self.nodes[i].cut_power();
                self.repairs.push((self.now + long, Repair::Start(i)));
            }
        }
    }
}
