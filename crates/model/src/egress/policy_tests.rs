use std::net::IpAddr;

use proptest::{prelude::*, test_runner::RngSeed};

use super::*;

fn name(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

fn rule(name: &str, target: Target, ports: &str) -> Rule {
    Rule { name: name.into(), target, ports: PortRanges::parse(ports).unwrap(), protocols_tcp: true }
}

fn host(rule_name: &str, pattern: &str, ports: &str) -> Rule {
    rule(rule_name, Target::Host(HostPattern::parse(pattern).unwrap()), ports)
}

fn tag(rule_name: &str, prefixes: &[&str], ports: &str) -> Rule {
    rule(rule_name, Target::Addresses(prefixes.iter().map(|text| Prefix::parse(text).unwrap()).collect()), ports)
}

fn private(rule_name: &str, names: &[&str], to: PrivateDestination, ports: &str) -> Rule {
    let names = names.iter().map(|text| HostPattern::parse(text).unwrap()).collect();
    rule(rule_name, Target::Private { names, to }, ports)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Rules of every kind.
fn policy() -> EgressPolicy {
    EgressPolicy {
        rules: vec![
            host("pypi", "packages.example.org", "80,443"),
            host("files", "*.files.example", "443"),
            host("db", "db.example", "5432"),
            host("both", "packages.example.org", "8443"),
            Rule { protocols_tcp: false, ..host("udp", "ntp.example", "123") },
            tag("dns", &["8.8.8.0/24", "2001:4860::/32"], "443"),
            tag("corp", &["10.1.0.0/16", "fd00:1::/64"], "443,5432"),
            tag("wide", &["0.0.0.0/1"], "9999"),
            Rule { protocols_tcp: false, ..tag("icmp", &["9.9.9.0/24"], "*") },
            private("store", &["store.blob.example", "*.store.blob.example"], PrivateDestination::FrontDoor, "443"),
            private("onprem", &["erp.corp"], PrivateDestination::Name(name("erp.internal.corp")), "443"),
            private("mainframe", &[], PrivateDestination::Address(address("10.9.9.9")), "3270"),
            private("gone", &["gone.example"], PrivateDestination::Absent("It was deleted.".into()), "443"),
        ],
        own_addresses: vec![address("10.1.0.1"), address("1.1.1.1"), address("2606:4700::1")],
        ..EgressPolicy::default()
    }
}

/// A decision in short: what is let through by which rule, or `-` and the beginning of the reason's telling part.
fn short(decision: &Decision) -> String {
    let rule = decision.rule.as_deref().unwrap_or("");
    let would = if decision.would_deny { " would deny" } else { "" };
    match &decision.verdict {
        Verdict::Allow(Route::Public) => format!("public {rule}{would}"),
        Verdict::Allow(Route::PublicOrNamed(_)) => format!("tag {rule}{would}"),
        Verdict::Allow(Route::Private(_)) => format!("private {rule}{would}"),
        Verdict::Deny => format!("- {rule}"),
    }
}

#[test]
fn names_with_approved_destinations_only() {
    let policy = policy();
    for (host, port, expected, telling) in [
        ("packages.example.org", 443, "public pypi", "Rule 'pypi' approves packages.example.org on port 80,443."),
        ("packages.example.org", 80, "public pypi", ""),
        ("Packages.Example.Org.", 8443, "public both", ""),
        (
            "packages.example.org",
            22,
            "- ",
            "not 22. To approve it: casemate ml workspace outbound-rule set --workspace-name WS --rule pypi --type fqdn --destination 'packages.example.org' --port-ranges 22,80,443",
        ),
        ("a.files.example", 443, "public files", ""),
        ("a.b.files.example", 443, "public files", ""),
        ("files.example", 443, "- ", "rule 'files' approves the hosts below it, not files.example itself"),
        ("evilfiles.example", 443, "- ", "No outbound rule approves evilfiles.example:443."),
        (
            "files.example.evil.com",
            443,
            "- ",
            "--rule files-example-evil-com --type fqdn --destination files.example.evil.com",
        ),
        ("db.example", 5432, "public db", ""),
        ("db.example", 443, "- ", "Rule 'db' approves db.example on port 5432, not 443"),
        ("evil.com", 25, "- ", "--destination evil.com --port-ranges 25"),
        ("_", 443, "- ", "--rule rule --type fqdn --destination _"),
        ("_a.example", 443, "- ", "--rule a-example --type fqdn --destination _a.example"),
        ("ntp.example", 123, "- ", "rule 'udp' is not about TCP"),
        ("store.blob.example", 443, "private store", "leads to the platform's own service"),
        ("x.store.blob.example", 443, "private store", ""),
        ("store.blob.example", 80, "- store", "opens port 443, not 80"),
        ("erp.corp", 443, "private onprem", "leads to erp.internal.corp"),
        ("gone.example", 443, "- gone", "leads nowhere at present: It was deleted."),
        ("localhost", 443, "- ", "connect to 127.0.0.1 inside the instance"),
        ("x.localhost", 80, "- ", "is the instance itself"),
        ("metadata.google.internal", 80, "- ", "metadata service"),
    ] {
        let decision = policy.name(&name(host), port);
        assert_eq!(short(&decision), expected, "{host}:{port} {}", decision.reason);
        assert!(decision.reason.contains(telling), "{host}:{port}: {}", decision.reason);
    }
    for (host, resolvable) in [
        ("packages.example.org", true),
        ("db.example", true),
        ("x.files.example", true),
        ("files.example", false),
        ("store.blob.example", true),
        ("gone.example", false),
        ("ntp.example", false),
        ("evil.com", false),
        ("localhost", false),
        ("metadata.google.internal", false),
    ] {
        assert_eq!(policy.resolvable(&name(host)), resolvable, "{host}");
    }
}

#[test]
fn addresses_with_approved_destinations_only() {
    let policy = policy();
    for (ip, port, expected, telling) in [
        ("8.8.8.8", 443, "tag dns", "Rule 'dns' approves this address on port 443."),
        ("::ffff:8.8.8.8", 443, "tag dns", ""),
        ("2001:4860::8888", 443, "tag dns", ""),
        (
            "8.8.8.8",
            853,
            "- ",
            "Rule 'dns' covers 8.8.8.8 on port 443, not 853. Set the rule again with --port-ranges \"443,853\".",
        ),
        ("8.8.4.4", 443, "- ", "Rule 'wide' covers 8.8.4.4 on port 9999, not 443"),
        (
            "200.1.1.1",
            443,
            "- ",
            "approve the name instead and connect by it. To approve the address: casemate ml workspace outbound-rule set --workspace-name WS --rule 200-1-1-1 --type service_tag --service-tag NAME --protocol TCP --port-ranges 443 --address-prefixes 200.1.1.1/32",
        ),
        ("9.9.9.9", 9999, "tag wide", ""),
        ("10.1.2.3", 443, "tag corp", ""),
        ("10.1.2.3", 22, "- ", "Rule 'corp' covers"),
        ("fd00:1::5", 5432, "tag corp", ""),
        ("10.1.0.1", 443, "- ", "an address of the machine that runs the platform"),
        ("1.1.1.1", 9999, "- ", "an address of the machine that runs the platform"),
        // A prefix that is wider than private space opens none of it.
        ("10.2.0.1", 9999, "- ", "is a private address, and no service tag rule approves"),
        ("127.0.0.1", 9999, "- ", "loopback"),
        ("::ffff:127.0.0.2", 9999, "- ", "loopback"),
        ("0.0.0.0", 9999, "- ", "unspecified"),
        ("10.9.9.9", 3270, "private mainframe", "leads to 10.9.9.9"),
        ("10.9.9.9", 443, "- ", "no service tag rule approves 10.9.9.9 on port 443"),
        ("169.254.169.254", 80, "- ", "/metadata/identity/oauth2/token"),
        ("168.63.129.16", 80, "- ", "metadata"),
        ("fd00:ec2::254", 80, "- ", "metadata"),
        ("198.18.0.77", 443, "- ", "look it up again"),
        ("64:ff9b::8.8.8.8", 443, "- ", "stands for an IPv4 address"),
        ("2002:808:808::1", 443, "- ", "stands for an IPv4 address"),
        ("224.0.0.1", 443, "- ", "multicast"),
        ("fe80::1", 443, "- ", "link-local"),
        ("255.255.255.255", 443, "- ", "broadcast"),
        ("192.0.0.8", 443, "- ", "reserved"),
    ] {
        let decision = policy.address(address(ip), port);
        assert_eq!(short(&decision), expected, "{ip}:{port} {}", decision.reason);
        assert!(decision.reason.contains(telling), "{ip}:{port}: {}", decision.reason);
    }
}

#[test]
fn modes_and_switches() {
    let closed = policy();
    let open = EgressPolicy { mode: IsolationMode::AllowInternetOutbound, ..policy() };
    let off = EgressPolicy { mode: IsolationMode::Disabled, ..policy() };
    let audit = EgressPolicy { audit: true, ..policy() };
    let sealed = EgressPolicy { public_disabled: true, audit: true, ..open.clone() };
    let policies = [&closed, &open, &off, &audit, &sealed];
    for (what, port, expected) in [
        ("evil.com", 25, ["- ", "public ", "public ", "public  would deny", "- "]),
        ("packages.example.org", 443, ["public pypi", "public pypi", "public pypi", "public pypi", "- "]),
        ("packages.example.org", 22, ["- ", "public ", "public ", "public  would deny", "- "]),
        // What a private endpoint stands for never goes the public way.
        ("store.blob.example", 443, ["private store"; 5]),
        ("store.blob.example", 80, ["- store"; 5]),
        ("gone.example", 443, ["- gone"; 5]),
        ("metadata.google.internal", 80, ["- "; 5]),
        ("localhost", 80, ["- "; 5]),
        ("200.1.1.1", 22, ["- ", "public ", "public ", "public  would deny", "- "]),
        ("2a00::1", 22, ["- ", "public ", "public ", "public  would deny", "- "]),
        ("8.8.8.8", 443, ["tag dns", "tag dns", "tag dns", "tag dns", "- "]),
        ("10.1.2.3", 443, ["tag corp", "tag corp", "tag corp", "tag corp", "- "]),
        ("10.2.2.2", 443, ["- "; 5]),
        ("10.9.9.9", 3270, ["private mainframe"; 5]),
        ("10.1.0.1", 443, ["- "; 5]),
        ("1.1.1.1", 443, ["- "; 5]),
        ("127.0.0.1", 443, ["- "; 5]),
        ("169.254.169.254", 80, ["- "; 5]),
        ("198.18.0.1", 443, ["- "; 5]),
        ("100.64.0.1", 443, ["- "; 5]),
        ("::ffff:10.2.2.2", 443, ["- "; 5]),
    ] {
        for (policy, expected) in policies.iter().zip(expected) {
            let decision = match what.parse() {
                Ok(ip) => policy.address(ip, port),
                Err(_) => policy.name(&name(what), port),
            };
            assert_eq!(short(&decision), expected, "{what}:{port} {:?} {}", policy.mode, decision.reason);
        }
    }
    assert!(sealed.name(&name("evil.com"), 443).reason.contains("egress_public_network_access: disabled"));
    let learned = audit.name(&name("evil.com"), 443).reason;
    assert!(
        learned.starts_with("Learn mode lets it through; by the rules it would be refused: No outbound"),
        "{learned}"
    );
    assert!(open.name(&name("evil.com"), 443).reason.contains("allow_internet_outbound"));
    assert_eq!(EgressPolicy::default().mode, IsolationMode::AllowOnlyApprovedOutbound);
}

#[test]
fn what_is_read_of_a_stream_and_how_closely_a_name_is_known() {
    use Inspection::{Http, Raw, Tls};
    let closed = policy();
    let open = EgressPolicy { mode: IsolationMode::AllowInternetOutbound, ..policy() };
    let audit = EgressPolicy { audit: true, ..policy() };
    for (host, port, expected) in [
        ("packages.example.org", 443, [Tls, Tls, Tls]),
        ("packages.example.org", 80, [Http, Http, Http]),
        ("packages.example.org", 8443, [Raw, Raw, Raw]),
        ("db.example", 5432, [Raw, Raw, Raw]),
        ("store.blob.example", 443, [Tls, Tls, Tls]),
        // A refused one is inspected most strictly, should it be asked.
        ("evil.com", 443, [Tls, Raw, Raw]),
        ("evil.com", 80, [Http, Raw, Raw]),
    ] {
        let found = [&closed, &open, &audit].map(|policy| policy.inspection(&name(host), port));
        assert_eq!(found, expected, "{host}:{port}");
    }
    for (host, breadth) in [
        ("packages.example.org", Breadth::Exact),
        ("a.files.example", Breadth::Wildcard),
        ("x.store.blob.example", Breadth::Wildcard),
        ("store.blob.example", Breadth::Exact),
        ("evil.com", Breadth::Open),
        ("ntp.example", Breadth::Open),
    ] {
        assert_eq!(open.breadth(&name(host)), breadth, "{host}");
    }
}

#[test]
fn of_several_private_rules_the_closest_that_leads_somewhere_decides() {
    let to = |last: u8| PrivateDestination::Address(IpAddr::from([10, 0, 0, last]));
    let mut policy = EgressPolicy {
        rules: vec![
            private("wide", &["*.corp.example"], to(1), "443"),
            private("absent", &["*.db.corp.example"], PrivateDestination::Absent("Approve it.".into()), "443"),
            private("near", &["*.db.corp.example"], to(2), "443"),
            private("exact", &["a.db.corp.example"], to(3), "5432"),
            host("public", "a.db.corp.example", "443"),
        ],
        ..EgressPolicy::default()
    };
    for (host, port, expected) in [
        ("x.corp.example", 443, "private wide"),
        ("x.db.corp.example", 443, "private near"),
        ("a.db.corp.example", 5432, "private exact"),
        // Its own rule does not open the port, and no other may go around it.
        ("a.db.corp.example", 443, "- exact"),
    ] {
        assert_eq!(short(&policy.name(&name(host), port)), expected, "{host}:{port}");
    }
    // Nothing leads to a metadata service, a link's neighbour or a group, whatever a rule says.
    for ip in
        ["169.254.169.254", "168.63.129.16", "fe80::1", "0.0.0.0", "224.0.0.1", "64:ff9b::1", "::ffff:169.254.1.1"]
    {
        policy.rules = vec![private("bad", &["x.corp"], PrivateDestination::Address(address(ip)), "80")];
        let decision = policy.name(&name("x.corp"), 80);
        assert!(short(&decision) == "- bad" && decision.reason.contains("no rule can open that"), "{ip} {decision:?}");
        assert_eq!(short(&policy.address(address(ip), 80)), "- bad", "{ip}");
    }
    // The machine itself is fine when a private rule says so.
    policy.own_addresses = vec![address("10.0.0.7")];
    for ip in ["127.0.0.5", "10.0.0.7", "1.2.3.4"] {
        policy.rules = vec![private("own", &["x.corp"], PrivateDestination::Address(address(ip)), "80")];
        assert_eq!(short(&policy.name(&name("x.corp"), 80)), "private own", "{ip}");
    }
}

#[test]
fn final_addresses_are_checked_by_route() {
    let policy = policy();
    let prefixes =
        |texts: &[&str]| Route::PublicOrNamed(texts.iter().map(|text| Prefix::parse(text).unwrap()).collect());
    let to_name = Route::Private(PrivateDestination::Name(name("erp.corp")));
    let to_address = Route::Private(PrivateDestination::Address(address("10.9.9.9")));
    // A rule's own word opens the machine itself; a name's addresses do not.
    let to_own = Route::Private(PrivateDestination::Address(address("10.1.0.1")));
    for (route, good, bad) in [
        (
            Route::Public,
            "8.8.8.8 2a00::1 ::ffff:9.9.9.9",
            "10.0.0.1 127.0.0.1 169.254.169.254 192.168.1.1 100.64.0.1 0.0.0.0 198.18.0.1 240.0.0.1 192.0.0.1 1.1.1.1 \
             ::1 fd00::1 fe80::1 64:ff9b::808:808 2002:808:808::1 2001::1 ::ffff:10.0.0.1 2606:4700::1 224.0.0.1 \
             255.255.255.255 168.63.129.16 100.100.100.200 fd00:ec2::254 203.0.113.1",
        ),
        (prefixes(&["8.8.8.0/24", "10.1.0.0/16"]), "8.8.8.8 10.1.2.3 ::ffff:10.1.2.3", "8.8.4.4 10.2.0.1 10.1.0.1 ::1"),
        (prefixes(&["0.0.0.0/0", "::/0"]), "8.8.8.8 2a00::1", "10.0.0.1 fd00::1 127.0.0.1 169.254.169.254 1.1.1.1 ::1"),
        (
            to_name,
            "10.9.9.9 192.168.1.1 fd00::1 8.8.8.8 100.64.0.1",
            "127.0.0.1 ::1 169.254.169.254 169.254.1.1 0.0.0.0 224.0.0.1 fe80::1 64:ff9b::a00:1 255.255.255.255 \
             10.1.0.1 1.1.1.1 ::ffff:10.1.0.1 2606:4700::1",
        ),
        (to_address, "10.9.9.9 ::ffff:10.9.9.9", "10.9.9.8 8.8.8.8 127.0.0.1"),
        (to_own, "10.1.0.1 ::ffff:10.1.0.1", "1.1.1.1 10.9.9.9"),
        (Route::Private(PrivateDestination::Absent("It is gone.".into())), "", "8.8.8.8"),
    ] {
        for (list, admits) in [(good, true), (bad, false)] {
            for ip in list.split_whitespace() {
                let admitted = policy.admit(&route, &[address(ip)]);
                assert_eq!(admitted.addresses.len() == 1, admits, "{route:?} {ip} {admitted:?}");
                assert_eq!(admitted.refused.len() == 1, !admits, "{route:?} {ip} {admitted:?}");
            }
        }
    }
    // Of an answer that mixes them only the good ones are dialled, each once.
    let mixed: Vec<IpAddr> = ["127.0.0.1", "8.8.8.8", "::ffff:8.8.8.8", "127.0.0.1", "10.0.0.1"].map(address).into();
    let admitted = policy.admit(&Route::Public, &mixed);
    assert_eq!((admitted.addresses.clone(), admitted.refused.len()), (vec![address("8.8.8.8")], 2));
    assert_eq!(admitted.refusal("x.example"), None);
    let refusal = policy.admit(&Route::Public, &[address("127.0.0.1")]).refusal("x.example").unwrap();
    assert!(
        refusal.contains("x.example leads to no address that may be reached: 127.0.0.1 is a loopback"),
        "{refusal}"
    );
    assert_eq!(Admitted::default().refusal("x.example").unwrap(), "x.example has no address.");
}

#[test]
fn modes_are_read_in_any_spelling() {
    for (text, mode) in [
        ("AllowOnlyApprovedOutbound", Some(IsolationMode::AllowOnlyApprovedOutbound)),
        ("allow_only_approved_outbound", Some(IsolationMode::AllowOnlyApprovedOutbound)),
        ("allow-internet-outbound", Some(IsolationMode::AllowInternetOutbound)),
        ("ALLOWINTERNETOUTBOUND", Some(IsolationMode::AllowInternetOutbound)),
        ("disabled", Some(IsolationMode::Disabled)),
        ("Disabled", Some(IsolationMode::Disabled)),
        ("", None),
        ("enabled", None),
        ("allow only approved outbound", None),
    ] {
        assert_eq!(IsolationMode::parse(text), mode, "{text}");
    }
    for mode in
        [IsolationMode::Disabled, IsolationMode::AllowInternetOutbound, IsolationMode::AllowOnlyApprovedOutbound]
    {
        assert_eq!(IsolationMode::parse(mode.as_snake()), Some(mode));
        let wire = serde_json::to_value(mode).unwrap();
        assert_eq!(IsolationMode::parse(wire.as_str().unwrap()), Some(mode));
    }
}

fn any_name() -> impl Strategy<Value = HostName> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "ab"]), 1..5).prop_map(|labels| name(&labels.join(".")))
}

fn any_pattern() -> impl Strategy<Value = HostPattern> {
    (any::<bool>(), any_name()).prop_map(|(below, base)| match below && base.labels().count() > 1 {
        true => HostPattern::Below(base),
        false => HostPattern::Exact(base),
    })
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    let likely =
        ["127.0.0.1", "10.1.2.3", "169.254.169.254", "8.8.8.8", "::1", "fd00::1", "2a00::1", "100.64.1.1", "9.9.9.9"];
    prop_oneof![
        3 => prop::sample::select(likely.to_vec()).prop_map(address),
        2 => any::<u32>().prop_map(|bits| IpAddr::from(bits.to_be_bytes())),
        1 => any::<u128>().prop_map(|bits| IpAddr::from(bits.to_be_bytes())),
        1 => any::<u32>().prop_map(|bits| std::net::Ipv4Addr::from(bits).to_ipv6_mapped().into()),
    ]
}

fn any_target() -> impl Strategy<Value = Target> {
    let prefix = (any_address(), 0u8..=32).prop_map(|(address, length)| {
        let address = unmapped(address);
        Prefix::parse(&ipnet::IpNet::new(address, length).unwrap().trunc().to_string()).unwrap()
    });
    let to = prop_oneof![
        Just(PrivateDestination::FrontDoor),
        any_address().prop_map(PrivateDestination::Address),
        any_name().prop_map(PrivateDestination::Name),
        Just(PrivateDestination::Absent("It is gone.".into())),
    ];
    prop_oneof![
        3 => any_pattern().prop_map(Target::Host),
        1 => prop::collection::vec(prefix, 1..3).prop_map(Target::Addresses),
        1 => (prop::collection::vec(any_pattern(), 0..3), to).prop_map(|(names, to)| Target::Private { names, to }),
    ]
}

prop_compose! {
    fn any_policy()(
        mode in prop::sample::select(vec![IsolationMode::Disabled, IsolationMode::AllowInternetOutbound, IsolationMode::AllowOnlyApprovedOutbound]),
        public_disabled in prop::bool::weighted(0.2),
        audit in prop::bool::weighted(0.2),
        rules in prop::collection::vec((any_target(), prop::sample::select(vec!["443", "80,443", "*", "22"]), prop::bool::weighted(0.9)), 0..6),
        own_addresses in prop::collection::vec(any_address(), 0..3),
    ) -> EgressPolicy {
        let rules = rules.into_iter().enumerate().map(|(at, (target, ports, protocols_tcp))| {
            Rule { protocols_tcp, ..rule(&format!("r{at}"), target, ports) }
        });
        EgressPolicy { mode, public_disabled, audit, rules: rules.collect(), own_addresses }
    }
}

/// What must hold of every decision whatever the policy is.
fn check(policy: &EgressPolicy, decision: &Decision, port: Option<u16>) {
    let by_rule = decision.rule.as_ref().map(|name| policy.rules.iter().find(|rule| rule.name == *name).unwrap());
    assert!(decision.reason.len() > 20 && decision.reason.is_ascii(), "{decision:?}");
    match &decision.verdict {
        Verdict::Deny => assert!(!decision.would_deny),
        Verdict::Allow(route) => {
            if let Some(rule) = by_rule {
                assert!(
                    rule.protocols_tcp && port.is_none_or(|port| rule.ports.contains(port)),
                    "{decision:?} {rule:?}"
                );
            } else {
                assert!(*route == Route::Public && (policy.mode.is_open() || policy.audit), "{decision:?}");
                assert_eq!(decision.would_deny, !policy.mode.is_open());
            }
            if policy.public_disabled {
                assert!(matches!(route, Route::Private(_)), "{decision:?}");
            }
            let absent = matches!(route, Route::Private(PrivateDestination::Absent(_)));
            assert!(!absent, "{decision:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, rng_seed: RngSeed::Fixed(3), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_policy_and_any_question(
        policy in any_policy(),
        host in any_name(),
        ip in any_address(),
        port in prop::sample::select(vec![22u16, 80, 443, 1]),
    ) {
        let by_name = policy.name(&host, port);
        check(&policy, &by_name, Some(port));
        check(&policy, &policy.lookup(&host), None);
        prop_assert!(!by_name.is_allowed() || policy.resolvable(&host), "{by_name:?}");
        let by_address = policy.address(ip, port);
        check(&policy, &by_address, Some(port));
        // The same address in another spelling is the same.
        let mapped = match ip { IpAddr::V4(v4) => v4.to_ipv6_mapped().into(), v6 => v6 };
        prop_assert_eq!(&policy.address(mapped, port), &by_address);
        // What may be asked for by address passes the last check; and no last check passes what no rule can open.
        if let Verdict::Allow(route) = &by_address.verdict {
            prop_assert_eq!(policy.admit(route, &[ip]).addresses, vec![unmapped(ip)]);
        }
        for decision in [by_name, by_address] {
            let Verdict::Allow(route) = decision.verdict else { continue };
            if route == Route::Private(PrivateDestination::FrontDoor) || policy.admit(&route, &[ip]).addresses.is_empty() {
                continue;
            }
            let class = classify(ip);
            prop_assert!(!matches!(class, AddressClass::Metadata | AddressClass::LinkLocal | AddressClass::Unspecified | AddressClass::Multicast | AddressClass::Broadcast | AddressClass::Embedded), "{route:?} {ip}");
            prop_assert!(!policy.is_own(ip) || matches!(route, Route::Private(PrivateDestination::Address(_))), "{route:?} {ip}");
            if !matches!(route, Route::Private(_)) {
                prop_assert!(matches!(class, AddressClass::Public | AddressClass::Private | AddressClass::Shared));
                prop_assert!(class == AddressClass::Public || route != Route::Public);
            }
        }
    }

    #[test]
    fn one_more_host_rule_never_closes_anything(policy in any_policy(), pattern in any_pattern(), host in any_name(), port in prop::sample::select(vec![22u16, 80, 443])) {
        let mut wider = policy.clone();
        wider.rules.push(rule("more", Target::Host(pattern), "*"));
        prop_assert!(!policy.name(&host, port).is_allowed() || wider.name(&host, port).is_allowed());
    }
}
