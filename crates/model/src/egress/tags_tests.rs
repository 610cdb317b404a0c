use serde_json::json;

use super::*;

fn tags() -> ServiceTags {
    let file = json!({
        "Corp": {"prefixes": ["10.1.0.0/16", "fd00:1::/64", "9.9.9.9"], "names": ["*.corp.example"], "ports": "443,5432"},
        "Lab": {"names": ["lab.example"], "ports": 8080},
        "storage": {"prefixes": ["10.2.0.0/16"]},
    });
    ServiceTags::from_value(&file).unwrap()
}

#[test]
fn what_a_service_tag_rule_opens() {
    let tags = tags();
    let no: &[String] = &[];
    let own = ["10.7.0.0/16".to_owned()];
    for (tag, protocol, ports, prefixes, expected) in [
        ("Corp", "TCP", None, no, "10.1.0.0/16 fd00:1::/64 9.9.9.9/32@443,5432 *.corp.example@443,5432"),
        ("corp", "*", Some("80"), no, "10.1.0.0/16 fd00:1::/64 9.9.9.9/32@80 *.corp.example@80"),
        ("Lab", "tcp", Some(" "), no, "lab.example@8080"),
        ("Corp", "UDP", None, no, "10.1.0.0/16 fd00:1::/64 9.9.9.9/32@443,5432 udp *.corp.example@443,5432 udp"),
        // Prefixes on the rule take the place of the table's.
        ("Corp", "TCP", Some("22"), &own, "10.7.0.0/16@22"),
        ("Unheard", "TCP", None, &own, "10.7.0.0/16@80,443"),
        // The operator's own table of a built-in tag, also for one region of it.
        ("Storage.westeurope", "TCP", None, no, "10.2.0.0/16@80,443"),
        // The platform's own services need no rule.
        ("AzureMachineLearning", "TCP", None, no, ""),
        ("azureactivedirectory", "TCP", Some("443"), no, ""),
        ("AzureFrontDoor.FirstParty", "TCP", Some("443"), no, ""),
    ] {
        let rules = tags.rules("r", tag, protocol, ports, prefixes).unwrap();
        let shown = rules.iter().map(|rule| {
            let what = match &rule.target {
                Target::Addresses(prefixes) => prefixes.iter().map(Prefix::to_string).collect::<Vec<_>>().join(" "),
                Target::Host(pattern) => pattern.to_string(),
                Target::Private { .. } => "private".to_owned(),
            };
            assert_eq!(rule.name, "r");
            format!("{what}@{}{}", rule.ports, if rule.protocols_tcp { "" } else { " udp" })
        });
        assert_eq!(shown.collect::<Vec<_>>().join(" "), expected, "{tag}");
    }
    assert!(tags.get("AzureMachineLearning").unwrap().platform && !tags.get("STORAGE").unwrap().platform);
    for (tag, protocol, ports, part) in [
        ("Nope", "TCP", None, "'Nope' is not known. Known are: "),
        ("Nope", "TCP", None, "Corp"),
        ("Corp", "SCTP", None, "'SCTP' is not known"),
        ("Corp", "TCP", Some("0"), "not a port"),
    ] {
        let message = tags.rules("r", tag, protocol, ports, no).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn an_unknown_tag_comes_with_the_file_that_would_add_it() {
    for (tag, name) in [("DataFactory", "DataFactory"), ("AzureCloud.eastus2", "AzureCloud.eastus2"), ("a\"b", "NAME")]
    {
        let TagError::Unknown { example, .. } = tags().rules("r", tag, "TCP", None, &[]).unwrap_err() else {
            panic!("{tag} is known");
        };
        let added = ServiceTags::parse(&example).unwrap_or_else(|error| panic!("{example}: {error}"));
        assert_eq!(added.rules("r", name, "TCP", None, &[]).unwrap().len(), 2, "an address rule and a host rule");
    }
}

#[test]
fn what_no_tag_may_cover() {
    for (prefix, what) in [
        ("127.0.0.0/8", "loopback"),
        ("127.0.0.5", "loopback"),
        ("126.0.0.0/7", "loopback"),
        ("::1", "loopback"),
        ("169.254.0.0/16", "metadata"),
        ("169.254.169.254", "metadata"),
        ("169.254.7.0/24", "link-local"),
        ("168.63.0.0/16", "metadata"),
        ("168.63.129.16", "metadata"),
        ("100.64.0.0/10", "metadata"),
        ("fd00:ec2::/32", "metadata"),
        ("fe80::/64", "link-local"),
        ("0.0.0.0/0", "everything"),
        ("::/0", "everything"),
        ("0.0.0.0/8", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("240.0.0.0/4", "reserved"),
        ("ff02::1", "multicast"),
        ("64:ff9b::/96", "IPv4"),
        ("2002:7f00::/24", "IPv4"),
        ("2000::/3", "IPv4"),
        ("198.18.0.0/15", "benchmark"),
        ("198.18.5.5", "benchmark"),
    ] {
        let message = ServiceTags::from_value(&json!({"T": {"prefixes": [prefix]}})).unwrap_err().to_string();
        assert!(message.contains("which no tag may open") && message.contains(what), "{prefix}: {message}");
        let on_rule = tags().rules("r", "Corp", "TCP", None, &[prefix.to_owned()]).unwrap_err().to_string();
        assert!(on_rule.contains(what), "{prefix}: {on_rule}");
    }
    for fine in ["8.8.8.0/24", "10.0.0.0/8", "100.64.0.0/16", "8.0.0.0/6", "fd00:1::/48", "2a00::/12", "192.168.0.0/16"]
    {
        assert!(ServiceTags::from_value(&json!({"T": {"prefixes": [fine]}})).is_ok(), "{fine}");
    }
}

#[test]
fn what_is_no_table_of_tags() {
    assert_eq!(ServiceTags::from_value(&json!(null)), Ok(ServiceTags::builtin()));
    assert_eq!(ServiceTags::parse("{}"), Ok(ServiceTags::default()));
    for (file, part) in [
        (json!([]), "not a table"),
        (json!({"T": []}), "not a table"),
        (json!({"T": {"prefix": []}}), "prefixes"),
        (json!({"T": {"prefixes": [1]}}), "not a table"),
        (json!({"T": {"prefixes": ["10.0.0.1/8"]}}), "10.0.0.0/8"),
        (json!({"T": {"names": ["*.com"]}}), "anybody"),
        (json!({"T": {"ports": "x"}}), "not a port"),
        (json!({"T": {"ports": {}}}), "not a port"),
        (json!({"": {}}), "not a tag's name"),
        (json!({"a\nb": {}}), "not a tag's name"),
        (json!({"T": {"prefixes": vec!["1.2.3.4"; 10_001]}}), "too many"),
    ] {
        let message = ServiceTags::from_value(&file).unwrap_err().to_string();
        assert!(message.contains(part) && !message.contains('\n'), "{file}: {message}");
    }
    assert!(ServiceTags::parse("{").is_err());
}
