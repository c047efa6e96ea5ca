//! Real `look` processes, one in each namespace, and what can be done to them. Promises that no process and no mount outlives its test.

use crate::common::server::look_binary;
use crate::common::{Connection, JOIN_TOKEN, Random, Reply};
use crate::net::{Net, run};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PORT: u16 = 6379;
const PEER_PORT: u16 = 7000;

/// The machine of one node.
#[derive(Default)]
struct Machine {
    child: Option<Child>,
    /// What the cluster calls its node; None: it is about to join, or nobody is there.
    id: Option<u64>,
    joins: bool,
    paused: bool,
    /// Length of its output at the last start.
    said: u64,
}

pub struct Nodes {
    pub net: Net,
    machines: Vec<Machine>,
    founders: usize,
    flags: Vec<String>,
    dir: PathBuf,
    /// The library by which clocks are set, if it is installed.
    clocks: Option<PathBuf>,
    mounts: Vec<PathBuf>,
}

/// What sets the clock of one process.
pub fn faketime() -> Option<PathBuf> {
    let found = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|triple| PathBuf::from(format!("/usr/lib/{triple}/faketime/libfaketimeMT.so.1")));
    found.into_iter().find(|path| path.is_file())
}

impl Nodes {
    /// Nobody is started yet.
    pub fn new(net: Net, dir: &Path, founders: usize, flags: &[&str]) -> Nodes {
        let machines = (0..net.places()).map(|_| Machine::default()).collect();
        let flags = flags.iter().map(|flag| flag.to_string()).collect();
        let mut nodes =
            Nodes { net, machines, founders, flags, dir: dir.to_owned(), clocks: faketime(), mounts: Vec::new() };
        (0..founders).for_each(|place| nodes.machines[place].id = Some(place as u64 + 1));
        nodes
    }

    pub fn start_all(&mut self) -> Result<(), String> {
        (0..self.founders).try_for_each(|place| self.launch(place))?;
        (0..self.founders).try_for_each(|place| self.await_writable(place, Duration::from_secs(120)))
    }

    pub fn address(&self, place: usize) -> SocketAddr {
        SocketAddr::from((self.net.address(place), PORT))
    }

    pub fn home(&self, place: usize) -> PathBuf {
        self.dir.join(format!("machine{}", place + 1))
    }

    pub fn data(&self, place: usize) -> PathBuf {
        self.home(place).join("data")
    }

    pub fn id(&self, place: usize) -> Option<u64> {
        self.machines[place].id
    }

    /// Places whose process is there and not stopped.
    pub fn awake(&self) -> Vec<usize> {
        let awake = |m: &Machine| m.child.is_some() && !m.paused;
        (0..self.machines.len()).filter(|place| awake(&self.machines[*place])).collect()
    }

    /// Starts the process at a place; does not wait.
    pub fn launch(&mut self, place: usize) -> Result<(), String> {
        let home = self.home(place);
        fs::create_dir_all(&home).map_err(|e| format!("{}: {e}", home.display()))?;
        let output = File::options().create(true).append(true).open(home.join("output")).map_err(|e| e.to_string())?;
        self.machines[place].said = output.metadata().map_or(0, |m| m.len());
        let errors = output.try_clone().map_err(|e| e.to_string())?;
        let mut command = self.net.inside(place, look_binary());
        command.args(self.arguments(place)).current_dir(&home).stdin(Stdio::null()).stdout(output).stderr(errors);
        if let Some(library) = &self.clocks {
            self.set_clock(place, 0)?;
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", home.join("clock"));
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_CACHE_DURATION", "1");
        }
        let child = command.spawn().map_err(|e| format!("cannot start {command:?}: {e}"))?;
        self.machines[place].child = Some(child);
        Ok(())
    }

    fn arguments(&self, place: usize) -> Vec<String> {
        let peer = |place: usize| format!("{}:{PEER_PORT}", self.net.address(place));
        let text = |words: &[&str]| words.iter().map(|w| w.to_string()).collect::<Vec<_>>();
        let mut all = text(&["--bind", "0.0.0.0", "--set", "protected-mode=no", "--set", "enable-debug-command=yes"]);
        all.extend(text(&["--port", &PORT.to_string(), "--join-token", JOIN_TOKEN, "--peer-addr", &peer(place)]));
        all.extend(text(&["--dir", &self.data(place).display().to_string()]));
        all.extend(self.flags.clone());
        if !self.machines[place].joins {
            let founders: Vec<String> =
                (0..self.founders).map(|place| format!("{}={}", place + 1, peer(place))).collect();
            let id = (place + 1).to_string();
            all.extend(text(&["--node-id", &id, "--initial-cluster", &founders.join(",")]));
        } else if self.machines[place].id.is_none() {
            let host = self.awake().into_iter().find(|other| *other != place).unwrap_or(0);
            all.extend(text(&["--join", &peer(host)]));
        }
        all
    }

    /// SIGKILL.
    pub fn kill(&mut self, place: usize) {
        let machine = &mut self.machines[place];
        machine.paused = false;
        if let Some(mut child) = machine.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            // What the clock's library shares among processes
            for kind in ["faketime_shm_", "sem.faketime_sem_"] {
                let _ = fs::remove_file(format!("/dev/shm/{kind}{}", child.id()));
            }
        }
    }

    pub fn pid(&self, place: usize) -> Option<u32> {
        self.machines[place].child.as_ref().map(Child::id)
    }

    /// SIGSTOP or SIGCONT.
    pub fn pause(&mut self, place: usize, paused: bool) {
        let signal = if paused { Signal::STOP } else { Signal::CONT };
        if let Some(pid) = self.pid(place).and_then(|pid| Pid::from_raw(pid as i32)) {
            let _ = kill_process(pid, signal);
            self.machines[place].paused = paused;
        }
    }

    /// Seconds by which the clock of a place is wrong from now on.
    pub fn set_clock(&self, place: usize, wrong: i64) -> Result<(), String> {
        fs::write(self.home(place).join("clock"), format!("{wrong:+}\n")).map_err(|e| e.to_string())
    }

    pub fn can_set_clocks(&self) -> bool {
        self.clocks.is_some()
    }

    /// A disk of so many megabytes for the data of a place that has not started yet.
    pub fn small_disk(&mut self, place: usize, megabytes: u64) -> Result<(), String> {
        let data = self.data(place);
        fs::create_dir_all(&data).map_err(|e| e.to_string())?;
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"]).arg(&data), "")?;
        self.mounts.push(data);
        Ok(())
    }

    pub fn resize_disk(&self, place: usize, megabytes: u64) -> Result<(), String> {
        let size = format!("remount,size={megabytes}m");
        run(Command::new("mount").args(["-o", &size]).arg(self.data(place)), "").map(drop)
    }

    /// Every sync and write of the log of a running node fails from now on. What is returned ends with the node.
    pub fn break_syncs(&self, place: usize) -> Result<Child, String> {
        let pid = self.pid(place).ok_or("nobody is there")?.to_string();
        let mut strace = Command::new("strace");
        strace.args(["-qq", "-f", "-p", &pid, "-o", "/dev/null", "-e", "trace=pwrite64,fdatasync,fsync"]);
        strace.args(["-e", "inject=pwrite64,fdatasync,fsync:error=EIO"]).stdin(Stdio::null()).stderr(Stdio::null());
        strace.spawn().map_err(|e| format!("strace: {e}"))
    }

    /// The machine loses its data, and with it the node its name. Afterwards it may only join.
    pub fn wipe(&mut self, place: usize) -> Result<(), String> {
        self.kill(place);
        self.machines[place].id = None;
        self.machines[place].joins = true;
        match fs::remove_dir_all(self.data(place)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.to_string()),
            _ => Ok(()),
        }
    }

    /// The id that a node which joins was given, once it has said so.
    pub fn learn_id(&mut self, place: usize) -> Option<u64> {
        let said = self.output(place);
        let told = said.lines().rev().find_map(|line| line.split_once(" as node ")?.1.split_once(',')?.0.parse().ok());
        if self.machines[place].id.is_none() && self.data(place).join("LOOK").exists() {
            self.machines[place].id = told;
        }
        self.machines[place].id
    }

    /// Flips one bit where something is written, in a file that chance picks; what and where.
    pub fn flip(&self, place: usize, random: &mut Random) -> Result<String, String> {
        let mut files = files(&self.data(place));
        files.sort();
        while !files.is_empty() {
            let path = files.swap_remove(random.below(files.len()));
            let bytes = fs::read(&path).map_err(|e| e.to_string())?;
            let Some(end) = bytes.iter().rposition(|b| *b != 0) else { continue };
            let (at, bit) = (random.below(end + 1), random.below(8));
            let file = File::options().write(true).open(&path).map_err(|e| e.to_string())?;
            file.write_all_at(&[bytes[at] ^ 1 << bit], at as u64).map_err(|e| e.to_string())?;
            let name = path.strip_prefix(self.data(place)).unwrap_or(&path).display().to_string();
            return Ok(format!("bit {bit} of byte {at} of {name}"));
        }
        Err("nothing is written".into())
    }

    /// What `look verify` says of a stopped node's data; an error if it is damaged.
    pub fn verify(&self, place: usize) -> Result<String, String> {
        run(Command::new(look_binary()).arg("verify").arg(self.data(place)), "")
    }

    /// What a process said that has ended by itself since it was started.
    pub fn ended(&mut self, place: usize) -> Option<String> {
        let child = self.machines[place].child.as_mut()?;
        child.try_wait().ok().flatten()?;
        self.kill(place);
        Some(self.output(place))
    }

    /// What a place has said since its last start.
    pub fn output(&self, place: usize) -> String {
        let all = fs::read(self.home(place).join("output")).unwrap_or_default();
        String::from_utf8_lossy(all.get(self.machines[place].said as usize..).unwrap_or_default()).into_owned()
    }

    /// All that a place ever said.
    pub fn whole_output(&self, place: usize) -> String {
        String::from_utf8_lossy(&fs::read(self.home(place).join("output")).unwrap_or_default()).into_owned()
    }

    /// The end of what each place said.
    pub fn outputs(&self) -> String {
        let tail = |text: String| {
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(12)..].join("\n")
        };
        let one =
            |place| format!("--- machine {}, node {:?}\n{}\n", place + 1, self.id(place), tail(self.output(place)));
        (0..self.machines.len()).map(one).collect()
    }

    pub fn connect(&self, place: usize, patience: Duration) -> Result<Connection, String> {
        let open = || {
            let connection = Connection::open(self.address(place))?;
            connection.patience(patience)?;
            Ok(connection)
        };
        open().map_err(|e: std::io::Error| format!("machine {}: {e}", place + 1))
    }

    /// One line to one node; an error reply is an error.
    pub fn ask(&self, place: usize, line: &str) -> Result<Reply, String> {
        let reply = self.connect(place, Duration::from_secs(8))?.line(line);
        match reply.map_err(|e| format!("machine {}: {line}: {e}", place + 1))? {
            reply if reply.is_error() => Err(reply.text()),
            reply => Ok(reply),
        }
    }

    /// The place of the node that leads by its own word.
    pub fn leader(&self) -> Option<usize> {
        let leads = |place: &usize| {
            let text = self.ask(*place, "LOOK.CLUSTER").map(|reply| reply.text()).unwrap_or_default();
            let led = text.lines().find_map(|l| l.strip_prefix("leader:")?.trim().parse().ok());
            led.is_some() && led == self.id(*place)
        };
        self.awake().into_iter().find(leads)
    }

    pub fn await_leader(&self, longest: Duration) -> Result<usize, String> {
        let begin = Instant::now();
        loop {
            match self.leader() {
                Some(place) => return Ok(place),
                None if begin.elapsed() > longest => {
                    return Err(format!("no leader within {longest:?}\n{}", self.outputs()));
                }
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    pub fn await_writable(&self, place: usize, longest: Duration) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            match self.ask(place, &format!("SET writable:{place} 1")) {
                Ok(_) => return Ok(()),
                Err(why) if begin.elapsed() > longest => {
                    let place = place + 1;
                    return Err(format!("machine {place} took no write within {longest:?}: {why}\n{}", self.outputs()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        (0..self.machines.len()).for_each(|place| self.kill(place));
        for mount in &self.mounts {
            let _ = run(Command::new("umount").arg(mount), "");
        }
    }
}

fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        match entry.path().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}
