//! Shared helpers: a daemon with realistic settings, its memory and processor time, and the table.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::types::FromSql;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::appliance::{Appliance, CLOCK, sign_bytes, submission};
use crate::openai::BareOpenAi;
use batchkeeper::base::clock::Clock;
use crossbeam_channel::never;

/// One line of the table.
pub struct Figure {
    /// The measured work.
    pub work: String,
    /// The figure, on this machine and this day.
    pub measured: String,
    /// The reference's figure, and the ratio to it.
    pub ratio: Option<(String, f64)>,
}

impl Figure {
    /// A figure without a reference.
    pub fn alone(work: &str, measured: String) -> Self {
        Self {
            work: work.to_owned(),
            measured,
            ratio: None,
        }
    }

    /// A time compared with the time of a bare reference.
    pub fn against(work: &str, measured: String, ours: Duration, bare: Duration) -> Self {
        let ratio = ours.as_secs_f64() / bare.as_secs_f64();
        Self {
            work: work.to_owned(),
            measured,
            ratio: Some((format!("{bare:.2?}"), ratio)),
        }
    }
}

/// Starts a daemon with realistic settings beside a bare OpenAI. `config` overrides the settings.
pub fn daemon(openai: &BareOpenAi, config: &str) -> Appliance {
    let mut appliance = Appliance::without_daemon("");
    configure(&appliance, openai, config);
    appliance.start_daemon();
    appliance
}

/// Writes the configuration of such a daemon.
pub fn configure(appliance: &Appliance, openai: &BareOpenAi, config: &str) {
    let usual = format!(
        r#"
        [openai]
        base_url = "http://{}/v1"
        poll_interval = "30s"
        settling_time = "10m"
        create_timeout = "2m"
        retry_interval = "5s"
        results_timeout = "1h"
        [batch]
        max_wait = "1s"
        max_requests = 50000
        queue_backoff = "5m"
        [images]
        check = false
        concurrency = 64
        [synchronous]
        enabled = true
        [webhooks]
        concurrency = 32
        [steps]
        idle = "1s"
        "#,
        openai.address
    );
    let mut table: toml::Table = toml::from_str(&usual).unwrap();
    for (name, value) in toml::from_str::<toml::Table>(config).unwrap() {
        match (table.get_mut(&name), value) {
            (Some(toml::Value::Table(into)), toml::Value::Table(from)) => into.extend(from),
            (_, value) => {
                table.insert(name, value);
            }
        }
    }
    appliance.configure(&toml::to_string(&table).unwrap());
}

/// A signed submission, ready to be sent.
pub struct Signed {
    /// The body.
    pub body: String,
    /// Its signature.
    pub signature: String,
}

/// What sellers write: typographic quotes and dashes, accents, Cyrillic, emoji. Each with how often a lot repeats it.
const TEXTS: [(&str, usize); 5] = [
    (
        "hail on roof and hood, rear bumper torn, left door dented, airbags deployed. ",
        4,
    ),
    (
        "Seller’s note: “runs and drives” – hail on roof & hood; rear bumper torn… ",
        4,
    ),
    (
        "Удар в левую переднюю часть: фара разбита, капот помят, подушки сработали. ",
        6,
    ),
    (
        "Schlüssel vorhanden, Türen zerkratzt – Airbag ausgelöst; vendu « en l’état ». ",
        4,
    ),
    ("🚗💥 won’t start, no keys", 1),
];

/// A job of `lots` lots, about 470 bytes each.
pub fn job(lots: usize, languages: &[&str], webhook: Option<String>) -> Signed {
    let lots: Vec<Value> = (0..lots)
        .map(|number| {
            let (text, times) = TEXTS[number % TEXTS.len()];
            let info = format!("sedan no. {number}: {}", text.repeat(times));
            let images = [0, 1].map(|at| format!("https://cdn.cars.example/lots/{number:05}/{at}.jpg"));
            json!({"lot_id": format!("LOT-{number:05}"), "additional_info": info, "images": images})
        })
        .collect();
    let mut body = submission(&lots, languages);
    // The daemon must not treat two jobs as equal.
    body["lots"][0]["additional_info"] = json!(format!("job {}", CLOCK.now().steady.as_nanos()));
    if let Some(url) = webhook {
        body["webhook_url"] = json!(url);
    }
    let body = body.to_string();
    let signature = sign_bytes(body.as_bytes());
    Signed { body, signature }
}

/// Sends a job. Returns its id and the time to the answer.
pub fn submit(appliance: &Appliance, job: &Signed) -> (String, Duration) {
    let begun = Instant::now();
    let answer = appliance.post(&[("X-Signature", &job.signature)], job.body.as_bytes());
    let took = begun.elapsed();
    assert_eq!(answer.status, 201, "{}", answer.json());
    (answer.json()["job_id"].as_str().unwrap().to_owned(), took)
}

/// Waits up to 30 minutes until `look` returns a value.
pub fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_mins(30), "{what}");
        pause(Duration::from_millis(5));
    }
}

/// Sleeps.
pub fn pause(time: Duration) {
    never::<()>().recv_timeout(time).ok();
}

/// The first column of the first row of a query with one parameter.
pub fn cell<T: FromSql>(database: &Path, sql: &str, parameter: &str) -> Option<T> {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut query = connection.prepare_cached(sql).unwrap();
    query.query_row([parameter], |row| row.get(0)).unwrap_or(None)
}

/// The figures of a process, from `/proc`.
pub struct Process(pub u32);

impl Process {
    /// Its memory now, in kB.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most memory since [`Process::forget_peak`], in kB.
    pub fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// Sets the peak to the current memory.
    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.0), "5").unwrap();
    }

    /// The processor time that the process has used.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = [11, 12].map(|at| fields[at].parse::<u64>().unwrap()).iter().sum();
        // USER_HZ is 100, whatever the kernel's internal tick is.
        Duration::from_millis(ticks * 10)
    }

    /// The bytes that it has had written to the disk.
    pub fn written(&self) -> u64 {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.0)).unwrap();
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        line.unwrap().parse().unwrap()
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

/// Seconds since 1970.
pub fn now_in_seconds() -> i64 {
    CLOCK.now().wall.millis() / 1000
}

/// Converts kilobytes to megabytes.
pub fn megabytes(kilobytes: u64) -> String {
    format!("{:.1} MB", kilobytes as f64 / 1000.0)
}

/// `count` events in `time`, as events per second.
pub fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// Sorts the times and returns their median and 99th percentile.
pub fn percentiles(times: &mut [Duration]) -> [Duration; 2] {
    times.sort();
    [50, 99].map(|percent| times[(times.len() - 1) * percent / 100])
}
