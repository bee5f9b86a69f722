//! The manifest from the outside: exact error texts, limits, samples, schema, and text that no one meant to
//! write.
//!
//! The error texts are in `manifests/*.golden`, each beside the YAML that causes it. After a wanted change:
//! `UPDATE_GOLDEN=1 cargo test -p ringmaster-core --test manifest`, then read the diff.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ringmaster_core::manifest::{
    self, DEPTH_MAX, DOCUMENTS_MAX, ERRORS_MAX, GatewayDocument, Manifest, ManifestErrors, NODES_MAX,
    ServiceDocument, Source,
};
use ringmaster_core::spec::{
    API_VERSION, AccessLog, AssignmentSpec, Autoscale, Balancing, GatewaySpec, HashOn, Policy, PreStop,
    Resilience, SecurityProfile,
};

const REPLICAS: &str = include_str!("../../../manifests/replicas.yaml");
const RESILIENCE: &str = include_str!("../../../manifests/resilience.yaml");
const PROBES: &str = include_str!("../../../manifests/probes.yaml");
const AUTOSCALE: &str = include_str!("../../../manifests/autoscale.yaml");
const TWO_SERVICES: &str = include_str!("../../../manifests/two-services.yaml");

fn parse(text: &str) -> Result<Manifest, ManifestErrors> {
    manifest::parse(&[Source { file: "web.yaml", text }])
}

fn error(text: &str) -> String {
    parse(text).expect_err("this text is an error").to_string()
}

/// Compares the errors of every case of a golden file with those that are written there.
///
/// A case is `=== name`, its YAML (`+++ file` begins another source), `>>>`, and the rendered errors.
fn check(file: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/manifests").join(file);
    let written = std::fs::read_to_string(&path).expect("the golden file is there");
    let mut made = String::new();
    for case in written.split("=== ").filter(|case| !case.trim().is_empty()) {
        let (name, rest) = case.split_once('\n').expect("a name, then a line");
        let (yaml, _) = rest.split_once(">>>").expect("YAML, then its errors");
        let mut sources = Vec::new();
        for part in format!("+++ web.yaml\n{yaml}").split("+++ ").skip(1) {
            let (file, text) = part.split_once('\n').expect("a name, then a line");
            sources.push((file.to_owned(), text.to_owned()));
        }
        sources.retain(|(file, text)| file != "web.yaml" || !text.is_empty() || !yaml.starts_with("+++"));
        let sources: Vec<_> = sources.iter().map(|(file, text)| Source { file, text }).collect();
        let errors = manifest::parse(&sources).expect_err(name);
        let text: String = errors.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect();
        write!(made, "=== {name}\n{yaml}>>>\n{text}\n").expect("a string takes all");
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, made).expect("the golden file is written");
        return;
    }
    for (made, written) in made.split("=== ").zip(written.split("=== ")) {
        assert_eq!(
            made.trim_end(),
            written.trim_end(),
            "{file}: see the head of this test for how to update it"
        );
    }
}

#[test]
fn syntax_errors_read_as_written() {
    check("syntax.golden");
}

#[test]
fn type_errors_read_as_written() {
    check("types.golden");
}

#[test]
fn broken_rules_read_as_written() {
    check("rules.golden");
}

#[test]
fn errors_of_documents_read_as_written() {
    check("documents.golden");
}

#[test]
fn errors_of_balancing_read_as_written() {
    check("balancing.golden");
}

#[test]
fn errors_of_resilience_read_as_written() {
    check("resilience.golden");
}

#[test]
fn errors_of_strategy_read_as_written() {
    check("strategy.golden");
}

#[test]
fn errors_of_the_autoscaler_read_as_written() {
    check("autoscale.golden");
}

#[test]
fn the_sample_of_the_autoscaler_shows_every_field_with_its_default() {
    let manifest = parse(AUTOSCALE).unwrap_or_else(|errors| panic!("{errors}"));
    let shown = manifest.services.values().next().unwrap().spec.autoscale.clone().unwrap();
    let least: Autoscale =
        serde_json::from_str(r#"{ "maxReplicas": 10, "targetInFlight": 20, "scaleToZero": true }"#).unwrap();
    assert_eq!(shown, least);
    let schema = manifest::json_schema();
    for field in schema["$defs"]["Autoscale"]["properties"].as_object().unwrap().keys() {
        assert!(AUTOSCALE.contains(&format!("{field}:")), "{field} stands in no sample");
    }
    let document =
        ServiceDocument::new("web".parse().unwrap(), manifest.services.values().next().unwrap().spec.clone());
    let again = parse(&serde_saphyr::to_string(&document).unwrap()).unwrap();
    assert_eq!(again.services.values().next().unwrap().spec, document.spec, "it survives printing");
}

#[test]
fn the_sample_of_resilience_shows_the_defaults_and_examples_of_what_has_none() {
    let manifest = parse(RESILIENCE).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(manifest.gateway.unwrap().spec, GatewaySpec::default());
    let spec = &manifest.services.values().next().unwrap().spec;
    assert_eq!(spec.resilience, Resilience::default());
    // Each field is shown: what is not written down when it has its default is told by another value.
    let shown = RESILIENCE.replace("# trusted", "trusted").replace("# access", "access");
    let shown = shown.replace("# maxBody", "maxBody").replace("# connections", "connections");
    let gateway = parse(&shown).unwrap_or_else(|errors| panic!("{errors}")).gateway.unwrap().spec;
    assert!(gateway.trusted_proxies[1].contains([192, 168, 7, 7].into()));
    assert!(!gateway.trusted_proxies[0].contains([10, 0, 0, 8].into()));
    assert_eq!(gateway.limits.max_body.unwrap().bytes, 10 << 20);
    assert_eq!(gateway.limits.connections_per_client, Some(100));
    assert_eq!(gateway.access_log, Some(AccessLog::default()));
    let schema = manifest::json_schema();
    for (name, text) in [("Resilience", RESILIENCE), ("Ejection", RESILIENCE), ("ClientLimits", RESILIENCE)] {
        for field in schema["$defs"][name]["properties"].as_object().unwrap().keys() {
            assert!(text.contains(&format!("{field}:")), "{name}.{field} stands in no sample");
            assert!(REPLICAS.contains(&format!("{field}:")), "{name}.{field} is not in the main sample");
        }
    }
}

#[test]
fn errors_of_probes_read_as_written() {
    check("probes.golden");
}

#[test]
fn the_sample_of_probes_shows_every_field_of_theirs() {
    let manifest = parse(PROBES).unwrap_or_else(|errors| panic!("{errors}"));
    let spec = &manifest.services.values().next().unwrap().spec;
    assert_eq!(spec.probes.readiness.http_get.as_ref().unwrap().status.to_string(), "200-299");
    assert!(spec.probes.startup.is_some() && spec.template.lifecycle.pre_stop.is_some());
    // What may stand instead is right too.
    let other = PROBES.replace("httpGet: { path", "# httpGet: { path").replace("# exec:", "exec:");
    let other = parse(&other).unwrap_or_else(|errors| panic!("{errors}"));
    let spec = &other.services.values().next().unwrap().spec;
    assert_eq!(spec.probes.liveness.as_ref().unwrap().exec.as_ref().unwrap().command[1], "check");
    assert!(matches!(spec.template.lifecycle.pre_stop, Some(PreStop::Exec(_))));
    let schema = manifest::json_schema();
    for name in ["Probes", "Probe", "HttpGet", "Exec", "Lifecycle", "PreStop"] {
        let fields = schema["$defs"][name]["properties"].as_object();
        for field in fields.into_iter().flat_map(|fields| fields.keys()) {
            assert!(PROBES.contains(&format!("{field}:")), "{name}.{field} stands in no sample");
        }
    }
}

#[test]
fn every_setting_of_probes_takes_its_bounds() {
    for (settings, period_ms) in [
        ("period: 10ms, jitter: 100%, failureThreshold: 1000, successThreshold: 1000", 10),
        ("httpGet: { path: /, status: 100-599 }, period: 1h", 3_600_000),
        ("httpGet: { path: /, status: 204, bodyContains: x }", 1_000),
        ("httpGet: { path: /, headers: { Host: a, X-Y: \"\" } }, timeout: 1ms", 1_000),
        ("exec: { command: [a, \"\", \"b c\"] }", 1_000),
    ] {
        let text = format!(
            "apiVersion: ringmaster/v1\nkind: Service\nmetadata: {{ name: web }}\nspec:\n  template: {{ image: x }}\n  \
             probes: {{ readiness: {{ {settings} }} }}\n"
        );
        let manifest = parse(&text).unwrap_or_else(|errors| panic!("{settings}: {errors}"));
        let spec = &manifest.services.values().next().unwrap().spec;
        assert_eq!(spec.probes.readiness.period.0, Duration::from_millis(period_ms), "{settings}");
        let document = ServiceDocument::new("web".parse().unwrap(), spec.clone());
        let again = parse(&serde_saphyr::to_string(&document).unwrap()).unwrap();
        assert_eq!(again.services.values().next().unwrap().spec, *spec, "{settings} survives printing");
    }
}

#[test]
fn every_setting_of_resilience_takes_its_bounds() {
    let good = [
        "hedgeAfter: off",
        "hedgeAfter: 200ms",
        "retryBudget: 0%",
        "retryBudget: 100%",
        "maxInFlight: 1",
        "maxInFlight: 1000000",
        "maxQueued: 0",
        "maxQueued: 100000",
        "queueTimeout: 1ms",
        "ejection: { consecutiveErrors: 0, hedgeLosses: 0, errorRate: 100%, maxEjected: 0% }",
        "ejection: { consecutiveErrors: 1000, hedgeLosses: 1000, errorRate: 0%, maxEjected: 100% }",
        "ejection: { time: 10s }",
        "ejection: { time: 1h, maxTime: 1h }",
    ];
    for setting in good {
        let text = format!(
            "apiVersion: ringmaster/v1\nkind: Service\nmetadata: {{ name: web }}\nspec:\n  template: {{ image: x }}\n  \
             resilience: {{ {setting} }}\n"
        );
        let manifest = parse(&text).unwrap_or_else(|errors| panic!("{setting}: {errors}"));
        let spec = &manifest.services.values().next().unwrap().spec;
        assert_ne!(spec.resilience, Resilience::default(), "{setting} changes nothing");
        let name = ServiceDocument::new("web".parse().unwrap(), spec.clone());
        let again = parse(&serde_saphyr::to_string(&name).unwrap()).unwrap();
        assert_eq!(again.services.values().next().unwrap().spec, *spec, "{setting} survives printing");
    }
}

#[test]
fn the_sample_says_what_beginners_need() {
    let manifest = parse(REPLICAS).unwrap_or_else(|errors| panic!("{errors}"));
    let web = &manifest.services.values().next().unwrap();
    assert_eq!(web.origin.to_string(), format!("web.yaml:{}", line_of(REPLICAS, "kind: Service") - 1));
    let spec = &web.spec;
    assert_eq!(spec.replicas, Some(3));
    assert_eq!(spec.template.image.as_deref(), Some("ringmaster/replica:dev"));
    assert_eq!(spec.template.security_context.profile, SecurityProfile::Restricted);
    assert_eq!(spec.template.resources.memory.bytes, 64 << 20);
    assert_eq!(spec.probes.readiness.failure_threshold, 2);
    assert_eq!(spec.probes.readiness.timeout.0, Duration::from_millis(250));
    assert_eq!(spec.probes.liveness.as_ref().unwrap().failure_threshold, 5);
    assert_eq!(spec.balancing.hash_on, HashOn::RequestId.into());
    assert_eq!(spec.route.hosts, ["*"]);
    let api = manifest.gateway.as_ref().unwrap().spec.assignment_api.as_ref().unwrap();
    assert_eq!(api.service.as_str(), "web");
    assert_eq!(manifest.undeclared_assignment_service(), None);
}

fn line_of(text: &str, start: &str) -> usize {
    text.lines().position(|line| line.starts_with(start)).expect("such a line") + 1
}

#[test]
fn the_sample_shows_the_defaults_in_its_comments() {
    let lines = |text: &str| text.lines().map(|line| format!("{line}\n")).collect::<String>();
    let bare = parse(REPLICAS).unwrap();
    let mut shown = String::new();
    for line in REPLICAS.lines() {
        // Only those that are said to be defaults, so without the examples of what has none.
        let wanted = [
            "pullPolicy",
            "logs:",
            "  maxSize",
            "  maxFiles",
            "successThreshold",
            "jitter",
            "progressDeadline",
        ];
        let strategy = ["type:", "maxSurge", "maxUnavailable", "minReady", "rollback"];
        let more = ["terminationGrace", "resilience", "  retries", "  connectTimeout", "  responseTimeout"];
        let tries = ["  hedgeAfter", "  retryBudget", "  maxInFlight", "  maxQueued", "  queueTimeout"];
        let ejection =
            ["  ejection", "    consecutiveErrors", "    hedgeLosses", "    errorRate", "    time"];
        let most = ["    maxTime", "    maxEjected"];
        let limits = ["limits", "  headerTimeout", "  idleTimeout", "  stallTimeout", "  minBodyRate"];
        let route = ["route:", "  hosts: [", "  pathPrefix"];
        let comment = line.trim_start().strip_prefix("# ").unwrap_or("");
        let is_default = wanted
            .iter()
            .chain(&strategy)
            .chain(&more)
            .chain(&route)
            .chain(&tries)
            .chain(&limits)
            .chain(&ejection)
            .chain(&most)
            .any(|field| comment.starts_with(field));
        let line = if is_default { line.replacen("# ", "", 1) } else { line.to_owned() };
        shown.push_str(&line);
        shown.push('\n');
    }
    assert_ne!(shown, lines(REPLICAS));
    let shown = parse(&shown).unwrap_or_else(|errors| panic!("{errors}"));
    for (name, service) in &shown.services {
        assert_eq!(service.spec, bare.services[name].spec);
    }
}

#[test]
fn two_services_share_a_port_by_host_and_path() {
    let manifest = parse(TWO_SERVICES).unwrap_or_else(|errors| panic!("{errors}"));
    let routes: Vec<_> = manifest.services.values().map(|s| s.spec.route.path_prefix.as_str()).collect();
    assert_eq!(routes, ["/echo", "/"]);
    assert!(manifest.gateway.is_none());
    let both = [Source { file: "a", text: REPLICAS }, Source { file: "b", text: TWO_SERVICES }];
    let clash = manifest::parse(&both).unwrap_err();
    assert_eq!(clash.0.len(), 1, "web and site claim the default route: {clash}");
}

#[test]
fn an_assignment_service_may_be_live_instead_of_declared() {
    let text = "apiVersion: ringmaster/v1\nkind: Gateway\nmetadata: {name: g}\nspec: {assignmentApi: {service: web}}";
    let manifest = parse(text).unwrap();
    assert_eq!(manifest.undeclared_assignment_service().unwrap().as_str(), "web");
}

#[test]
fn a_manifest_survives_yaml_and_json() {
    for text in [REPLICAS, RESILIENCE, TWO_SERVICES, WIDE] {
        let manifest = parse(text).unwrap_or_else(|errors| panic!("{errors}"));
        let mut yaml = String::new();
        let mut json = String::new();
        for (name, service) in &manifest.services {
            let document = ServiceDocument::new(name.clone(), service.spec.clone());
            write!(yaml, "---\n{}\n", serde_saphyr::to_string(&document).unwrap()).unwrap();
            write!(json, "---\n{}\n", serde_json::to_string(&document).unwrap()).unwrap();
        }
        if let Some(gateway) = &manifest.gateway {
            let document = GatewayDocument::new(gateway.name.clone(), gateway.spec.clone());
            write!(yaml, "---\n{}\n", serde_saphyr::to_string(&document).unwrap()).unwrap();
        }
        let again = parse(&yaml).unwrap_or_else(|errors| panic!("{yaml}\n{errors}"));
        let from_json = parse(&json).unwrap_or_else(|errors| panic!("{json}\n{errors}"));
        assert_eq!(again.gateway.map(|g| g.spec), manifest.gateway.map(|g| g.spec));
        for (name, service) in &manifest.services {
            assert_eq!(again.services[name].spec, service.spec, "{yaml}");
            assert_eq!(from_json.services[name].spec, service.spec, "{json}");
        }
    }
}

/// Every field that a service has, each with another value than its default.
const WIDE: &str = r#"
apiVersion: ringmaster/v1
kind: Service
metadata: { name: wide }
spec:
  replicas: 0
  template:
    image: "registry:5000/x@sha256:00"
    pullPolicy: always
    process: { command: [ringmaster, replica, "- :#", "multi\nline"] }
    port: 65535
    env: { "NO": no, "A": "1", "B": 1.50, "C": "", "D": "null", "E": "a: b # c", "F": ~x, "G": "\e\t" }
    command: ["0x10", "true"]
    args: ["-v", "[", "*", "&a", "!t"]
    workingDir: /app
    user: "1000:1000"
    volumes: [{ source: data, target: /data, readOnly: true }]
    resources: { cpu: 0.25, memory: 8192Ki, pids: 1 }
    securityContext: { profile: restricted }
    logs: { maxSize: 1M, maxFiles: 1 }
    lifecycle: { preStop: { httpGet: { path: /bye, status: 204 } }, stopSignal: SIGQUIT }
  probes:
    startup: { exec: { command: [a, "b c"] }, jitter: 7% }
    readiness: { tcpSocket: {}, period: 2m, timeout: 3h, failureThreshold: 9, successThreshold: 8 }
    liveness: { httpGet: { path: "/a?b=c", headers: { X-A: "b: c" }, status: 200-204, bodyContains: "ok #1" } }
  strategy: { drain: 0s, progressDeadline: 1ms, terminationGrace: 0s }
  balancing:
    policy: assignment
    hashOn: [{ header: X-User-Id }, { query: user }, requestId]
    boundedLoad: 1.25
    assignment:
      slots: 1024
      virtualServers: 10
      requestHash: i*7 % 1021
      virtualServerHash: "(i + j) ^ 2"
      probing: quadratic-cumulative
      firstVirtual: 1
      successor: strict
      onCollision: drop
  resilience:
    retries: 0
    connectTimeout: 1ms
    responseTimeout: 1h
    hedgeAfter: 1m
    retryBudget: 99%
    maxInFlight: 1
    maxQueued: 0
    queueTimeout: 2s
    ejection: { consecutiveErrors: 0, hedgeLosses: 1, errorRate: 1%, time: 2s, maxTime: 3s, maxEjected: 100% }
  route: { hosts: [a.example, "B.example."], pathPrefix: /a/ }
---
apiVersion: ringmaster/v1
kind: Gateway
metadata: { name: wide }
spec:
  listeners: [{ name: http, port: 1 }]
  trustedProxies: [10.0.0.7, "fd00::/8"]
  limits:
    headerTimeout: 1s
    idleTimeout: 2s
    stallTimeout: 3s
    minBodyRate: 1Ki
    maxBody: 1Mi
    connectionsPerClient: 1
  accessLog: { sample: 1% }
"#;

#[test]
fn the_way_to_write_a_choice_is_the_way_it_is_printed() {
    for (hash_on, text) in [
        (HashOn::RequestId, "requestId"),
        (HashOn::Path, "path"),
        (HashOn::ClientIp, "clientIp"),
        (HashOn::Header("X-User".into()), "{ header: X-User }"),
        (HashOn::Cookie("s".into()), "{ cookie: s }"),
        (HashOn::Path, "[path]"),
        (HashOn::Query("q".into()), "{ query: q }"),
    ] {
        let service = format!(
            "apiVersion: ringmaster/v1\nkind: Service\nmetadata: {{ name: web }}\nspec:\n  template: {{ image: x }}\n  \
             balancing: {{ hashOn: {text} }}\n"
        );
        let manifest = parse(&service).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(manifest.services.values().next().unwrap().spec.balancing.hash_on, hash_on.into());
    }
}

#[test]
fn every_policy_is_written_as_it_is_named() {
    for policy in Policy::ALL {
        let service = format!(
            "apiVersion: ringmaster/v1\nkind: Service\nmetadata: {{ name: web }}\nspec:\n  template: {{ image: x }}\n  \
             balancing: {{ policy: {policy} }}\n"
        );
        let manifest = parse(&service).unwrap_or_else(|errors| panic!("{errors}"));
        let balancing = &manifest.services.values().next().unwrap().spec.balancing;
        assert_eq!(balancing.policy, policy);
        let hashes_id = balancing.hash_on.under(policy) == [HashOn::RequestId];
        assert_eq!(hashes_id, policy == Policy::Assignment, "{policy}");
    }
}

#[test]
fn a_request_hash_that_reaches_few_slots_is_worth_a_warning() {
    let with = |request_hash: &str| Balancing {
        policy: Policy::Assignment,
        assignment: Some(AssignmentSpec {
            request_hash: Some(request_hash.to_owned()),
            ..AssignmentSpec::default()
        }),
        ..Balancing::default()
    };
    let own = manifest::balancing_warnings(&with("i^2 + 2*i + 17"));
    assert_eq!(own, ["H reaches 87 of 512 slots, which spread requests as 57 equal ones would"]);
    assert!(manifest::balancing_warnings(&with("7*i")).is_empty());
    assert!(manifest::balancing_warnings(&Balancing::default()).is_empty());
}

#[test]
fn bombs_are_refused_at_once() {
    let mut aliases = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..=9 {
        let items = vec![format!("*a{}", level - 1); 9].join(", ");
        writeln!(aliases, "a{level}: &a{level} [{items}]").unwrap();
    }
    let brackets = format!("a: {}{}", "[".repeat(20_000), "]".repeat(20_000));
    let open_braces = "{a: ".repeat(10_000);
    let dashes = "- ".repeat(20_000);
    let nested: String = (0..200).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    let quotes = "\"".repeat(40_000);
    let anchors: String = (0..5_000).map(|n| format!("- &a{n} x\n")).collect();
    let values = "- x\n".repeat(NODES_MAX + 1);
    let keys: String = (0..NODES_MAX).map(|n| format!("k{n}: x\n")).collect();
    let documents = "---\na: b\n".repeat(DOCUMENTS_MAX + 1);
    let deep = format!("more than {DEPTH_MAX} levels");
    let many = format!("more than {NODES_MAX} values");
    let cases = [
        ("aliases", &aliases, many.as_str()),
        ("brackets", &brackets, &deep),
        ("braces", &open_braces, &deep),
        ("dashes", &dashes, &deep),
        ("nested", &nested, &deep),
        ("quotes", &quotes, ""),
        ("anchors", &anchors, ""),
        ("values", &values, &many),
        ("keys", &keys, &many),
        ("documents", &documents, "more than 64 documents"),
        ("size", &"#".repeat((1 << 20) + 1), "more than 1 MiB"),
    ];
    for (name, text, limit) in cases {
        // The best of five, so that another process's noise is not ours.
        let best = (0..5)
            .map(|_| {
                let start = Instant::now();
                let said = error(text);
                assert!(said.contains(limit), "{name}: {said}");
                start.elapsed()
            })
            .min()
            .unwrap();
        println!("{name}: {} bytes refused in {best:?}", text.len());
        assert!(
            best < Duration::from_millis(50) || !matches!(name, "aliases" | "brackets"),
            "{name}: {best:?}"
        );
    }
}

#[test]
fn the_largest_manifest_parses_and_its_errors_are_bounded() {
    let one = |n: usize, port: &str| {
        format!(
            "---\napiVersion: {API_VERSION}\nkind: Service\nmetadata: {{ name: web-{n} }}\nspec:\n  template:\n    \
             image: x\n    port: {port}\n  route: {{ hosts: [h{n}] }}\n"
        )
    };
    let most: String = (0..DOCUMENTS_MAX).map(|n| one(n, "80")).collect();
    assert_eq!(parse(&most).unwrap().services.len(), DOCUMENTS_MAX);
    let unknown: String = (0..1_000).map(|n| format!("x{n}: y\n")).collect();
    let errors = parse(&format!("apiVersion: {API_VERSION}\nkind: Service\n{unknown}")).unwrap_err();
    assert_eq!(errors.0.len(), ERRORS_MAX);
    let long = parse(&one(0, &"9".repeat(100_000))).unwrap_err();
    assert!(long.to_string().len() < 2_000, "a long value is cut");
}

#[test]
fn limits_hold_over_all_sources() {
    let half = "#".repeat(600_000);
    let sources = [Source { file: "a", text: &half }, Source { file: "b", text: &half }];
    let errors = manifest::parse(&sources).unwrap_err();
    assert_eq!((errors.0[0].file.as_str(), errors.0.len()), ("b", 1));
    manifest::parse(&[]).expect_err("nothing given is not everything deleted");
}

#[test]
fn what_is_echoed_is_safe_to_print() {
    let text = "kind: \"\\e[31mred\u{202e}\"\napiVersion: v1";
    let errors = manifest::parse(&[Source { file: "\u{1b}[2J", text }]).unwrap_err();
    check_places(text, &errors);
    let said = errors.to_string();
    assert!(said.contains(r"unknown kind `\u{1b}[31mred\u{202e}`"), "{said}");
    assert!(said.contains(r"--> \u{1b}[2J:1:7"), "{said}");
    let carets = errors.0[0].caret_width;
    assert_eq!(carets, r#""\e[31mred\u{202e}""#.len(), "carets fit the escaped text: {said}");
}

#[test]
fn line_breaks_and_marks_of_other_systems_do_not_move_lines() {
    let text = "kind: Service\nmetadata: { name: web }\nspec: {}\nbad: [\n";
    for other in [text.replace('\n', "\r\n"), text.replace('\n', "\r"), format!("\u{feff}{text}")] {
        let (expected, got) = (parse(text).unwrap_err(), parse(&other).unwrap_err());
        assert_eq!(got, expected, "{other:?}");
    }
    let good = REPLICAS.replace('\n', "\r\n");
    assert_eq!(parse(&good).unwrap(), parse(REPLICAS).unwrap());
}

#[test]
fn a_half_written_file_is_an_error_or_whole() {
    let (whole, mut errors) = (parse(REPLICAS).unwrap(), 0);
    for end in (0..REPLICAS.len()).filter(|end| REPLICAS.is_char_boundary(*end)) {
        match parse(&REPLICAS[..end]) {
            Ok(part) => assert!(part.services.keys().all(|name| whole.services.contains_key(name))),
            Err(said) => {
                errors += 1;
                check_places(&REPLICAS[..end], &said);
            }
        }
    }
    println!("{errors} of {} prefixes are errors", REPLICAS.len());
}

/// Every error points into the text, and its rendering is safe to print.
fn check_places(text: &str, errors: &ManifestErrors) {
    assert!(!errors.0.is_empty() && errors.0.len() <= ERRORS_MAX);
    for error in &errors.0 {
        let lines = text.split_inclusive(['\n', '\r']).count();
        assert!(error.line >= 1 && error.line <= lines + 1, "{error}\n{text:?}");
        assert!(error.column >= 1 && error.caret_width >= 1);
        assert!(!error.to_string().contains(|c: char| c.is_control() && c != '\n'), "{error:?}");
    }
}

/// A small generator (xorshift64*), so that a failing seed names a failing text.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((u128::from(mixed) * end as u128) >> 64) as usize
    }
}

#[test]
fn text_that_no_one_meant_to_write_never_panics() {
    const TOKENS: [&str; 36] = [
        "\n",
        "  ",
        "\t",
        ": ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "\"",
        "'",
        "#",
        " #",
        "&a ",
        "*a",
        "!t ",
        "|\n",
        ">\n",
        "? ",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "\r",
        "\u{0}",
        "\u{feff}",
        "\u{85}",
        "\u{2028}",
        "é",
        "🔑",
        "0",
        "~",
        "spec",
        "port",
        "kind: Service",
        "<<: ",
    ];
    let samples = [REPLICAS, TWO_SERVICES, WIDE];
    let mut parsed = 0;
    for seed in 1..=3_000_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut text: Vec<char> = match random.below(4) {
            0 => Vec::new(),
            _ => samples[random.below(samples.len())].chars().collect(),
        };
        for _ in 0..=random.below(12) {
            let at = random.below(text.len() + 1);
            let end = (at + random.below(8)).min(text.len());
            match random.below(4) {
                0 => drop(text.drain(at..end)),
                1 => drop(text.splice(at..end, TOKENS[random.below(TOKENS.len())].chars())),
                2 => text.insert(at, char::from_u32(random.below(0x11_0000) as u32).unwrap_or('\u{fffd}')),
                _ => {
                    let from = random.below(text.len() + 1);
                    let piece: Vec<char> = text[from..].iter().take(40).copied().collect();
                    drop(text.splice(at..end, piece));
                }
            }
        }
        let text: String = text.into_iter().collect();
        match parse(&text) {
            Ok(_) => parsed += 1,
            Err(errors) => check_places(&text, &errors),
        }
    }
    println!("{parsed} of 3000 mutated manifests still parse");
    assert!(parsed > 30, "the mutations are small enough to reach the rules");
}

#[test]
fn the_schema_forbids_what_the_parser_forbids() {
    let schema = manifest::json_schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["oneOf"].as_array().unwrap().len(), 2);
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        if definition["type"] == "object" {
            assert_eq!(definition["additionalProperties"], false, "{name}");
        }
        let fields = definition["properties"].as_object();
        for (field, property) in fields.into_iter().flatten() {
            assert!(property["description"].is_string(), "{name}.{field} has no description");
        }
    }
    assert!(!schema.to_string().contains("\"null\""), "a field is left out or has a value");
    assert!(!schema.to_string().contains("[`"), "editors do not know links of Rust");
    let required = |name: &str| schema["$defs"][name]["required"].clone();
    assert_eq!(required("ServiceDocument"), serde_json::json!(["apiVersion", "kind", "metadata", "spec"]));
    assert_eq!(required("ServiceSpec"), serde_json::json!(["template"]));
    assert_eq!(required("ListenerSpec"), serde_json::json!(["name", "port"]));
    let kind = &schema["$defs"]["ServiceKind"];
    assert!(kind.to_string().contains("\"Service\""), "{kind}");
    assert_eq!(schema["$defs"]["Template"]["properties"]["port"]["minimum"], 1);
    let version = serde_json::to_value(manifest::ApiVersion::V1).unwrap();
    assert_eq!(version, API_VERSION);
}
