//! The default of every field that has one.

use crate::quantity::{Amount, Memory, Percent, Span};

pub(super) fn default_port() -> u16 {
    5000
}
pub(super) fn default_memory() -> Memory {
    Memory { bytes: 512 << 20 }
}
pub(super) fn default_pids() -> u32 {
    256
}
pub(super) fn default_log_size() -> Memory {
    Memory { bytes: 10 << 20 }
}
pub(super) fn default_log_files() -> u32 {
    3
}
pub(super) fn default_probe_period() -> Span {
    Span::from_millis(1_000)
}
pub(super) fn default_probe_jitter() -> Percent {
    Percent(0)
}
pub(super) fn default_probe_timeout() -> Span {
    Span::from_millis(1_000)
}
pub(super) fn default_failure_threshold() -> u32 {
    3
}
pub(super) fn default_success_threshold() -> u32 {
    1
}
pub(super) fn default_max_surge() -> Amount {
    Amount::Share(Percent(25))
}
pub(super) fn default_max_unavailable() -> Amount {
    Amount::Count(0)
}
pub(super) fn default_min_ready() -> Span {
    Span::from_millis(0)
}
pub(super) fn default_drain() -> Span {
    Span::from_millis(30_000)
}
pub(super) fn default_progress_deadline() -> Span {
    Span::from_millis(120_000)
}
pub(super) fn default_termination_grace() -> Span {
    Span::from_millis(10_000)
}
pub(super) fn default_retries() -> u32 {
    2
}
pub(super) fn default_connect_timeout() -> Span {
    Span::from_millis(250)
}
pub(super) fn default_response_timeout() -> Span {
    Span::from_millis(60_000)
}
pub(super) fn default_retry_budget() -> Percent {
    Percent(20)
}
pub(super) fn default_max_in_flight() -> u32 {
    1_024
}
pub(super) fn default_max_queued() -> u32 {
    128
}
pub(super) fn default_queue_timeout() -> Span {
    Span::from_millis(1_000)
}
pub(super) fn default_hosts() -> Vec<String> {
    vec!["*".to_owned()]
}
pub(super) fn default_path_prefix() -> String {
    "/".to_owned()
}
pub(super) fn default_slots() -> u32 {
    512
}
pub(super) fn default_virtual_servers() -> u32 {
    9
}
pub(super) fn default_min_replicas() -> u32 {
    1
}
pub(super) fn default_scale_up_window() -> Span {
    Span::from_millis(0)
}
pub(super) fn default_scale_down_window() -> Span {
    Span::from_millis(300_000)
}
pub(super) fn default_idle_after() -> Span {
    Span::from_millis(300_000)
}
pub(super) fn default_max_held() -> u32 {
    1_000
}
pub(super) fn default_hold_timeout() -> Span {
    Span::from_millis(30_000)
}
