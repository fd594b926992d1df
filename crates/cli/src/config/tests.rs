//! What each setting accepts, and what it says about the rest.

use clap::{CommandFactory as _, FromArgMatches as _};
use ipnet::IpNet;

use super::{
    help::{names, unknown},
    *,
};

fn complete() -> Settings {
    Settings {
        database_url: Some("postgres://user:hunter2@localhost/posthaste".into()),
        jwt_secret: Some("0123456789abcdef, second secret of tokens".into()),
        main_secret: Some("x".repeat(32)),
        ..Settings::default()
    }
}

fn refusal(change: impl FnOnce(&mut Settings)) -> String {
    let mut settings = complete();
    change(&mut settings);
    settings.config(Roles::Both).expect_err("a refusal").to_string()
}

#[test]
fn the_defaults_are_those_of_the_table() {
    let config = complete().config(Roles::Both).expect("a configuration");
    assert_eq!(config.listen.to_string(), "127.0.0.1:8071");
    assert_eq!(config.database.max_connections, 16);
    assert_eq!(complete().config(Roles::Worker).expect("a configuration").listen.to_string(), "127.0.0.1:0");
    assert_eq!(config.jwt_secrets, ["0123456789abcdef", "second secret of tokens"]);
    assert_eq!((config.max_payload, config.database.policy, config.public_url), (1024 * 1024, Policy::default(), None));
    assert_eq!((config.worker.egress_ca, config.worker.egress_proxy), (worker::Authorities::default(), None));
    assert_eq!((config.worker.egress_allow, config.is_https_only), (vec![], false));
    let waits: Vec<_> = ["5s", "5m", "30m", "2h", "5h", "10h", "10h"].iter().filter_map(|wait| duration(wait)).collect();
    assert_eq!(config.worker.schedule.0, waits);
    assert_eq!((config.worker.request_timeout, config.worker.retention.as_secs()), (Duration::from_secs(15), 90 * 86_400));
    assert_eq!(config.worker.signature_headers, SignatureHeaders::Both);
    assert_eq!(complete().log_format().expect("a format"), LogFormat::Text);
    assert_eq!(complete().data_dir(), PathBuf::from("./posthaste-data"));
}

#[test]
fn every_setting_is_read() {
    let text = |text: &str| Some(text.to_owned());
    let settings = Settings {
        database_url: text("postgres://user@a:5432,b:5433/posthaste?target_session_attrs=primary"),
        database_connections: text("40"),
        listen: text("0.0.0.0:80"),
        metrics_listen: text("0.0.0.0:81"),
        max_client_connections: text("500"),
        main_secret_previous: text(&"y".repeat(32)),
        egress_allow: text("10.0.0.0/8, ::1"),
        egress_proxy: text("socks5://user:hunter2@[fd00::1]"),
        endpoint_https_only: text("true"),
        retry_schedule: text("250ms, 1m 30s"),
        request_timeout: text("2s"),
        idempotency_policy: text("svix"),
        idempotency_ttl: text("2h"),
        idempotency_wait: text("0"),
        retention: text("30days"),
        max_payload: text("2 MB"),
        max_body_memory: text("8 MB"),
        public_url: text("https://hooks.example.com/base/"),
        signature_headers: text("svix"),
        log: text("warn,worker=debug"),
        log_format: text("json"),
        ..complete()
    };
    let config = settings.config(Roles::Both).expect("a configuration");
    assert_eq!(config.listen.to_string(), "0.0.0.0:80");
    assert_eq!(config.metrics_listen.map(|address| address.to_string()).as_deref(), Some("0.0.0.0:81"));
    assert_eq!(config.max_client_connections, Some(500));
    assert_eq!((config.database.url, config.database.max_connections), (settings.database_url.clone().expect("a URL"), 40));
    assert_eq!(config.database.previous_main_secret, Some("y".repeat(32)));
    assert_eq!(config.worker.egress_allow.iter().map(IpNet::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "::1/128"]);
    let proxy = format!("{:?}", config.worker.egress_proxy.as_ref().expect("a proxy"));
    assert!(proxy.contains("fd00::1") && proxy.contains("1080") && !proxy.contains("hunter2"), "{proxy}");
    assert!(config.is_https_only);
    assert_eq!(config.worker.schedule.0, [Duration::from_millis(250), Duration::from_secs(90)]);
    assert_eq!(config.worker.request_timeout, Duration::from_secs(2));
    assert_eq!(config.database.policy, Policy { ttl: Duration::from_hours(2), wait: Duration::ZERO, ..Policy::svix() });
    assert_eq!(config.worker.retention, Duration::from_hours(30 * 24));
    assert_eq!((config.max_payload, config.max_body_memory), (2_000_000, 8_000_000));
    assert_eq!(config.public_url.as_deref(), Some("https://hooks.example.com/base"));
    assert_eq!(config.worker.signature_headers, SignatureHeaders::Svix);
    assert_eq!(settings.log_format().expect("a format"), LogFormat::Json);
    assert_eq!(settings.log_filter().expect("a filter").to_string(), "worker=debug,warn");
}

#[test]
fn a_bad_value_is_named_with_its_remedy_and_never_shown_if_it_is_a_secret() {
    type Change = fn(&mut Settings);
    let cases: [(&str, Change); 26] = [
        ("POSTHASTE_DATABASE_URL", |s| s.database_url = Some("mysql://user:hunter2@localhost/x".into())),
        ("POSTHASTE_DATABASE_URL", |s| s.database_url = Some("postgres://user:hunter2@a:5432,b:x/y".into())),
        ("POSTHASTE_DATABASE_URL", |s| {
            s.database_url = Some("postgres://user:hunter2@a,b/x?target_session_attrs=standby".into());
        }),
        ("POSTHASTE_DATABASE_CONNECTIONS", |s| s.database_connections = Some("1".into())),
        ("POSTHASTE_DATABASE_CONNECTIONS", |s| s.database_connections = Some("many".into())),
        ("POSTHASTE_LISTEN", |s| s.listen = Some("localhost".into())),
        ("POSTHASTE_JWT_SECRET", |s| s.jwt_secret = Some("0123456789abcdef,hunter2".into())),
        ("POSTHASTE_MAIN_SECRET", |s| s.main_secret = Some("hunter2".into())),
        ("POSTHASTE_MAIN_SECRET_PREVIOUS", |s| s.main_secret_previous = Some("hunter2".into())),
        ("POSTHASTE_EGRESS_ALLOW", |s| s.egress_allow = Some("10.0.0.0/8,localhost".into())),
        ("POSTHASTE_EGRESS_CA", |s| s.egress_ca = Some("/nowhere/ca.pem".into())),
        ("POSTHASTE_EGRESS_CA", |s| s.egress_ca = Some(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into())),
        ("POSTHASTE_EGRESS_PROXY", |s| s.egress_proxy = Some("ftp://user:hunter2@proxy.example.com".into())),
        ("POSTHASTE_EGRESS_PROXY", |s| s.egress_proxy = Some("hunter2.example.com:3128".into())),
        ("POSTHASTE_EGRESS_PROXY", |s| s.egress_proxy = Some(format!("http://user:{}@proxy", "hunter2".repeat(40)))),
        ("POSTHASTE_ENDPOINT_HTTPS_ONLY", |s| s.endpoint_https_only = Some("yes".into())),
        ("POSTHASTE_RETRY_SCHEDULE", |s| s.retry_schedule = Some("5s,,5m".into())),
        ("POSTHASTE_REQUEST_TIMEOUT", |s| s.request_timeout = Some("15".into())),
        ("POSTHASTE_IDEMPOTENCY_POLICY", |s| s.idempotency_policy = Some("Svix".into())),
        ("POSTHASTE_IDEMPOTENCY_TTL", |s| s.idempotency_ttl = Some("8d".into())),
        ("POSTHASTE_IDEMPOTENCY_WAIT", |s| s.idempotency_wait = Some("1h".into())),
        ("POSTHASTE_RETENTION", |s| s.retention = Some("1h".into())),
        ("POSTHASTE_MAX_PAYLOAD", |s| s.max_payload = Some("1TiB".into())),
        ("POSTHASTE_MAX_BODY_MEMORY", |s| s.max_body_memory = Some("lots".into())),
        ("POSTHASTE_PUBLIC_URL", |s| s.public_url = Some("hooks.example.com".into())),
        ("POSTHASTE_SIGNATURE_HEADERS", |s| s.signature_headers = Some("none".into())),
    ];
    for (variable, change) in cases {
        let refusal = refusal(change);
        assert!(refusal.starts_with(&format!("{variable} ")) && refusal.contains(": set it to "), "{refusal}");
        assert!(!refusal.contains("hunter2") && refusal.lines().count() == 1, "{refusal}");
    }
    assert!(refusal(|s| s.max_body_memory = Some("1MiB".into())).contains("POSTHASTE_MAX_PAYLOAD"));
    assert!(refusal(|s| s.retention = Some("2d".into())).contains("POSTHASTE_RETRY_SCHEDULE"));
    let attributes = refusal(|s| s.database_url = Some("postgres://a,b/x?target_session_attrs=standby".into()));
    assert!(attributes.contains("target_session_attrs"), "{attributes}");
}

#[test]
fn what_is_not_there_yet_is_refused_by_name() {
    assert!(refusal(|s| s.otlp_endpoint = Some("http://localhost:4317".into())).contains("POSTHASTE_OTLP_ENDPOINT"));
}

#[test]
fn what_is_missing_is_named_all_at_once() {
    let nothing = Settings::default().config(Roles::Both).expect_err("a refusal").to_string();
    for word in ["POSTHASTE_DATABASE_URL", "POSTHASTE_MAIN_SECRET", "POSTHASTE_JWT_SECRET", "openssl rand -base64 32"] {
        assert!(nothing.contains(word), "{nothing}");
    }
    let empty = refusal(|s| s.jwt_secret = Some(String::new()));
    assert!(empty.contains("POSTHASTE_JWT_SECRET") && !empty.contains("POSTHASTE_MAIN_SECRET"), "{empty}");
    let worker = Settings { jwt_secret: None, ..complete() }.config(Roles::Worker);
    assert!(worker.is_ok(), "a worker reads no tokens");
}

#[test]
fn a_configuration_does_not_show_its_secrets() {
    let settings = Settings { egress_proxy: Some("http://user:hunter2@proxy.example.com:3128/".into()), ..complete() };
    let shown = format!("{:?}", settings.config(Roles::Both).expect("a configuration"));
    assert!(shown.contains("proxy.example.com"), "{shown}");
    assert!(!shown.contains("hunter2") && !shown.contains("0123456789abcdef") && !shown.contains("xxxx"), "{shown}");
}

#[test]
fn a_variable_that_nobody_reads_is_reported_with_its_neighbour() {
    let known: Vec<_> = names(&crate::Cli::command()).map(|(_, variable)| variable).collect();
    assert_eq!(known.len(), 26, "the table of settings: {known:?}");
    let set = ["POSTHASTE_LISTN", "POSTHASTE_LISTEN", "PATH"].map(str::to_owned).into_iter();
    let reports = unknown(&known, set);
    assert_eq!(reports, ["POSTHASTE_LISTN is not a setting and has no effect: did you mean POSTHASTE_LISTEN?"]);
}

/// The long help of a command; of the program if none is named.
fn help(name: Option<&str>) -> String {
    let mut command = with_settings(crate::Cli::command());
    command.build();
    let command = if let Some(name) = name { command.find_subcommand_mut(name).expect("a command") } else { &mut command };
    command.render_long_help().to_string()
}

#[test]
fn help_names_every_variable_and_shows_no_value() {
    let help = help(None);
    for (_, variable) in names(&crate::Cli::command()) {
        assert!(help.contains(&format!("[env: {variable}]")), "{variable} is not in the help: {help}");
    }
}

#[test]
fn a_command_shows_the_settings_that_it_uses_and_takes_them_all() {
    let of = |name: &str| {
        let help = help(Some(name));
        let cli = crate::Cli::command();
        let shown = names(&cli).filter(|(_, variable)| help.contains(&format!("[env: {variable}]")));
        shown.map(|(id, _)| id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(of("token"), ["data_dir", "jwt_secret"]);
    assert_eq!(of("openapi"), [""; 0]);
    assert_eq!(of("healthcheck"), ["data_dir", "listen"]);
    assert_eq!(of("migrate"), ["database_url", "main_secret", "log", "log_format"]);
    assert_eq!(of("dev").len(), names(&crate::Cli::command()).count());
    assert!(!of("serve").contains(&"data_dir".to_owned()) && of("serve").len() + 1 == of("dev").len());
    assert!(!of("worker").contains(&"jwt_secret".to_owned()) && of("worker").contains(&"retry_schedule".to_owned()));
    assert!(!of("api").contains(&"retry_schedule".to_owned()) && of("api").contains(&"jwt_secret".to_owned()));
    for line in ["posthaste --listen=0.0.0.0:80 token", "posthaste token --listen=0.0.0.0:80", "posthaste openapi --listen=0.0.0.0:80"] {
        let matches = with_settings(crate::Cli::command()).try_get_matches_from(line.split(' ')).expect("it is accepted");
        let settings = Settings::from_arg_matches(&matches).expect("settings");
        assert_eq!(settings.listen.as_deref(), Some("0.0.0.0:80"), "{line}");
    }
}

#[test]
fn what_is_empty_is_not_set() {
    let command = Settings::augment_args(clap::Command::new("posthaste"));
    let flags: Vec<_> = command.get_arguments().filter_map(|argument| argument.get_long().map(str::to_owned)).collect();
    assert!(flags.len() > 20, "{flags:?}");
    for flag in flags {
        let arguments = ["posthaste".to_owned(), format!("--{flag}"), String::new()];
        let matches = command.clone().try_get_matches_from(arguments).unwrap_or_else(|error| panic!("--{flag}: {error}"));
        let given = Settings::from_arg_matches(&matches).expect("settings");
        let complete = complete();
        let settings = Settings {
            database_url: given.database_url.clone().filter(|text| !text.is_empty()).or(complete.database_url),
            jwt_secret: given.jwt_secret.clone().filter(|text| !text.is_empty()).or(complete.jwt_secret),
            main_secret: given.main_secret.clone().filter(|text| !text.is_empty()).or(complete.main_secret),
            ..given
        };
        settings.config(Roles::Both).unwrap_or_else(|error| panic!("--{flag}: {error}"));
        assert_eq!(settings.data_dir(), PathBuf::from(DEFAULT_DATA_DIR));
    }
}
