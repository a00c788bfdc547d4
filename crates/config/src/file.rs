use std::{collections::BTreeMap, path::PathBuf};

use crate::{ConfigErrors, Problem, Proxy, Service, document::Document, validate::validate};

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct File {
    /// The path of the control socket (`control`). Default: `$XDG_RUNTIME_DIR/evenkeel/NAME.sock`, where NAME is the
    /// file's without its ending, or `/run/evenkeel/NAME.sock`.
    pub control: Option<PathBuf>,
    /// What is supervised, by name (`[service.NAME]`).
    pub services: BTreeMap<String, Service>,
    /// The proxies, by name (`[proxy.NAME]`).
    pub proxies: BTreeMap<String, Proxy>,
}

const KEYS: [&str; 3] = ["control", "service", "proxy"];

impl File {
    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, and as [`parse`](Self::parse).
    pub fn read(path: &std::path::Path) -> Result<Self, ConfigErrors> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let message = format!("cannot read it: {error}");
            let problem = Problem { path: String::new(), at: None, message, advice: String::new() };
            ConfigErrors { file: name.clone(), problems: vec![problem] }
        })?;
        Self::parse(&name, &text)
    }

    /// Reads `text`, which messages call `name`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong: one mistake of syntax, or else every unknown key, a value of each table that does not
    /// fit, and what does not fit together.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigErrors> {
        let document = Document::parse(name, text)?;
        document.check_keys(&KEYS);
        let file = Self {
            control: document.value("control"),
            services: document.section("service").into_iter().collect(),
            proxies: document.section("proxy").into_iter().collect(),
        };
        validate(&document, &file);
        document.finish(file)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{BackendTls, CheckKind, ClientTls, Failover, ProxyLimits, Restart, Standby, Upstream, WhenAllOut};

    fn problems(text: &str) -> Vec<String> {
        let errors = File::parse("f.toml", text).expect_err("something is wrong");
        errors.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_file_is_read_with_its_defaults() {
        let text = r#"
            control = "/run/shop.sock"
            [service.db]
            command = "db"
            [service.greeter]
            command = "greeter"
            args = ["--port", "{port}"]
            environment = { RUST_LOG = "info" }
            replicas = 3
            standby = 1
            port = 50051
            after = ["db"]
            restart = "on-failure"
            stop_timeout = "500ms"
            watchdog = "10s"
            check = { kind = "http", path = "/health", interval = "2s" }
            backoff.max = "5s"
            limits = { memory = "512MiB", files = 1024, cpu = "10s" }
            [proxy.front]
            listen = "127.0.0.1:8080"
            service = "greeter"
        "#;
        let file = File::parse("f.toml", text).unwrap();
        let greeter = &file.services["greeter"];
        assert_eq!((greeter.slots(), greeter.restart, greeter.surges()), (4, Restart::OnFailure, false));
        assert_eq!(
            (greeter.stop_timeout, greeter.start_timeout),
            (Duration::from_millis(500), Duration::from_secs(30))
        );
        assert_eq!(greeter.address(), Some("127.0.0.1:{port}"));
        assert_eq!((greeter.check().kind, greeter.check().fall), (CheckKind::Http, 3));
        assert_eq!((greeter.backoff.max, greeter.backoff.multiplier), (Duration::from_secs(5), 2.0));
        assert_eq!((greeter.limits.memory, greeter.limits.processes), (Some(512 << 20), None));
        assert_eq!(greeter.watchdog, Some(Duration::from_secs(10)));
        assert_eq!(file.services["db"].check().kind, CheckKind::None);
        assert_eq!(file.proxies["front"].upstream(), Some(Upstream::Service("greeter")));
        assert_eq!(file.control, Some(PathBuf::from("/run/shop.sock")));
    }

    #[test]
    fn failover_of_a_proxy_is_read_and_checked() {
        let proxy = "[proxy.p]\nlisten = \"127.0.0.1:1\"\ntarget = \"a:1\"\nstandby = [\"b:1\"]\n";
        let text = "[proxy.p.failover]\nfailback_delay = \"1m\"\nwhen_all_out = \"fail-fast\"\nstandby = \"cold\"\n";
        let file = File::parse("f.toml", &format!("{proxy}{text}")).unwrap();
        let expected = Failover {
            failback_delay: Some(Duration::from_secs(60)),
            when_all_out: Some(WhenAllOut::FailFast),
            standby: Some(Standby::Cold),
            ..Failover::default()
        };
        assert_eq!(file.proxies["p"].failover, Some(expected));
        for (text, expected) in [
            (
                "failback_dealy = \"1s\"",
                "unknown key `failback_dealy` in [proxy.p.failover] at line 6, column 1: did you mean `failback_delay`?",
            ),
            (
                "when_all_out = \"fail-fats\"",
                "`proxy.p.failover.when_all_out`: unknown value `fail-fats` at line 6, column 16: did you mean `fail-fast`?",
            ),
            (
                "overprovisioning_factor = 99",
                "`proxy.p.failover.overprovisioning_factor` is 99, in percent at line 6, column 1; the least is 100",
            ),
            (
                "failover_timeout = \"0s\"",
                "`proxy.p.failover.failover_timeout` is 0 at line 6, column 1; it must be above that",
            ),
            (
                "panic_threshold = 101",
                "`proxy.p.failover.panic_threshold` is 101, in percent at line 6, column 1; the most is 100",
            ),
        ] {
            assert_eq!(problems(&format!("{proxy}[proxy.p.failover]\n{text}\n")), [expected]);
        }
        let told = problems(&format!("{proxy}policy = \"failover\"\n[proxy.p.failover]\n"));
        assert!(told.len() == 1 && told[0].contains("exclude each other at line 6"), "{told:?}");
    }

    #[test]
    fn tls_towards_backends_is_read_and_checked() {
        let proxy = "[proxy.p]\nlisten = \"127.0.0.1:1\"\ntarget = \"a:1\"\n";
        let tls =
            |text: &str| File::parse("f.toml", &format!("{proxy}{text}")).unwrap().proxies["p"].backend_tls.clone();
        assert_eq!(tls(""), None);
        assert_eq!(tls("[proxy.p.backend_tls]\n"), Some(BackendTls::default()));
        let all = "ca = \"ca.pem\"\nname = \"b.test\"\ncert = \"c.pem\"\nkey = \"k.pem\"\n";
        let read = tls(&format!("[proxy.p.backend_tls]\n{all}")).unwrap();
        assert_eq!(
            (read.ca, read.key, read.name.as_deref()),
            (Some("ca.pem".into()), Some("k.pem".into()), Some("b.test"))
        );
        for (text, expected) in [
            (
                "cart = \"c.pem\"",
                "unknown key `cart` in [proxy.p.backend_tls] at line 5, column 1: did you mean `cert`?",
            ),
            ("key = \"k.pem\"", "`proxy.p.backend_tls.key` needs a `cert` at line 5, column 1; they belong together"),
        ] {
            assert_eq!(problems(&format!("{proxy}[proxy.p.backend_tls]\n{text}\n")), [expected]);
        }
    }

    #[test]
    fn limits_and_tls_towards_clients_are_read_and_checked() {
        let proxy = "[proxy.p]\nlisten = \"127.0.0.1:1\"\ntarget = \"a:1\"\n";
        let text = "workers = 2\ntls = { cert = \"c.pem\", key = \"k.pem\" }\n\
                    limits = { max_message = \"4MiB\", connections = 10, handshake_timeout = \"3s\" }\n";
        let read = File::parse("f.toml", &format!("{proxy}{text}")).unwrap().proxies["p"].clone();
        let tls = ClientTls { cert: "c.pem".into(), key: "k.pem".into(), client_ca: None };
        assert_eq!((read.workers, read.tls), (Some(2), Some(tls)));
        let expected = ProxyLimits {
            connections: Some(10),
            max_message: Some(4 << 20),
            handshake_timeout: Some(Duration::from_secs(3)),
            ..ProxyLimits::default()
        };
        assert_eq!(read.limits, expected);
        for (text, expected) in [
            ("workers = 0", "`proxy.p.workers` is 0 at line 4, column 1: it can be 1 to 1024"),
            (
                "limits = { max_mesage = 1 }",
                "unknown key `max_mesage` in [proxy.p.limits] at line 4, column 12: did you mean `max_message`?",
            ),
            (
                "limits.max_message = \"2GiB\"",
                "`proxy.p.limits.max_message` is 2147483648 at line 4, column 8: it can be 1 to 2147483647",
            ),
            (
                "limits.header_timeout = \"0s\"",
                "`proxy.p.limits.header_timeout` is 0 at line 4, column 8; it must be above that",
            ),
            ("tls = { cert = \"c.pem\" }", "missing key `key` in [proxy.p.tls] at line 4, column 1"),
        ] {
            assert_eq!(problems(&format!("{proxy}{text}\n")), [expected]);
        }
    }

    #[test]
    fn everything_that_is_wrong_is_told_in_its_order_with_its_place() {
        let text = "[service.a]\ncommand = \"a\"\nrestart = \"allways\"\n[service.b]\ncommand = 7\nlimts = {}\n\
                    [service.c]\ncommand = \"c\"\nstop_timeout = \"soon\"\nlimits = { memry = 1 }\n[proksy.x]\n";
        assert_eq!(
            problems(text),
            [
                "`service.a.restart`: unknown value `allways` at line 3, column 11: did you mean `always`?",
                "`service.b.command`: integer `7` where a string is expected at line 5, column 11",
                "unknown key `limts` in [service.b] at line 6, column 1: did you mean `limits`?",
                "`service.c.stop_timeout`: \"soon\" is no duration such as 10s or 500ms at line 9, column 16",
                "unknown key `memry` in [service.c.limits] at line 10, column 12: did you mean `memory`?",
                "unknown key `proksy` in the file at line 11, column 2: did you mean `proxy`?",
            ]
        );
    }

    #[test]
    fn values_of_any_depth_have_a_place() {
        assert_eq!(
            problems("[service.a]\ncommand = \"a\"\nport = 70000\n"),
            ["`service.a.port`: invalid value: integer `70000`, expected u16 at line 3, column 8"]
        );
        assert_eq!(
            problems("[service.a]\ncommand = \"a\"\nargs = [\"x\", 1]\n"),
            ["`service.a.args[1]`: integer `1` where a string is expected at line 3, column 14"]
        );
        assert_eq!(
            problems("[service.a]\ncommand = \"a\"\nenvironment = { A = true }\n"),
            ["`service.a.environment.A`: boolean `true` where a string is expected at line 3, column 21"]
        );
    }

    #[test]
    fn syntax_is_told_with_its_place() {
        let errors = problems("[service.a]\ncommand = \n");
        assert_eq!(errors.len(), 1);
        assert!(errors[0].contains("line 2"), "{errors:?}");
        assert_eq!(
            problems("service = 1\n"),
            ["`service` is no table of tables at line 1, column 1: write [service.NAME]"]
        );
        assert!(
            File::read("/nowhere/f.toml".as_ref()).unwrap_err().to_string().contains("/nowhere/f.toml: cannot read")
        );
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let service = |name: &str, more: &str| format!("[service.{name}]\ncommand = \"x\"\n{more}\n");
        let proxy = |name: &str, port: u16, service: &str| {
            format!("[proxy.{name}]\nlisten = \"127.0.0.1:{port}\"\nservice = \"{service}\"\n")
        };
        let cycle = [service("a", "after = [\"b\"]"), service("b", "after = [\"c\"]"), service("c", "after = [\"b\"]")];
        assert_eq!(
            problems(&cycle.concat()),
            ["services wait for each other: b after c after b at line 6, column 1; take one `after` out"]
        );
        for (text, expected) in [
            (service("a", "after = [\"bb\"]") + &service("b", ""), "no service of this file: `bb`"),
            (service("a", "args = [\"{port}\"]"), "which has no `port`"),
            (service("a", "port = 5000\nreplicas = 2") + &service("b", "port = 5001"), "which a replica of `a` has"),
            (service("a", "port = 65535\nreplicas = 2"), "no port for each replica"),
            (service("a", "replicas = 0"), "the least is 1"),
            (service("a", "watchdog = \"0s\""), "`service.a.watchdog` is 0"),
            (service("a", "start_timeout = \"0s\""), "`service.a.start_timeout` is 0"),
            (service("a", "backoff.initial = \"0s\""), "without a pause"),
            (service("a", "stop_timeout = \"4000000000000000h\""), "is too long"),
            (service("a", "check = { kind = \"tcp\", address = \"127.0.0.1:{port}\" }"), "which has no `port`"),
            (
                service("a", "check.address = \"localhost:1\""),
                "`service.a.check.address`: \"localhost:1\" is no address",
            ),
            (service("a", "port = 1\nreplicas = 2") + &proxy("p", 2, "a"), "where a replica of `a` takes calls"),
            (service("a", "port = 0") + &proxy("p", 2, "a") + &proxy("q", 2, "a"), "where [proxy.p] takes calls"),
            (service("\"a b\"", ""), "is no name for a service"),
            (service("a", "check = {}"), "nowhere to ask"),
            (service("a", "address = \"localhost:{port}\"\nport = 1"), "is no address"),
            (service("a", "") + "[proxy.p]\nlisten = \"127.0.0.1:1\"\nservice = \"a\"\n", "takes no calls"),
            (service("a", "") + "[proxy.p]\nlisten = \"127.0.0.1:1\"\nservice = \"aa\"\n", "did you mean `a`?"),
            (service("a", "") + "[proxy.p]\nlisten = \"127.0.0.1:1\"\n", "one of `service` and `target`"),
        ] {
            let told = problems(&text);
            assert!(told.len() == 1 && told[0].contains(expected), "{told:?} for {text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in r##"([a-z\[\]{}="#.,\n 0-9é]|service|\[service.a\]\ncommand|proxy){0,60}"##) {
            let _ = File::parse("f.toml", &text);
        }
    }
}
