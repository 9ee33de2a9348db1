//! What the system knows of this machine and this process.

use std::time::Duration;

/// Processor, architecture and operating system, in one line.
pub fn describe() -> String {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let (os, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    format!("{}, {processors} processors, {architecture} {os}", processor_name())
}

/// A board has a name in its device tree, a PC has one in its processor.
fn processor_name() -> String {
    if let Ok(name) = std::fs::read_to_string("/proc/device-tree/model") {
        return name.trim_end_matches('\0').to_string();
    }
    let information = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = information.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| "unknown processor".into(), |(_, name)| name.trim().to_string())
}

/// CPU time of the process so far, user and system; zero where the system does not tell.
#[cfg(unix)]
pub fn cpu_time() -> Duration {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeVal;
    let duration = |time: TimeVal| {
        Duration::from_micros(time.tv_sec().unsigned_abs() * 1_000_000 + time.tv_usec().unsigned_abs())
    };
    getrusage(UsageWho::RUSAGE_SELF)
        .map_or(Duration::ZERO, |usage| duration(usage.user_time()) + duration(usage.system_time()))
}

/// CPU time of the process so far, user and system; zero where the system does not tell.
#[cfg(not(unix))]
pub fn cpu_time() -> Duration {
    Duration::ZERO
}

/// The most memory that the process has had resident so far, in bytes.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}
