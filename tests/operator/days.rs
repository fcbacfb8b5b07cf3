//! The operator's view of the real program: metrics, health, alerts. The process ends when one of
//! its threads ends.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::appliance::{Appliance, KEY, call, key, submission, wait_for};
use batchkeeper::domain::signature::{Key, Message, ReceivedWebhook, sign, webhook_secret};
use rusqlite::Connection;
use serde_json::{Value, json};

fn sql(appliance: &Appliance) -> Connection {
    let connection = Connection::open(appliance.database()).unwrap();
    connection.busy_timeout(Duration::from_mins(1)).unwrap();
    connection
}

fn metrics(appliance: &Appliance) -> String {
    let answer = call("GET", &format!("{}/metrics", appliance.ops), &[], b"");
    assert_eq!(answer.status, 200);
    let media_type = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(answer.header("content-type"), Some(media_type));
    String::from_utf8(answer.body).unwrap()
}

/// The value of one sample.
fn metric(page: &str, name: &str) -> Option<u64> {
    let line = page.lines().find_map(|line| {
        let rest = line.strip_prefix("batchkeeper_")?.strip_prefix(name)?;
        rest.strip_prefix(' ')
    });
    line.map(|value| value.parse().unwrap())
}

#[test]
fn the_metrics_show_the_current_state() {
    let appliance = Appliance::start();
    let job = appliance.in_one_batch(|| appliance.job(&appliance.lots(3), &["en", "de"]));
    appliance.results(&job);
    appliance.wait_until_ingested();
    let page = wait_for("the metrics of a finished job", || {
        let page = metrics(&appliance);
        (metric(&page, "jobs{status=\"completed\"}") == Some(1)).then_some(page)
    });
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("batchkeeper_"), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = name.split('{').next().unwrap();
        let parts = ["_bucket", "_sum", "_count"];
        let base = parts.iter().find_map(|part| name.strip_suffix(part));
        let (family, kind) = match base {
            Some(base) => (base, "histogram"),
            None if name.ends_with("_total") => (name, "counter"),
            None => (name, "gauge"),
        };
        let typed = format!("# TYPE {family} {kind}\n");
        assert_eq!(page.matches(&typed).count(), 1, "{line}");
    }
    checked_by_promtool(&["check", "metrics"], &page);
    // The sandbox runs on this machine's clock, and sends whole seconds.
    let skew = metric(&page, "clock_skew_seconds");
    assert!(skew.is_some_and(|skew| skew <= 1), "{skew:?}");
    assert_contrib_metrics_exist(&page);
    assert_eq!(metric(&page, "batches{state=\"ingested\"}"), Some(2));
    assert_eq!(metric(&page, "jobs{status=\"failed\"}"), Some(0));
    assert_eq!(metric(&page, "requests{state=\"waiting\"}"), Some(0));
    assert_eq!(metric(&page, "storage_ok"), Some(1));
    assert!(metric(&page, "database_bytes") > Some(0));
    // The counters since the start: three lots with a description and a translation each.
    for (name, number) in [
        ("jobs_accepted_total{client=\"default\"}", 1),
        ("lots_accepted_total{client=\"default\"}", 3),
        ("jobs_ended_total{status=\"completed\"}", 1),
        ("lots_finished_total{status=\"completed\"}", 3),
        ("lines_total{outcome=\"answered\"}", 6),
        ("job_duration_seconds_bucket{le=\"60\"}", 1),
        ("job_duration_seconds_bucket{le=\"+Inf\"}", 1),
        ("job_duration_seconds_count", 1),
        (
            "http_requests_total{route=\"/api/v1/generate-descriptions\",status=\"201\"}",
            1,
        ),
        (
            "http_request_duration_seconds_count{route=\"/api/v1/generate-descriptions\"}",
            1,
        ),
    ] {
        assert_eq!(metric(&page, name), Some(number), "{name}");
    }
    let model: String = appliance.cell("SELECT model FROM openai_batches LIMIT 1");
    for (kind, column) in [("input", "input_tokens"), ("output", "output_tokens")] {
        let paid: i64 = appliance.cell(&format!("SELECT sum({column}) FROM v_costs"));
        let name = format!("tokens_total{{model=\"{model}\",mode=\"batch\",kind=\"{kind}\"}}");
        assert_eq!(metric(&page, &name), u64::try_from(paid).ok(), "{name}");
    }
    for thread in ["submitter", "poller", "ingester", "auditor", "webhook_sender-1"] {
        let ok = metric(&page, &format!("thread_ok{{thread=\"{thread}\"}}"));
        assert_eq!(ok, Some(1), "{thread}");
        let ticks = metric(&page, &format!("ticks_total{{thread=\"{thread}\"}}"));
        assert!(ticks > Some(0), "{thread}");
    }
    appliance.assert_sound();
}

/// The log of a job answers the questions of the next day: the client, the time of each call to
/// OpenAI, the ids there, the results, and the webhook.
#[test]
fn the_log_shows_a_jobs_whole_life() {
    let mut appliance = Appliance::with("log_format = \"json\"");
    let mut body = submission(&appliance.lots(2), &["en"]);
    body["webhook_url"] = json!(appliance.hook("log"));
    let answer = appliance.submit(&body);
    let job = answer.json()["job_id"].as_str().unwrap().to_owned();
    appliance.delivered("log", 1);
    wait_for("the word of the webhook", || {
        appliance.daemon_said("\"event\":\"webhook\"").then_some(())
    });
    let second = under_a_journal(&appliance);
    assert!(second.starts_with("<4>{\"event\":\"exposed\""), "{second}");
    let daemon = rustix::process::Pid::from_raw(i32::try_from(appliance.daemon_id()).unwrap());
    rustix::process::kill_process(daemon.unwrap(), rustix::process::Signal::TERM).unwrap();
    let (status, said) = appliance.daemon_ended();
    assert_eq!(status, 0);

    let said: Vec<Value> = said
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let one = |event: &str, member: &str, value: Value| {
        let mut found = said
            .iter()
            .filter(|record| record["event"] == event && record[member] == value);
        let first = found.next().cloned();
        assert!(found.next().is_none(), "{event} is said twice");
        first.unwrap_or_else(|| panic!("no {event} of {value}: {said:#?}"))
    };
    let received = one("received", "job", json!(job));
    assert_eq!(
        (&received["peer"], &received["client"]),
        (&json!("127.0.0.1"), &json!("default"))
    );
    assert_eq!(received["request"], answer.header("x-request-id").unwrap());
    assert_eq!(one("accepted", "job", json!(job))["lots"], 2);
    let sealed = one("sealed", "jobs", json!(job));
    let batch = || sealed["batch"].clone();
    assert!(batch().is_number());
    let row = appliance.row("SELECT submission_key, input_file_id, openai_batch_id FROM openai_batches");
    assert_eq!(sealed["key"], row[0]);
    assert_eq!(one("uploaded", "batch", batch())["file"], row[1]);
    one("creating", "batch", batch());
    assert_eq!(one("submitted", "batch", batch())["openai_batch"], row[2]);
    assert_eq!(one("ended", "batch", batch())["status"], "completed");
    let ingested = one("ingested", "batch", batch());
    assert_eq!(ingested["answered"], 2);
    assert_ne!(ingested["output_tokens"], 0);
    assert_eq!(one("completed", "job", json!(job))["failed_lots"], 0);
    let told = one("webhook", "job", json!(job));
    let host = appliance.sandbox.strip_prefix("http://").unwrap();
    assert_eq!((&told["host"], &told["status"]), (&json!(host), &json!(200)));
    one("stopping", "cause", json!("SIGTERM"));
    for record in &said {
        for member in ["time", "level", "message", "event"] {
            assert!(record[member].is_string(), "{record}");
        }
    }
}

#[test]
fn the_log_reports_only_what_was_stored() {
    let appliance = Appliance::start();
    // The last rows of a job cannot be written, as on a full disk.
    sql(&appliance)
        .execute_batch(
            "CREATE TRIGGER full BEFORE INSERT ON acceptances BEGIN SELECT RAISE(ABORT, 'no room'); END",
        )
        .unwrap();
    let body = submission(&appliance.lots(1), &["en"]);
    let refused = appliance.submit(&body);
    assert!(refused.status >= 500, "{}", refused.json());
    assert_eq!(appliance.cell::<i64>("SELECT count(*) FROM batch_jobs"), 0);
    sql(&appliance).execute_batch("DROP TRIGGER full").unwrap();
    let job = appliance.submit(&body).json()["job_id"].clone();
    let job = job.as_str().unwrap();
    wait_for("the word of the job", || {
        appliance
            .daemon_said(&format!("event=accepted job={job}"))
            .then_some(())
    });
    assert_eq!(appliance.printed().matches("event=accepted").count(), 1);
}

/// The first log line of a daemon whose standard error appears to be the journal. The daemon ends,
/// because the database is in use.
fn under_a_journal(appliance: &Appliance) -> String {
    let mut shell = Command::new("sh");
    let script = "export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/$$/fd/2); exec \"$0\" \"$@\"";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_batchkeeper"), "serve"]);
    shell.arg("--config").arg(appliance.config());
    let output = shell.env_remove("RUST_LOG").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    said.lines().next().unwrap().to_owned()
}

#[test]
fn an_unknown_log_level_is_refused() {
    let appliance = Appliance::without_daemon("log = \"loud\"");
    let checked = appliance.run(&["check-config"]);
    assert_eq!(checked.status, 1);
    assert!(checked.err.contains("\"loud\" is no level"), "{}", checked.err);
}

/// Runs Prometheus' own checker on a text, if it is installed.
fn checked_by_promtool(arguments: &[&str], text: &str) {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = match command.spawn() {
        Ok(promtool) => promtool,
        Err(error) => {
            eprintln!("skipped: promtool {arguments:?} ({error})");
            return;
        }
    };
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// Every metric in the dashboard and in the rules exists on the page.
fn assert_contrib_metrics_exist(page: &str) {
    let rules = include_str!("../../contrib/alert-rules.yaml");
    let dashboard = include_str!("../../contrib/grafana-dashboard.json");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/alert-rules.yaml");
    checked_by_promtool(&["check", "rules", file], "");
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    let mut asked = rules.to_owned();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            asked += target["expr"].as_str().unwrap();
            asked.push('\n');
        }
    }
    let names: BTreeSet<&str> = asked
        .match_indices("batchkeeper_")
        .map(|(at, _)| {
            let rest = &asked[at..];
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            &rest[..end.unwrap_or(rest.len())]
        })
        .collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let family = name.strip_suffix("_bucket").unwrap_or(name);
        assert!(page.contains(&format!("# TYPE {family} ")), "{name}");
    }
}

#[test]
fn an_alert_is_shown_everywhere_until_its_cause_is_gone() {
    let mut appliance = Appliance::without_daemon("");
    appliance.configure(&format!(
        "[steps]\naudit = \"20ms\"\n[alerts]\nwebhook_url = {:?}\nwebhook_key = \"a key for alerts alone\"",
        appliance.hook("alerts")
    ));
    appliance.start_daemon();
    let job = appliance.job(&appliance.lots(2), &["en"]);
    appliance.results(&job);
    let broken = sql(&appliance);
    broken
        .execute_batch(
            "INSERT INTO batch_jobs (id, client, origin, processing_mode, status, languages, total_lots, open_vision,
                 created_at, updated_at)
             VALUES ('00000000-0000-4000-8000-000000000000', 'default', 'api', 'batch', 'pending', '[\"en\"]', 0, 7,
                 '2026-11-24T00:00:00.000Z', '2026-11-24T00:00:00.000Z')",
        )
        .unwrap();
    let count = |page: &str| metric(page, "alerts_open{kind=\"invariant\"}");
    wait_for("the alert in the metrics", || {
        count(&metrics(&appliance)).filter(|number| *number >= 1)
    });
    let alerts = call("GET", &format!("{}/api/ops/alerts", appliance.ops), &[], b"").json();
    assert_eq!(alerts["alerts"][0]["kind"], "invariant");
    let shown = appliance.run(&["alerts"]);
    assert_eq!(shown.status, 1);
    assert!(shown.out.contains("v_bad_open_requests"), "{}", shown.out);
    broken
        .execute_batch("UPDATE batch_jobs SET open_vision = 0, status = 'failed', completed_at = updated_at WHERE total_lots = 0")
        .unwrap();
    wait_for("the alert's end in the metrics", || {
        count(&metrics(&appliance)).is_none().then_some(())
    });
    assert_eq!(appliance.run(&["alerts"]).status, 0);
    // Each alert is notified once when it opens and once when it closes.
    let opened = broken
        .query_row("SELECT count(*) FROM alerts", [], |row| row.get::<_, usize>(0))
        .unwrap();
    let told = appliance.delivered("alerts", 2 * opened);
    let key = Key::new("a key for alerts alone").unwrap();
    for delivery in &told {
        let body = delivery["body"].as_str().unwrap();
        let header = |name: &str| {
            let headers = delivery["headers"].as_array().unwrap();
            let found = headers.iter().find(|pair| pair[0] == name).unwrap();
            found[1].as_str().unwrap().to_owned()
        };
        let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
        let received = ReceivedWebhook {
            id: &id,
            timestamp: &timestamp,
            signature: &header("webhook-signature"),
            body: body.as_bytes(),
        };
        let verified = received.verify(&webhook_secret(&key), crate::appliance::now());
        assert_eq!(verified, Ok(()));
        let signature = sign(&key, Message::Bytes(body.as_bytes()));
        assert_eq!(header("x-signature"), signature);
    }
    let events: Vec<Value> = told
        .iter()
        .map(|delivery| serde_json::from_str(delivery["body"].as_str().unwrap()).unwrap())
        .collect();
    let of = |event: &str| events.iter().filter(|it| it["event"] == event).count();
    assert_eq!((of("alert_opened"), of("alert_closed")), (opened, opened));
    assert!(appliance.daemon_said("event=alert_opened kind=invariant"));
    assert!(appliance.daemon_said("event=alert_closed kind=invariant"));
}

#[test]
fn alerts_without_their_own_key_are_signed_like_webhooks() {
    let config = batchkeeper::config::Config::parse(&format!(
        "[[clients]]\nname = \"other\"\nkeys = [\"another key, long enough\"]\n\
         [[clients]]\nname = \"default\"\nkeys = [{KEY:?}]\n"
    ))
    .unwrap();
    let of_alert = sign(&config.alerts.keys()[0], Message::Bytes(b"x"));
    assert_eq!(of_alert, sign(&key(), Message::Bytes(b"x")));
}

/// Makes the database refuse what a thread must store. The process must end.
fn assert_ends_after(refusal: &str, thread: &str) {
    let mut appliance = Appliance::start();
    appliance.fault(&json!({"fault": "stall_in_progress"}));
    appliance.job(&appliance.lots(2), &["en"]);
    // The batch is submitted in our database too: its row is polled from then on.
    wait_for("a batch at OpenAI", || {
        let submitted = "SELECT count(*) FROM openai_batches WHERE state = 'submitted'";
        (appliance.cell::<i64>(submitted) == 1).then_some(())
    });
    sql(&appliance).execute_batch(refusal).unwrap();
    let (status, said) = appliance.daemon_ended();
    assert_eq!(status, 1, "{said:?}");
    // Other threads of the same kind may meet the refusal before the process has ended.
    let ended = format!("thread {thread}");
    assert!(
        said.iter()
            .any(|line| line.contains("ERROR") && line.contains(&ended) && line.contains("ended")),
        "{said:?}"
    );
    let reason = format!("event=trouble worker={thread}");
    assert!(
        said.iter()
            .any(|line| line.contains(&reason) && line.contains("passes=false")),
        "{said:?}"
    );
}

#[test]
fn the_process_ends_when_the_poller_fails() {
    assert_ends_after(
        "CREATE TRIGGER refusal BEFORE UPDATE OF openai_status ON openai_batches
         BEGIN SELECT RAISE(ABORT, 'refused'); END",
        "poller",
    );
}

#[test]
fn the_process_ends_when_a_webhook_sender_fails() {
    assert_ends_after(
        "CREATE TRIGGER refusal BEFORE INSERT ON delivery_attempts BEGIN SELECT RAISE(ABORT, 'refused'); END;
         INSERT INTO webhook_deliveries (batch_job_id, url, state, next_at, created_at)
         SELECT id, 'http://127.0.0.1:1/', 'due', created_at, created_at FROM batch_jobs",
        "webhook_sender",
    );
}

#[test]
fn a_row_that_was_changed_by_hand_does_not_end_the_daemon() {
    let mut appliance = Appliance::with("[steps]\naudit = \"1s\"");
    appliance.fault(&json!({"fault": "stall_in_progress"}));
    appliance.job(&appliance.lots(2), &["en"]);
    wait_for("a batch at OpenAI", || {
        let submitted = "SELECT count(*) FROM openai_batches WHERE state = 'submitted'";
        (appliance.cell::<i64>(submitted) == 1).then_some(())
    });
    appliance.clear_faults();
    sql(&appliance)
        .execute_batch("UPDATE openai_batches SET next_at = datetime('now')")
        .unwrap();
    appliance.kill_daemon();
    appliance.start_daemon();
    let second = appliance.job(&appliance.lots(2), &["en"]);
    appliance.results(&second);
    let alert = wait_for("the alert", || {
        let alerts = appliance.run(&["alerts"]).out;
        alerts.contains("unreadable_row").then_some(alerts)
    });
    assert!(alert.contains("openai_batches row 1: next_at is"), "{alert}");
    let doctor = appliance.run(&["doctor"]);
    assert_eq!(doctor.status, 1);
    assert!(doctor.out.contains("openai_batches row 1"), "{}", doctor.out);
}

#[test]
fn health_shows_each_threads_last_tick() {
    let mut appliance = Appliance::without_daemon("");
    let hook = appliance.hook("alerts");
    appliance.configure(&format!(
        "[alerts]\nwebhook_url = {hook:?}\n\
         [[alert_receivers]]\nname = \"chat\"\nkind = \"slack\"\nurl = {hook:?}\n"
    ));
    appliance.start_daemon();
    let names = [
        "submitter",
        "poller",
        "ingester",
        "finisher",
        "webhook_sender-1",
        "alert_notifier",
        "alert_notifier-chat",
        "auditor",
        "remote_cleanup",
        "image_checker",
        "watchdog",
        "client_port",
    ];
    // Each thread is shown from its first tick on.
    let health = wait_for("every thread and a look at the client port", || {
        let answer = call("GET", &format!("{}/health", appliance.ops), &[], b"");
        let health = answer.json();
        let are_shown = names.iter().all(|name| !health["checks"][name].is_null());
        (answer.status == 200 && are_shown).then_some(health)
    });
    let checks = &health["checks"];
    for name in &names[..11] {
        let check = &checks[name];
        assert_eq!(check["ok"], true, "{name}: {check}");
        assert!(check["seconds_since_tick"].as_u64().unwrap() < 60, "{name}");
    }
    assert_eq!(checks["client_port"]["ok"], true);
    // A client sees the status only.
    let brief = call("GET", &format!("{}/health", appliance.api), &[], b"").json();
    assert_eq!(brief, json!({"status": "healthy"}));
}

/// Callers, senders and request workers start when there is work for them.
#[test]
fn an_idle_daemon_has_few_threads() {
    let appliance = Appliance::start();
    let answer = call("GET", &format!("{}/health", appliance.api), &[], b"");
    assert_eq!(answer.status, 200);
    let tasks = format!("/proc/{}/task", appliance.daemon_id());
    // Connections that have just ended have their threads for a moment.
    wait_for("few threads", || {
        let threads = std::fs::read_dir(&tasks).unwrap();
        (threads.count() < 25).then_some(())
    });
}

#[test]
fn systemds_watchdog_is_fed_once_all_is_well() {
    let mut appliance = Appliance::without_daemon("");
    let path = appliance.path("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    wait_for_watchdog(&mut appliance, &systemd, path.to_str().unwrap());
}

/// Containers and some supervisors name a socket of the abstract namespace.
#[test]
fn an_abstract_notify_socket_is_told_the_same() {
    let mut appliance = Appliance::without_daemon("");
    let name = format!("batchkeeper-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let systemd = UnixDatagram::bind_addr(&address).unwrap();
    wait_for_watchdog(&mut appliance, &systemd, &format!("@{name}"));
}

fn wait_for_watchdog(appliance: &mut Appliance, systemd: &UnixDatagram, socket: &str) {
    systemd.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    appliance.start_daemon_with(&[("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", "300000")]);
    let mut heard = Vec::new();
    while heard.iter().filter(|it| **it == "WATCHDOG=1").count() < 3 {
        let mut word = [0; 256];
        let length = systemd.recv(&mut word).unwrap();
        let word = String::from_utf8_lossy(&word[..length]).into_owned();
        heard.extend(word.lines().map(str::to_owned));
    }
    assert!(heard.iter().any(|it| it == "READY=1"), "{heard:?}");
}

/// The report as JSON, and its exit status.
fn report(appliance: &Appliance, arguments: &[&str]) -> (i32, Value) {
    let mut all = vec!["report", "--json"];
    all.extend(arguments);
    let ran = appliance.run(&all);
    let report = serde_json::from_str(&ran.out);
    (
        ran.status,
        report.unwrap_or_else(|error| panic!("{error}: {}{}", ran.out, ran.err)),
    )
}

#[test]
fn the_report_accounts_for_every_request_or_reports_a_difference() {
    let mut appliance = Appliance::start();
    let mut lots = appliance.lots(4);
    lots[3]["images"] = json!([appliance.image("missing.jpg")]);
    let job = appliance.in_one_batch(|| appliance.job(&lots, &["en", "de", "ru"]));
    appliance.results(&job);
    wait_for("the last batch", || {
        let open = "SELECT count(*) FROM openai_batches WHERE state <> 'ingested'";
        let open = sql(&appliance).query_row(open, [], |row| row.get::<_, u32>(0));
        (open == Ok(0)).then_some(())
    });
    let (status, whole) = report(&appliance, &[]);
    assert_eq!((status, &whole["balances"]), (0, &json!(true)), "{whole}");
    let account = |report: &Value, what: &str| {
        let accounts = report["accounts"].as_array().unwrap();
        let found = accounts.iter().find(|it| it["what"] == what).unwrap();
        ["accepted", "answered", "failed", "open", "unexplained"].map(|name| found[name].as_u64().unwrap())
    };
    assert_eq!(account(&whole, "jobs"), [1, 1, 0, 0, 0]);
    assert_eq!(account(&whole, "lots"), [4, 3, 1, 0, 0]);
    assert_eq!(account(&whole, "descriptions"), [4, 3, 1, 0, 0]);
    assert_eq!(account(&whole, "translations"), [6, 6, 0, 0, 0]);
    let batches = whole["batches"].as_array().unwrap();
    assert_eq!(batches.len(), 2);
    for batch in batches {
        assert_eq!(batch["owner"], json!(job));
        assert_eq!(batch["lines"], batch["answered"]);
        assert!(batch["tokens"]["output"].as_u64() > Some(0), "{batch}");
    }
    let paid: i64 = appliance.cell("SELECT sum(cost_picodollars) FROM v_costs");
    assert!(paid > 0);
    let paid = batchkeeper::domain::money::Money(paid).to_string();
    assert_eq!(whole["cost_usd"], json!(paid));
    // The text report shows the same.
    let table = appliance.run(&["report"]);
    assert_eq!(table.status, 0, "{}", table.err);
    assert!(table.out.contains(&paid), "{}", table.out);
    assert!(table.out.contains("It balances"), "{}", table.out);
    // Nothing existed before that day.
    let (status, nothing) = report(&appliance, &["--from", "2020-01-01", "--to", "2020-01-02"]);
    assert_eq!(status, 0);
    assert_eq!(account(&nothing, "jobs"), [0; 5]);
    assert_eq!(nothing["batches"], json!([]));
    assert_eq!(appliance.run(&["report", "--from", "soon"]).status, 2);

    // The listing lags behind; the batch itself exists.
    let vision = batches.iter().find(|it| it["stage"] == "vision").unwrap();
    appliance.fault(&json!([{"fault": "list_lag", "value": 3_600_000, "match": vision["openai_batch_id"]}]));
    let (status, lagging) = report(&appliance, &[]);
    assert_eq!((status, &lagging["batches"]), (0, &whole["batches"]));

    // A lot without a row, and a batch without a row.
    let broken = sql(&appliance);
    broken
        .execute_batch("UPDATE batch_lots SET error_message = NULL WHERE status = 'failed'")
        .unwrap();
    let (status, lost) = report(&appliance, &[]);
    assert_eq!((status, &lost["balances"]), (1, &json!(false)));
    assert_eq!(account(&lost, "lots"), [4, 3, 0, 0, 1]);
    broken
        .execute_batch(
            "UPDATE batch_lots SET error_message = 'found' WHERE status = 'failed';
             PRAGMA foreign_keys = OFF;
             DELETE FROM openai_batches WHERE stage = 'translation'",
        )
        .unwrap();
    let (status, lost) = report(&appliance, &[]);
    assert_eq!((status, &lost["balances"]), (1, &json!(false)));
    let unowned = lost["batches"].as_array().unwrap().iter();
    let unowned: Vec<&Value> = unowned.filter(|it| it["balances"] == false).collect();
    assert_eq!(unowned.len(), 1);
    assert_eq!(unowned[0]["owner"], Value::Null);
    // And one that OpenAI no longer has.
    appliance.fault(&json!([{"fault": "batch_gone"}]));
    let (status, gone) = report(&appliance, &[]);
    assert_eq!(status, 1, "{gone}");
    let gone = gone["batches"].as_array().unwrap();
    assert_eq!((gone.len(), &gone[0]["stage"]), (1, &json!("vision")));
    let remark = gone[0]["remark"].as_str().unwrap();
    assert!(remark.starts_with("OPENAI DOES NOT KNOW IT"), "{remark}");
    appliance.kill_daemon();
}
