use std::fs;

use super::*;

fn with_file(text: &str) -> (tempfile::TempDir, Inputs) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("levada.toml");
    fs::write(&path, text).unwrap();
    let inputs = Inputs {
        file: Some(path),
        ..Inputs::default()
    };
    (dir, inputs)
}

/// What is said about a file, with the file named `F`.
fn complaint(text: &str) -> String {
    let (_dir, inputs) = with_file(text);
    let path = inputs.file.clone().unwrap().display().to_string();
    load(inputs).unwrap_err().to_string().replace(&path, "F")
}

fn variable(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn a_flag_goes_before_a_variable_before_the_file_before_the_default() {
    let (_dir, mut inputs) = with_file(
        "drain-timeout = 'PT1S'\ndata_dir = '/file'\nleave = true\n[admin]\nlisten = '127.0.0.1:1'\n",
    );
    inputs.variables = vec![
        variable("LEVADA_DATA_DIR", "/variable"),
        variable("LEVADA_ADMIN_LISTEN", "127.0.0.1:2"),
    ];
    inputs.flags = vec![("admin.listen", Raw::Text("127.0.0.1:3".into()))];
    let path = inputs.file.clone().unwrap();
    let loaded = load(inputs).unwrap();
    let config = &loaded.config;
    assert_eq!(config.listen, Config::default().listen);
    assert_eq!(config.drain_timeout, Duration::from_secs(1));
    assert!(config.leave);
    assert_eq!(config.data_dir, PathBuf::from("/variable"));
    assert_eq!(config.admin.listen.port(), 3);
    let origin = |key| loaded.origin(key);
    assert_eq!(origin("listen"), Source::Default);
    assert_eq!(
        origin("drain-timeout"),
        Source::File {
            path: path.clone(),
            line: 1
        }
    );
    assert_eq!(origin("leave"), Source::File { path, line: 3 });
    assert_eq!(
        origin("data-dir"),
        Source::Variable("LEVADA_DATA_DIR".into())
    );
    assert_eq!(origin("admin.listen"), Source::Flag("admin-listen".into()));
}

#[test]
fn what_is_in_force_is_shown_with_its_origin_and_without_secrets() {
    let (_dir, mut inputs) = with_file("[kafka.properties]\n\"sasl.username\" = 'me'\n");
    inputs.variables = vec![
        variable(
            "LEVADA_KAFKA_PROPERTIES",
            "sasl.password=pa=ss\n\nssl.ca.location=/ca",
        ),
        variable("LEVADA_ADMIN_TOKEN", "t0ken"),
        variable("LEVADA_JOURNAL_STORE", "postgres"),
        variable("LEVADA_JOURNAL_URL", "postgres://u:t0ken@db/levada"),
    ];
    let path = inputs.file.clone().unwrap().display().to_string();
    let loaded = load(inputs).unwrap();
    assert_eq!(loaded.config.kafka.properties["sasl.password"], "pa=ss");
    let shown = in_force(&loaded).replace(&path, "F");
    let line = |start: &str| {
        let line = shown.lines().find(|line| line.starts_with(start));
        let line = line.unwrap_or_else(|| panic!("no {start} in\n{shown}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("listen"), "listen = \"127.0.0.1:8080\" # default");
    assert_eq!(
        line("\"sasl.username\""),
        "\"sasl.username\" = \"me\" # F:2"
    );
    let masked = "\"sasl.password\" = \"********\" # LEVADA_KAFKA_PROPERTIES";
    assert_eq!(line("\"sasl.password\""), masked);
    assert_eq!(line("token"), "token = \"********\" # LEVADA_ADMIN_TOKEN");
    assert_eq!(line("url"), "url = \"********\" # LEVADA_JOURNAL_URL");
    assert!(line("\"ssl.ca.location\"").contains("/ca"));
    assert!(!shown.contains("t0ken") && !format!("{loaded:?}").contains("t0ken"));
    toml::from_str::<toml::Table>(&shown).expect("it is TOML");
}

#[test]
fn what_is_wrong_is_told_with_file_line_and_what_would_be_right() {
    for (text, wanted) in [
        (
            "\nlistne = 'x'\n",
            "F:2: there is no option listne; did you mean listen?",
        ),
        (
            "[admin]\ntokn = 'x'\n",
            "F:2: there is no option admin.tokn; did you mean admin.token?",
        ),
        (
            "drain_timout = 'PT1S'",
            "F:1: there is no option drain-timout; did you mean drain-timeout?",
        ),
        ("[zebra]\nx = 1", "F:1: there is no option zebra"),
        ("admin = 3", "F:1: there is no option admin"),
        (
            "listen = 8080",
            "F:1: listen: expected text in quotes, not a number",
        ),
        ("drain-timeout = '20'", "F:1: drain-timeout: \"20\": "),
        (
            "max-event-bytes = -1",
            "F:1: max-event-bytes: -1 is less than zero",
        ),
        (
            "roles = ['boss']",
            "F:1: roles: \"boss\" is not one of receiver, dispatcher, admin",
        ),
        (
            "leave = 1",
            "F:1: leave: expected true or false, not a number",
        ),
        (
            "data-dir = 'a'\ndata_dir = 'b'",
            "F:2: data-dir is given twice",
        ),
        ("a = \n", "F:1: not TOML: "),
        (
            "[kafka.properties]\nsasl.username = 'x'",
            "names with dots need quotes",
        ),
        (
            "[log]\nformat = 'xml'",
            "F:2: log.format: \"xml\" is not one of text, json",
        ),
    ] {
        let said = complaint(text);
        assert!(
            said.starts_with(wanted) || said.contains(wanted),
            "{text:?}: {said}"
        );
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let said = complaint("listne = 'x'\nleave = 1\n");
    assert_eq!(said.lines().count(), 2, "{said}");
}

#[test]
fn options_that_do_not_fit_together_are_refused() {
    for (text, wanted) in [
        ("roles = ['receiver']", "set bootstrap-servers"),
        ("listen = '127.0.0.1:8081'", "different ports"),
        ("[admin]\nlisten = '0.0.0.0:8081'", "--admin-open"),
        ("max-connections = 0", "max-connections is zero"),
        (
            "roles = ['admin']\nbootstrap-servers = ['a:9092']",
            "set journal.store to postgres",
        ),
        (
            "[journal]\nstore = 'postgres'",
            "journal.url is missing: best set by the variable LEVADA_JOURNAL_URL",
        ),
        (
            "[journal]\nurl = 'postgres://u:p@db/levada'",
            "journal.store is sqlite",
        ),
        (
            "[journal]\nstore = 'postgres'\nurl = 'db:5432'",
            "journal.url: it does not begin with postgres://",
        ),
        (
            "[names]\ngroup = 'g.{namespace}.{channel}'",
            "names.group: template \"g.{namespace}.{channel}\" cannot be used: {uid} is missing",
        ),
        (
            "[names]\nchannel-topic = '{namespace}/{name}'",
            "names.channel-topic: template \"{namespace}/{name}\" cannot be used: '/' is not",
        ),
        (
            "[names]\nchannel-topic = '{namespace}.{name}.{uid}'",
            "and {namespace} {name}",
        ),
    ] {
        let said = complaint(text);
        assert!(said.contains(wanted), "{text:?}: {said}");
    }
    for text in [
        "roles = ['receiver']\nbootstrap-servers = ['a:9092']",
        "[admin]\nlisten = '0.0.0.0:8081'\nopen = true",
        "[admin]\nlisten = '0.0.0.0:8081'\ntoken = 'x'",
        "listen = '127.0.0.1:0'\n[admin]\nlisten = '127.0.0.1:0'",
        "roles = ['admin']\nbootstrap-servers = ['a:9092']\n[journal]\nstore = 'postgres'\nurl = 'postgres://u:p@db/l'",
        "[journal]\nstore = 'off'\nurl = 'postgres://u:p@db/l'",
    ] {
        let (_dir, inputs) = with_file(text);
        load(inputs).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    }
}

#[test]
fn sizes_have_units_and_lists_have_commas() {
    let inputs = Inputs {
        variables: vec![
            variable("LEVADA_MAX_EVENT_BYTES", "64KiB"),
            variable("LEVADA_BOOTSTRAP_SERVERS", "a:9092, b:9092,"),
            variable("LEVADA_MEMORY_FETCH_BYTES", "1048576"),
        ],
        flags: vec![("manifests", Raw::List(vec!["a".into(), "b,c".into()]))],
        ..Inputs::default()
    };
    let config = load(inputs).unwrap().config;
    assert_eq!(config.ingress.max_event_bytes, 65_536);
    assert_eq!(config.bootstrap_servers, ["a:9092", "b:9092"]);
    assert_eq!(config.memory.fetch_bytes, 1_048_576);
    assert_eq!(config.manifests.len(), 3);
    for bad in ["64 XB", "-1", "", "99999999999GiB"] {
        let inputs = Inputs {
            variables: vec![variable("LEVADA_MAX_EVENT_BYTES", bad)],
            ..Inputs::default()
        };
        let said = load(inputs).unwrap_err().to_string();
        assert!(
            said.starts_with("LEVADA_MAX_EVENT_BYTES: max-event-bytes:"),
            "{said}"
        );
    }
}

#[test]
fn an_unknown_variable_is_told_unless_kubernetes_set_it() {
    let inputs = Inputs {
        variables: vec![
            variable("LEVADA_LISTNE", "x"),
            variable("LEVADA_PORT", "tcp://10.0.0.1:80"),
            variable("LEVADA_SERVICE_HOST", "10.0.0.1"),
            variable("LEVADA_URL", "http://x"),
            variable("PATH", "x"),
        ],
        ..Inputs::default()
    };
    let warnings = load(inputs).unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("LEVADA_LISTNE"));
}

#[test]
fn the_default_file_is_the_generated_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/levada.toml");
    let kept = fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == default_file(),
        "write it anew: levada serve --print-default-config > config/levada.toml"
    );
}

#[test]
fn the_default_file_says_what_the_defaults_are() {
    let (_dir, inputs) = with_file(&default_file());
    let loaded = load(inputs).unwrap();
    assert_eq!(loaded.config, Config::default());
    let unnamed = OPTIONS.iter().filter(|option| {
        let table = option.key == "kafka.properties";
        !table && loaded.origin(option.key) == Source::Default
    });
    assert_eq!(unnamed.count(), 0);
}

#[test]
fn keys_flags_and_variables_are_unique() {
    let mut names: Vec<_> = OPTIONS.iter().map(OptionDef::variable).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), OPTIONS.len());
}
