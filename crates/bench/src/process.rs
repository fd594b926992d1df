//! What Linux says of processes: processor time and memory. Elsewhere there are no such figures.

use std::fs;

/// Clock ticks a second of the times in `/proc/[pid]/stat`: `USER_HZ`, which is 100 on every architecture that we build for
/// (proc(5), sysconf(3)).
const TICKS_PER_SECOND: f64 = 100.0;
const BYTES_PER_KIB: f64 = 1024.0;

/// Seconds of processor time that a process has used, in user and in kernel mode.
pub(crate) fn cpu(pid: u32) -> Option<f64> {
    Stat::read(pid).map(|stat| stat.own)
}

/// The same of a Postgres server: of its first process, of those that it has waited for, and of those that are alive.
pub(crate) fn cpu_of_postgres(postmaster: u32) -> Option<f64> {
    let first = Stat::read(postmaster)?;
    let processes = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let children = processes.filter_map(Stat::read).filter(|stat| stat.parent == postmaster).map(|stat| stat.own);
    Some(first.own + first.waited_for + children.sum::<f64>())
}

/// The first process of the Postgres server to which a session belongs, if it is one of this machine.
pub(crate) fn postmaster_of(session: u32) -> Option<u32> {
    let is_postgres = |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("postgres"));
    Stat::read(session).filter(|_| is_postgres(session)).map(|stat| stat.parent).filter(|postmaster| is_postgres(*postmaster))
}

/// Resident memory, in megabytes: as it is, and the most that it has been.
pub(crate) fn memory(pid: u32) -> Option<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let megabytes = |name: &str| -> Option<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse().ok().map(|kib: f64| kib * BYTES_PER_KIB / 1e6)
    };
    Some((megabytes("VmRSS")?, megabytes("VmHWM")?))
}

struct Stat {
    parent: u32,
    own: f64,
    waited_for: f64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name, in parentheses, may contain anything; what follows it is counted from field 3.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let seconds = |at: usize| fields.get(at - 3)?.parse().ok().map(|ticks: f64| ticks / TICKS_PER_SECOND);
        Some(Self { parent: fields.get(4 - 3)?.parse().ok()?, own: seconds(14)? + seconds(15)?, waited_for: seconds(16)? + seconds(17)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = Stat::parse("42 (a) (b) S 7 1 1 0 -1 0 1 2 3 4 250 50 30 20 20 0").expect("a line of stat");
        assert_eq!(stat.parent, 7);
        assert!((stat.own - 3.0).abs() < 1e-9 && (stat.waited_for - 0.5).abs() < 1e-9);
    }

    #[test]
    fn this_process_has_used_time_and_memory() {
        let pid = std::process::id();
        assert!(cpu(pid).is_some());
        let (now, peak) = memory(pid).expect("a running process");
        assert!(now > 0.5 && now <= peak, "{now} {peak}");
        assert_eq!(postmaster_of(pid), None, "this is not Postgres");
    }
}
