//! A snapshot out of flags: upstreams that never change, under the balancing of the flags or of a manifest.
//!
//! Deliberately absent: probes and containers. What does not answer is noticed by live traffic alone.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use ringmaster_core::desired::{Member, ring_members};
use ringmaster_core::manifest::service_violations;
use ringmaster_core::members;
use ringmaster_core::ring::fresh;
use ringmaster_core::snapshot::{Endpoint, Front, ServiceRouting, Snapshot};
use ringmaster_core::spec::{GatewaySpec, ServiceSpec};
use ringmaster_core::{Attempt, Generation, Ordinal, ReplicaName, ServiceName};

use crate::cli::ProxyArgs;
use crate::cmd::{BadInput, parse, read_manifests};

/// The service of upstreams without a manifest.
const SERVICE: &str = "static";
/// One seed for all: proxies beside each other place a key alike, and as `ringmaster explain -f` says.
const SEED: u64 = 0;

/// What the flags say.
pub(super) fn snapshot(options: &ProxyArgs) -> anyhow::Result<Snapshot> {
    let (mut specs, gateway) = specs(options)?;
    let mut services = BTreeMap::new();
    for (name, hosts) in upstreams(&options.upstreams, &specs)? {
        let spec = specs.remove(&name).expect("upstreams are of services that are there");
        let routing = routing(&name, spec, &hosts)?;
        services.insert(name, Arc::new(routing));
    }
    if let Some(name) = specs.keys().next() {
        let error =
            format!("service `{name}` has no upstreams: give it some with --upstream {name}=HOST:PORT,…");
        return Err(BadInput(error).into());
    }
    // The assignment's API edits a desired state, and there is none.
    let front = Front::from(&gateway);
    let listeners = gateway.listeners;
    Ok(Snapshot { generation: Generation(1), listeners, services, assignment_api: None, front })
}

/// The services by name: those of the manifest, or the one of the flags.
fn specs(options: &ProxyArgs) -> anyhow::Result<(BTreeMap<ServiceName, ServiceSpec>, GatewaySpec)> {
    let Some(file) = &options.config else {
        let name = ServiceName::new(SERVICE).expect("the name is valid");
        return Ok((BTreeMap::from([(name, spec_of_flags(options)?)]), GatewaySpec::default()));
    };
    let manifest = parse(&read_manifests(&[file.display().to_string()])?)?;
    let specs: BTreeMap<_, _> =
        manifest.services.into_iter().map(|(name, service)| (name, service.spec)).collect();
    if specs.is_empty() {
        return Err(BadInput(format!("{}: the file has no service", file.display())).into());
    }
    Ok((specs, manifest.gateway.map(|gateway| gateway.spec).unwrap_or_default()))
}

fn spec_of_flags(options: &ProxyArgs) -> anyhow::Result<ServiceSpec> {
    // A template must be there; nothing is made of it.
    let mut spec: ServiceSpec =
        serde_json::from_value(serde_json::json!({ "template": { "image": SERVICE } }))?;
    spec.balancing.policy = options.policy.unwrap_or_default();
    spec.balancing.hash_on = options.hash_on.clone().unwrap_or_default();
    match service_violations(&spec).into_iter().next() {
        None => Ok(spec),
        Some(wrong) => {
            let advice = wrong.suggestion.map_or(String::new(), |suggestion| format!(": {suggestion}"));
            Err(BadInput(format!("--policy, --hash-on: {}{advice}", wrong.message)).into())
        }
    }
}

/// The hosts of each service, in the order in which they were given.
fn upstreams(
    given: &[String],
    specs: &BTreeMap<ServiceName, ServiceSpec>,
) -> anyhow::Result<BTreeMap<ServiceName, Vec<String>>> {
    let mut all: BTreeMap<ServiceName, Vec<String>> = BTreeMap::new();
    for text in given {
        let (name, hosts) = match text.split_once('=') {
            Some((name, hosts)) => (ServiceName::new(name).map_err(|e| BadInput(e.to_string()))?, hosts),
            None if specs.len() == 1 => (specs.keys().next().cloned().expect("there is one"), text.as_str()),
            None => {
                let names: Vec<&str> = specs.keys().map(ServiceName::as_str).collect();
                let error = format!(
                    "--upstream {text}: say of which service, as in NAME={text}: {}",
                    names.join(", ")
                );
                return Err(BadInput(error).into());
            }
        };
        if !specs.contains_key(&name) {
            let names: Vec<&str> = specs.keys().map(ServiceName::as_str).collect();
            let error = format!("--upstream {text}: there is no service `{name}`, only {}", names.join(", "));
            return Err(BadInput(error).into());
        }
        all.entry(name).or_default().extend(hosts.split(',').map(|host| host.trim().to_owned()));
    }
    Ok(all)
}

fn routing(name: &ServiceName, spec: ServiceSpec, hosts: &[String]) -> anyhow::Result<ServiceRouting> {
    let refused = |error: &dyn std::fmt::Display| BadInput(format!("service {name}: {error}"));
    let members: Vec<Member> = members::resize(&[], hosts.len()).map_err(|error| refused(&error))?;
    let ring = fresh(&spec.balancing, SEED, &ring_members(name, &spec.balancing, &members));
    let mut endpoints = BTreeMap::new();
    for (member, host) in members.iter().zip(hosts) {
        let ordinal = member.ordinal;
        let endpoint = Endpoint {
            replica: ReplicaName { service: name.clone(), ordinal, attempt: Attempt(0) },
            address: resolve(host)?,
            weight: spec.balancing.weight(ordinal),
            new_since: None,
        };
        endpoints.insert(Ordinal(ordinal.0), endpoint);
    }
    Ok(ServiceRouting {
        name: name.clone(),
        route: spec.route,
        balancing: spec.balancing,
        resilience: spec.resilience,
        ring: ring.map_err(|error| refused(&error))?,
        endpoints,
        demand: None,
    })
}

/// The first address of a host, IPv4 before IPv6.
fn resolve(host: &str) -> Result<SocketAddr, BadInput> {
    let port = host.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?)));
    if port.is_none_or(|(name, port)| name.is_empty() || port == 0) {
        return Err(BadInput(format!(
            "--upstream {host}: not of the form HOST:PORT, such as 127.0.0.1:8080"
        )));
    }
    let found = host.to_socket_addrs().map_err(|error| {
        BadInput(format!(
            "--upstream {host}: the host cannot be found ({error}): check its name, or give its address"
        ))
    })?;
    let mut found: Vec<SocketAddr> = found.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    found.first().copied().ok_or_else(|| BadInput(format!("--upstream {host}: the host has no address")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use ringmaster_core::ring::Ring;

    use super::*;
    use crate::cli::{Cli, Verb};

    fn options(flags: &[&str]) -> ProxyArgs {
        let cli = Cli::try_parse_from(["ringmaster", "proxy"].iter().chain(flags)).unwrap();
        let Verb::Proxy(options) = cli.verb else { unreachable!("it is `proxy`") };
        *options
    }

    fn refused(flags: &[&str]) -> String {
        snapshot(&options(flags)).unwrap_err().to_string()
    }

    #[test]
    fn upstreams_are_ordinals_in_the_order_of_the_flag() {
        let snapshot =
            snapshot(&options(&["--upstream", "127.0.0.1:9002,127.0.0.1:9001", "--policy", "maglev"]))
                .unwrap();
        let service = snapshot.services.values().next().unwrap();
        let ports: Vec<u16> = service.endpoints.values().map(|endpoint| endpoint.address.port()).collect();
        assert_eq!(ports, [9002, 9001]);
        assert!(matches!(service.ring, Ring::Maglev(_)));
    }

    #[test]
    fn every_policy_and_every_key_of_manifests_is_understood() {
        for policy in ringmaster_core::spec::Policy::ALL {
            let flags = ["--upstream", "127.0.0.1:1", "--policy", policy.name()];
            assert_eq!(snapshot(&options(&flags)).unwrap().services.len(), 1, "{policy}");
        }
        for key in ["requestId", "path", "{ header: X-User-Id }", "[{ cookie: session }, clientIp]"] {
            let flags = ["--upstream", "127.0.0.1:1", "--hash-on", key];
            let snapshot = snapshot(&options(&flags)).unwrap();
            assert!(!snapshot.services.values().next().unwrap().balancing.hash_on.is_empty(), "{key}");
        }
    }

    #[test]
    fn what_is_wrong_with_an_upstream_is_said() {
        for (upstream, words) in [
            ("127.0.0.1", "not of the form HOST:PORT"),
            ("127.0.0.1:0", "not of the form HOST:PORT"),
            (":80", "not of the form HOST:PORT"),
            ("127.0.0.1:1,", "not of the form HOST:PORT"),
            ("web=127.0.0.1:1", "there is no service `web`, only static"),
            ("no-such-host.invalid:80", "the host cannot be found"),
        ] {
            let error = refused(&["--upstream", upstream]);
            assert!(error.contains(words) && error.contains("--upstream"), "{upstream}: {error}");
        }
        let error = refused(&["--upstream", "127.0.0.1:1", "--policy", "p2c", "--hash-on", "path"]);
        assert!(error.starts_with("--policy, --hash-on: "), "{error}");
    }

    #[test]
    fn a_manifest_says_how_and_the_flags_say_where() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("two.yaml");
        let text = "apiVersion: ringmaster/v1\nkind: Service\nmetadata: { name: web }\nspec: { template: { image: x } }\n---\n\
            apiVersion: ringmaster/v1\nkind: Service\nmetadata: { name: api }\nspec:\n  template: { image: x }\n  \
            balancing: { policy: ring, hashOn: path, weights: [3] }\n  route: { pathPrefix: /api }\n---\n\
            apiVersion: ringmaster/v1\nkind: Gateway\nmetadata: { name: default }\n\
            spec: { listeners: [{ name: http, port: 8080 }], assignmentApi: { service: web } }\n";
        std::fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let snapshot = snapshot(&options(&[
            "--config",
            file,
            "--upstream",
            "api=127.0.0.1:1,127.0.0.1:2",
            "--upstream",
            "web=127.0.0.1:3",
        ]))
        .unwrap();
        let api = &snapshot.services[&ServiceName::new("api").unwrap()];
        assert_eq!((api.endpoints.len(), api.route.path_prefix.as_str()), (2, "/api"));
        assert_eq!(api.endpoints[&Ordinal(0)].weight, 3);
        assert_eq!((snapshot.listeners.len(), snapshot.assignment_api.is_none()), (1, true));
        let missing = refused(&["--config", file, "--upstream", "web=127.0.0.1:3"]);
        assert!(missing.contains("`api` has no upstreams"), "{missing}");
        let unnamed = refused(&["--config", file, "--upstream", "127.0.0.1:3"]);
        assert!(unnamed.contains("say of which service"), "{unnamed}");
    }
}
