//! The lab: experiments against a running daemon, with predictions beside measurements.
//!
//! Here are charts and the report, which know nothing of experiments.

pub mod chart;
pub mod report;
