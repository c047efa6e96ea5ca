//! A network of its own: a namespace for each node, joined by a bridge on which the test itself sits, too. What a node gets to hear
//! is decided by nftables rules in its namespace. Promises to leave nothing behind, also after a panic; what a killed run left is
//! swept away by the next one.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "lk";
/// Of a hundred packets, under packet loss.
const LOST: u32 = 30;

/// Runs a program of the system to its end; what it printed, or why it failed.
pub fn run(command: &mut Command, input: &str) -> Result<String, String> {
    let told = format!("{command:?}");
    let piped = command.env("PATH", path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().map_err(|e| format!("{told}: {e}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(|e| format!("{told}: {e}"))?;
    }
    let output = child.wait_with_output().map_err(|e| format!("{told}: {e}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{told}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// Whether a program is installed.
pub fn has(program: &str) -> bool {
    path().split(':').any(|dir| Path::new(dir).join(program).is_file())
}

fn ip(line: &str) -> Result<String, String> {
    run(Command::new("ip").args(line.split(' ')), "")
}

/// Who hears whom. Places are counted from 0.
#[derive(Clone, Default, PartialEq)]
struct Rules {
    /// From, to.
    blocked: BTreeSet<(usize, usize)>,
    /// Places that hear only a part of what their peers send.
    lossy: BTreeSet<usize>,
}

pub struct Net {
    name: String,
    subnet: u8,
    places: usize,
    rules: Rules,
    slow: BTreeSet<usize>,
}

impl Net {
    /// A network with so many places for nodes, or why this machine cannot have one.
    pub fn new(places: usize) -> Result<Net, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            return Err("network namespaces need root".into());
        }
        if let Some(program) = ["ip", "nft", "nsenter"].into_iter().find(|program| !has(program)) {
            return Err(format!("no program '{program}' (apt-get install iproute2 nftables util-linux)"));
        }
        sweep();
        let (pid, number) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let subnet = free_subnet(pid.wrapping_mul(7).wrapping_add(number))?;
        let net = Net {
            name: format!("{PREFIX}{pid}n{number}"),
            subnet,
            places,
            rules: Rules::default(),
            slow: BTreeSet::new(),
        };
        net.build()?;
        Ok(net)
    }

    fn build(&self) -> Result<(), String> {
        let Net { name, subnet, .. } = self;
        ip(&format!("link add {name} type bridge"))?;
        ip(&format!("addr add 10.213.{subnet}.254/24 dev {name}"))?;
        ip(&format!("link set {name} up"))?;
        for place in 0..self.places {
            let (link, at) = (self.link(place), self.address(place));
            ip(&format!("netns add {link}"))?;
            ip(&format!("link add {link} type veth peer name eth0 netns {link}"))?;
            ip(&format!("link set {link} master {name} up"))?;
            // Not `ip -n`, which copies all mounts for a moment and so keeps other people's from being undone
            for line in [&format!("addr add {at}/24 dev eth0"), "link set eth0 up", "link set lo up"] {
                run(self.inside(place, "ip").args(line.split(' ')), "")?;
            }
        }
        Ok(())
    }

    /// Name of a place's namespace, and of the bridge's end of its cable.
    fn link(&self, place: usize) -> String {
        format!("{}p{place}", self.name)
    }

    pub fn places(&self) -> usize {
        self.places
    }

    pub fn address(&self, place: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.subnet, place as u8 + 1)
    }

    /// A command that runs in the namespace of a place, in the process that the command starts.
    pub fn inside(&self, place: usize, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.link(place))).arg(program);
        command
    }

    /// `to` hears `from` no more.
    pub fn block(&mut self, pairs: impl IntoIterator<Item = (usize, usize)>) -> Result<(), String> {
        self.change(|rules| rules.blocked.extend(pairs))
    }

    pub fn unblock(&mut self) -> Result<(), String> {
        self.change(|rules| rules.blocked.clear())
    }

    /// `place` hears only a part of what its peers send.
    pub fn lose(&mut self, place: usize, loses: bool) -> Result<(), String> {
        self.change(|rules| match loses {
            true => drop(rules.lossy.insert(place)),
            false => drop(rules.lossy.remove(&place)),
        })
    }

    /// What `place` sends comes late: by netem if the kernel has it, else through a pipe too narrow for it.
    pub fn slow(&mut self, place: usize, slow: bool) -> Result<(), String> {
        if self.slow.contains(&place) == slow {
            return Ok(());
        }
        let tc = |line: &str| run(self.inside(place, "tc").args(line.split(' ')), "");
        match slow {
            false => drop(tc("qdisc del dev eth0 root")?),
            true if tc("qdisc add dev eth0 root netem delay 40ms 20ms").is_ok() => {}
            true => drop(tc("qdisc add dev eth0 root tbf rate 2mbit burst 16kb latency 200ms")?),
        }
        if slow {
            self.slow.insert(place)
        } else {
            self.slow.remove(&place)
        };
        Ok(())
    }

    pub fn heal(&mut self) -> Result<(), String> {
        self.change(|rules| *rules = Rules::default())?;
        self.slow.clone().into_iter().try_for_each(|place| self.slow(place, false))
    }

    fn change(&mut self, change: impl FnOnce(&mut Rules)) -> Result<(), String> {
        let before: Vec<String> = (0..self.places).map(|place| self.ruleset(place)).collect();
        change(&mut self.rules);
        for (place, before) in before.iter().enumerate() {
            let rules = self.ruleset(place);
            if rules != *before {
                run(self.inside(place, "nft").args(["-f", "-"]), &rules)?;
            }
        }
        Ok(())
    }

    fn ruleset(&self, place: usize) -> String {
        let mut rules =
            String::from("flush ruleset\ntable ip faults {\nchain input { type filter hook input priority 0;\n");
        for (from, _) in self.rules.blocked.iter().filter(|(_, to)| *to == place) {
            rules += &format!("ip saddr {} drop\n", self.address(*from));
        }
        if self.rules.lossy.contains(&place) {
            rules += &format!("ip saddr != 10.213.{}.254 numgen random mod 100 < {LOST} drop\n", self.subnet);
        }
        rules + "}\n}\n"
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for place in 0..self.places {
            let _ = ip(&format!("netns del {}", self.link(place)));
        }
        let _ = ip(&format!("link del {}", self.name));
    }
}

/// A third byte of addresses that nobody on this machine uses.
fn free_subnet(from: u32) -> Result<u8, String> {
    let taken = ip("-o addr show")?;
    let mut all = (0..=255u8).map(|i| i.wrapping_add(from as u8));
    all.find(|s| !taken.contains(&format!("10.213.{s}."))).ok_or_else(|| "no subnet of 10.213.0.0/16 is free".into())
}

/// Removes what runs that were killed have left.
fn sweep() {
    let alive = |name: &str| {
        let pid: String = name[PREFIX.len()..].chars().take_while(char::is_ascii_digit).collect();
        Path::new("/proc").join(pid).exists()
    };
    let names = |line: &str| {
        let words = ip(line).unwrap_or_default();
        let named = words.split([' ', '\n', ':']).filter(|w| w.starts_with(PREFIX) && w[PREFIX.len()..].contains('n'));
        named.map(str::to_owned).collect::<BTreeSet<String>>()
    };
    for space in names("netns list").iter().filter(|name| !alive(name)) {
        let processes = ip(&format!("netns pids {space}")).unwrap_or_default();
        processes.lines().for_each(|pid| drop(run(Command::new("kill").args(["-9", pid]), "")));
        let _ = ip(&format!("netns del {space}"));
    }
    for bridge in names("-o link show type bridge").iter().filter(|name| !alive(name)) {
        let _ = ip(&format!("link del {bridge}"));
    }
}
