//! From a request to the container that the engine is asked to make: limits, confinement, mounts, labels.
//!
//! Pure. Deliberately absent: anything privileged. No host namespaces, no devices, no engine socket.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, HostConfigLogConfig, Mount, MountType,
    NetworkingConfig, RestartPolicy, RestartPolicyNameEnum,
};
use ringmaster_core::spec::{SecurityProfile, Template, Volume};
use ringmaster_runtime::{CreateRequest, ErrorKind, RuntimeError, labels};

/// What `baseline` takes from the engine's default capabilities.
const BASELINE_DROPS: [&str; 5] = ["MKNOD", "NET_RAW", "AUDIT_WRITE", "SYS_CHROOT", "SETFCAP"];
/// Who a `restricted` replica runs as unless its template says: nobody.
const RESTRICTED_USER: &str = "65534:65534";
/// Where engines keep sockets and state that give power over the host.
const ENGINE_FOLDERS: [&str; 4] =
    ["/var/run/docker", "/run/docker", "/var/run/containerd", "/run/containerd"];

/// The body of the engine's create call.
pub(crate) fn body(
    request: &CreateRequest,
    instance: &str,
    network_id: &str,
    socket: &Path,
) -> Result<ContainerCreateBody, RuntimeError> {
    let template = &request.template;
    let invalid = |why: String| {
        RuntimeError::new(format!("create container {}", request.name), ErrorKind::Invalid, why)
    };
    let user = user(template).map_err(invalid)?;
    let mounts = template
        .volumes
        .iter()
        .map(|volume| mount(volume, socket))
        .collect::<Result<Vec<_>, String>>()
        .map_err(invalid)?;
    let endpoint = EndpointSettings { aliases: Some(aliases(request)), ..EndpointSettings::default() };
    Ok(ContainerCreateBody {
        hostname: Some(request.host.clone().unwrap_or_else(|| request.name.short())),
        image: Some(request.content_id.clone()),
        user,
        env: Some(env(request)),
        entrypoint: (!template.command.is_empty()).then(|| template.command.clone()),
        cmd: (!template.args.is_empty()).then(|| template.args.clone()),
        working_dir: template.working_dir.clone(),
        labels: Some(labels_of(request, instance)),
        stop_signal: template.lifecycle.stop_signal.map(|signal| signal.as_str().to_owned()),
        host_config: Some(HostConfig {
            mounts: Some(mounts),
            network_mode: Some(network_id.to_owned()),
            // Two supervisors of one container would fight.
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            ..confinement(template)
        }),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network_id.to_owned(), endpoint)])),
        }),
        ..ContainerCreateBody::default()
    })
}

/// The names by which others on the network find it.
pub(crate) fn aliases(request: &CreateRequest) -> Vec<String> {
    aliases_of(request.name.short(), request.host.as_deref())
}

/// As [`aliases`], for a replica that exists.
pub(crate) fn aliases_of(short: String, host: Option<&str>) -> Vec<String> {
    let host = host.filter(|host| *host != short).map(str::to_owned);
    std::iter::once(short).chain(host).collect()
}

fn labels_of(request: &CreateRequest, instance: &str) -> HashMap<String, String> {
    let name = &request.name;
    let mut all = HashMap::from([
        (labels::OWNER_KEY, labels::OWNER.to_owned()),
        (labels::INSTANCE, instance.to_owned()),
        (labels::SERVICE, name.service.to_string()),
        (labels::ORDINAL, name.ordinal.to_string()),
        (labels::ATTEMPT, name.attempt.to_string()),
        (labels::REVISION, request.revision.to_string()),
        (labels::PORT, request.template.port.to_string()),
    ]);
    if let Some(host) = &request.host {
        all.insert(labels::HOST, host.clone());
    }
    let resources = serde_json::to_string(&request.template.resources).expect("limits have only string keys");
    all.insert(labels::RESOURCES, resources);
    if let Some(hook) = &request.template.lifecycle.pre_stop {
        let text = serde_json::to_string(hook).expect("a hook has only string keys");
        all.insert(labels::PRE_STOP, text);
    }
    all.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The template's variables, and over them ours. The engine sets `HOSTNAME`.
fn env(request: &CreateRequest) -> Vec<String> {
    let mut env = request.template.env.clone();
    env.remove("HOSTNAME");
    env.insert("SERVER_ID".to_owned(), request.name.ordinal.server_id().to_string());
    env.insert("PORT".to_owned(), request.template.port.to_string());
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// Limits, log caps and what the security profile allows.
fn confinement(template: &Template) -> HostConfig {
    let resources = &template.resources;
    let memory = i64::try_from(resources.memory.bytes).unwrap_or(i64::MAX);
    let drops: Vec<String> = match template.security_context.profile {
        SecurityProfile::Baseline => BASELINE_DROPS.iter().map(|name| (*name).to_owned()).collect(),
        SecurityProfile::Restricted => vec!["ALL".to_owned()],
    };
    let restricted = template.security_context.profile == SecurityProfile::Restricted;
    let tmpfs = HashMap::from([("/tmp".to_owned(), "rw,noexec,nosuid,nodev,size=64m,mode=1777".to_owned())]);
    let log = HashMap::from([
        ("max-size".to_owned(), template.logs.max_size.bytes.to_string()),
        ("max-file".to_owned(), template.logs.max_files.to_string()),
    ]);
    HostConfig {
        nano_cpus: resources.cpu.map(crate::limits::nano_cpus),
        memory: Some(memory),
        // Equal means no swap on top of the memory.
        memory_swap: Some(memory),
        pids_limit: Some(i64::from(resources.pids)),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        cap_drop: Some(drops),
        readonly_rootfs: restricted.then_some(true),
        tmpfs: restricted.then_some(tmpfs),
        log_config: Some(HostConfigLogConfig { typ: Some("json-file".to_owned()), config: Some(log) }),
        ..HostConfig::default()
    }
}

fn user(template: &Template) -> Result<Option<String>, String> {
    if template.security_context.profile == SecurityProfile::Baseline {
        return Ok(template.user.clone());
    }
    let user = template.user.as_deref().unwrap_or(RESTRICTED_USER);
    let name = user.split(':').next().unwrap_or_default();
    if name.is_empty() || name == "root" || name.parse() == Ok(0_u32) {
        return Err(format!(
            "template.user `{user}` is root, which the profile restricted refuses: name another user"
        ));
    }
    Ok(Some(user.to_owned()))
}

fn mount(volume: &Volume, socket: &Path) -> Result<Mount, String> {
    let Volume { source, target, read_only } = volume;
    if !Path::new(target).is_absolute() {
        return Err(format!("volume target `{target}` is not an absolute path"));
    }
    let typ = if Path::new(source).is_absolute() {
        if gives_the_engine(Path::new(source), socket) {
            return Err(format!(
                "volume source `{source}` would hand the engine, and with it the host, to the replica"
            ));
        }
        MountType::BIND
    } else {
        let mut letters = source.chars();
        let named = letters.next().is_some_and(|c| c.is_ascii_alphanumeric())
            && letters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        if !named {
            return Err(format!("volume source `{source}` is neither an absolute path nor a volume's name"));
        }
        MountType::VOLUME
    };
    Ok(Mount {
        target: Some(target.clone()),
        source: Some(source.clone()),
        typ: Some(typ),
        read_only: Some(*read_only),
        ..Mount::default()
    })
}

/// Whether the source is the engine's socket, lies in a folder of the engine, or holds either.
fn gives_the_engine(source: &Path, socket: &Path) -> bool {
    // Links are followed where this host can (a daemon in a container sees other files than the engine).
    let spellings =
        |path: &Path| [Some(normal(path)), std::fs::canonicalize(path).ok()].into_iter().flatten();
    let sockets = || [socket, Path::new("/var/run/docker.sock"), Path::new("/run/docker.sock")];
    spellings(source).any(|source| {
        let text = source.to_string_lossy();
        sockets().into_iter().flat_map(spellings).any(|socket| socket.starts_with(&source))
            || ENGINE_FOLDERS.iter().any(|folder| text.starts_with(folder))
    })
}

/// The path without `.`, `..` and doubled slashes, by its text alone.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            Component::Normal(part) => normal.push(part),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(source: &str) -> Volume {
        Volume { source: source.to_owned(), target: "/data".to_owned(), read_only: false }
    }

    #[test]
    fn no_volume_hands_over_the_engine() {
        let socket = Path::new("/srv/engine/own.sock");
        for source in [
            "/var/run/docker.sock",
            "/run/docker.sock",
            "/run/./docker/../docker.sock",
            "//var//run",
            "/var/run/docker-x/y",
            "/run/containerd/containerd.sock",
            "/srv/engine/own.sock",
            "/srv/engine",
            "/",
        ] {
            assert!(mount(&volume(source), socket).is_err(), "{source}");
        }
        for source in ["/srv/data", "/srv/engine/data", "web_data.1"] {
            assert!(mount(&volume(source), socket).is_ok(), "{source}");
        }
        for source in ["", "data/x", "../x", "-x"] {
            assert!(mount(&volume(source), socket).is_err(), "{source}");
        }
    }

    #[test]
    fn restricted_refuses_root_in_every_spelling() {
        let template = |user: Option<&str>, profile: &str| -> Template {
            let text = format!(r#"{{"securityContext":{{"profile":"{profile}"}}}}"#);
            let mut template = crate::template_from_json(&text);
            template.user = user.map(str::to_owned);
            template
        };
        for root in ["0", "00", "root", "0:5", "root:x", "", ":1"] {
            assert!(user(&template(Some(root), "restricted")).is_err(), "{root}");
        }
        assert_eq!(user(&template(None, "restricted")).unwrap().as_deref(), Some(RESTRICTED_USER));
        assert_eq!(user(&template(Some("1000"), "restricted")).unwrap().as_deref(), Some("1000"));
        assert_eq!(user(&template(Some("0"), "baseline")).unwrap().as_deref(), Some("0"));
        assert_eq!(user(&template(None, "baseline")).unwrap(), None);
    }
}
