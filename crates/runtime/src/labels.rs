//! The labels that mark an object as ours. Nothing without both the owner and our instance is ever touched.

/// Names the owner: every object that Ringmaster makes carries it with the value [`OWNER`].
pub const OWNER_KEY: &str = "io.ringmaster.owner";
/// The owner's value.
pub const OWNER: &str = "ringmaster";
/// Which daemon: two daemons on one engine have different instances (`serve --instance`).
pub const INSTANCE: &str = "io.ringmaster.instance";
/// The service.
pub const SERVICE: &str = "io.ringmaster.service";
/// The member's ordinal.
pub const ORDINAL: &str = "io.ringmaster.ordinal";
/// The attempt to fill the ordinal.
pub const ATTEMPT: &str = "io.ringmaster.attempt";
/// The revision that it runs.
pub const REVISION: &str = "io.ringmaster.revision";
/// The member's host name, if it has one.
pub const HOST: &str = "io.ringmaster.host";
/// The port that it listens on.
pub const PORT: &str = "io.ringmaster.port";
/// The limits that it was made with, as JSON.
pub const RESOURCES: &str = "io.ringmaster.resources";
/// What runs before it is stopped, as JSON, if anything.
pub const PRE_STOP: &str = "io.ringmaster.pre-stop";
