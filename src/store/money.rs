//! Prices, spending, budgets and reservations. The figures come from counters that triggers keep, and the
//! views `v_spending` and `v_job_usage` multiply them by the prices.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::columns::token_usage;
use super::inspect::{self, Table};
use super::predicates::LIVE_JOB;
use super::{Stored, Tx, View};
use crate::base::clock::Timestamp;
use crate::domain::alert::{AlertCause, AlertSubject};
use crate::domain::batch::Stage;
use crate::domain::usage::TokenUsage;
use crate::domain::{
    budgets::{Budgets, SpendingLimits},
    money::Money,
    prices::{Price, ProviderDay, Rates, dated_models, price_days},
};

/// The newest completed jobs that estimates are learned from.
const LEARNED_JOBS: u32 = 20;
/// How far back spending is shown.
const SHOWN: Duration = Duration::from_hours(31 * 24);
/// The most rows of spending that are shown.
const SHOWN_ROWS: u32 = 1000;
/// The most jobs and batches that are shown with their costs.
const SHOWN_COSTS: u32 = 50;

/// The sums of the four kinds of tokens of several rows.
pub(super) const TOKEN_SUMS: &str = "coalesce(sum(u.input_tokens), 0) AS input_tokens, coalesce(sum(u.cached_tokens), 0) AS cached_tokens,
    coalesce(sum(u.output_tokens), 0) AS output_tokens, coalesce(sum(u.reasoning_tokens), 0) AS reasoning_tokens";

/// The largest sum that an integer of SQLite holds, or the sum of a column of amounts, or 0: the SQL. SQLite's own
/// `sum` fails beyond that. The halves of the amounts are added up, so that no amount becomes a fraction.
pub(super) fn sum_of_money(column: &str) -> String {
    format!(
        "CASE WHEN total({column}) >= 9e18 THEN 9223372036854775807
              ELSE coalesce(sum({column} >> 32) * 4294967296 + sum({column} & 4294967295), 0) END"
    )
}

/// Stores that the provider with that base URL is used from today on, and replaces the table of prices.
pub fn set_prices(tx: &Tx<'_>, prices: &[Price], base_url: &str) -> Stored<()> {
    let mut providers = providers(tx)?;
    if providers.last().is_none_or(|last| last.base_url != base_url) {
        let since = tx.now.to_day_text();
        tx.execute(
            "INSERT OR REPLACE INTO providers (since, base_url) VALUES (?, ?)",
            [since.as_str(), base_url],
        )?;
        providers = self::providers(tx)?;
    }
    tx.execute("DELETE FROM prices", [])?;
    for (model, since, price) in price_days(prices, &providers) {
        for mode in ["batch", "synchronous"] {
            let rates = price.and_then(|price| price.rates().into_iter().find(|(of, _)| *of == mode));
            let rates = rates.map(|(_, rates)| rates);
            tx.execute(
                "INSERT OR REPLACE INTO prices (model, dated_models, mode, since, input, cached, output)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
                params![
                    model,
                    dated_models(model),
                    mode,
                    since,
                    rates.map(|rates| rates.input),
                    rates.map(|rates| rates.cached),
                    rates.map(|rates| rates.output)
                ],
            )?;
        }
    }
    Ok(())
}

/// The providers that were used, in the order of their first days.
fn providers(view: &View) -> Stored<Vec<ProviderDay>> {
    let mut query = view.prepare_cached("SELECT since, base_url FROM providers ORDER BY since")?;
    let rows = query.query_map([], |row| {
        Ok(ProviderDay {
            since: row.get("since")?,
            base_url: row.get("base_url")?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The price of a model on a day; `None` if it has no price.
pub fn rates(view: &View, model: &str, mode: &str, day: &str) -> Stored<Option<Rates>> {
    let mut query = view.prepare_cached(
        "SELECT input, cached, output FROM prices
         WHERE mode = ?2 AND since <= ?3 AND (?1 = model OR ?1 GLOB dated_models)
         ORDER BY since DESC LIMIT 1",
    )?;
    let found = query.query_row(params![model, mode, day], |row| {
        let input: Option<i64> = row.get("input")?;
        let Some(input) = input else { return Ok(None) };
        Ok(Some(Rates {
            input,
            cached: row.get("cached")?,
            output: row.get("output")?,
        }))
    });
    Ok(found.optional()?.flatten())
}

/// The usage of requests of one language in the newest completed jobs, failed attempts included.
#[derive(Clone, Debug)]
pub struct Learned {
    /// The language; empty in the vision stage.
    pub language: String,
    /// The number of answers.
    pub answers: u64,
    /// The tokens of all attempts.
    pub tokens: TokenUsage,
}

/// The usage of a model in a stage in the newest completed jobs, by language. Usage that is known only in part does
/// not count.
pub fn learned(view: &View, stage: Stage, model: &str) -> Stored<Vec<Learned>> {
    let mut query = view.prepare_cached(&format!(
        "SELECT u.language, sum(u.answers) AS answers, {TOKEN_SUMS}
         FROM (SELECT seq FROM batch_jobs WHERE status = 'completed' ORDER BY seq DESC LIMIT ?) j
              JOIN job_usage u ON u.job = j.seq
         WHERE u.stage = ? AND u.model = ? AND u.usage_unknown = 0 GROUP BY u.language HAVING sum(u.answers) > 0"
    ))?;
    let rows = query.query_map(params![LEARNED_JOBS, stage, model], |row| {
        Ok(Learned {
            language: row.get("language")?,
            answers: row.get("answers")?,
            tokens: token_usage(row, "")?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The spending of a day (`2026-11-24`) or a month (`2026-11`), of one client or of all. Usage without a
/// price does not count.
pub fn spent(view: &View, client: Option<&str>, period: &str) -> Stored<Money> {
    let mut query = view.prepare_cached(&format!(
        "SELECT {} AS cost FROM v_spending
         WHERE day >= ?1 AND day < ?1 || '~' AND (?2 IS NULL OR client = ?2)",
        sum_of_money("cost_picodollars")
    ))?;
    let cost = query.query_row(params![period, client], |row| row.get("cost"))?;
    Ok(Money(cost))
}

/// The estimated cost of the live batches that were planned in a period, and of what is over and whose tokens are
/// unknown.
pub fn reserved(view: &View, client: Option<&str>, period: &str) -> Stored<Money> {
    let mut query = view.prepare_cached(&format!(
        "SELECT {} AS cost FROM reservations
         WHERE day >= ?1 AND day < ?1 || '~' AND (?2 IS NULL OR client = ?2)",
        sum_of_money("cost")
    ))?;
    let cost = query.query_row(params![period, client], |row| row.get("cost"))?;
    Ok(Money(cost))
}

/// The part of the estimates of jobs that are not final which is not spent yet.
pub fn promised(view: &View, client: Option<&str>) -> Stored<Money> {
    let mut query = view.prepare_cached(&format!(
        "WITH unspent AS MATERIALIZED (
             SELECT max(0, coalesce(j.estimated_cost, 0) -
                        (SELECT {} FROM v_job_usage u WHERE u.job = j.seq)) AS cost
             FROM batch_jobs j WHERE j.{LIVE_JOB} AND (?1 IS NULL OR j.client = ?1))
         SELECT {} AS cost FROM unspent",
        sum_of_money("u.cost_picodollars"),
        sum_of_money("cost")
    ))?;
    Ok(Money(query.query_row([client], |row| row.get("cost"))?))
}

/// The cost of a job so far, and its tokens. The cost is `None` if a part of it has no price, or is unknown.
pub fn job_cost(view: &View, job: i64) -> Stored<(Option<Money>, TokenUsage)> {
    let mut query = view.prepare_cached(&format!(
        "SELECT {} AS cost, {TOKEN_SUMS},
                count(*) = count(u.cost_picodollars) AND total(u.usage_unknown) = 0 AS is_known
         FROM v_job_usage u WHERE u.job = ?",
        sum_of_money("u.cost_picodollars")
    ))?;
    Ok(query.query_row([job], |row| {
        let (cost, is_known): (i64, bool) = (row.get("cost")?, row.get("is_known")?);
        Ok((is_known.then_some(Money(cost)), token_usage(row, "")?))
    })?)
}

/// Stores the estimate of a job.
pub fn keep_estimate(tx: &Tx<'_>, job: i64, cost: Option<Money>, tokens: TokenUsage) -> Stored<()> {
    tx.execute(
        "UPDATE batch_jobs SET estimated_cost = ?, estimated_tokens = ? WHERE seq = ?",
        params![
            cost.map(|cost| cost.0),
            i64::try_from(tokens.input.saturating_add(tokens.output)).unwrap_or(i64::MAX),
            job
        ],
    )?;
    Ok(())
}

/// A budget in one period, and how much of it is used.
#[derive(Clone, Debug)]
pub struct BudgetUse {
    /// Its client; `None` for the budget of all clients together.
    pub client: Option<String>,
    /// `2026-11-24` or `2026-11`.
    pub period: String,
    /// The most that may be spent.
    pub limit: Money,
    /// The spending so far.
    pub spent: Money,
    /// The estimated cost of live batches.
    pub reserved: Money,
}

impl BudgetUse {
    /// The part that is neither spent nor reserved.
    pub fn left(&self) -> Money {
        self.limit.minus(self.spent + self.reserved)
    }

    /// When its period ends.
    pub fn ends_at(&self) -> Option<Timestamp> {
        const DAY: Duration = Duration::from_hours(24);
        let start = |day: &str| format!("{day}T00:00:00Z").parse::<Timestamp>().ok();
        match self.period.len() {
            10 => Some(start(&self.period)? + DAY),
            // The first days of the month after it are in it or after it.
            _ => start(&format!(
                "{}-01",
                (start(&format!("{}-28", self.period))? + DAY * 4)
                    .to_day_text()
                    .get(..7)?
            )),
        }
    }

    /// The subject of alerts about this budget.
    pub fn subject(&self) -> AlertSubject {
        AlertSubject::Budget {
            client: self.client.clone(),
            period: self.period.clone(),
        }
    }
}

/// Every budget, and how much of it is used.
pub fn budget_uses(view: &View, budgets: &Budgets, now: Timestamp) -> Stored<Vec<BudgetUse>> {
    let all = (None, budgets.total);
    let clients = budgets.clients.iter();
    let of_clients = clients.map(|(client, limits)| (Some(client.as_str()), *limits));
    let mut uses = Vec::new();
    for (client, limits) in std::iter::once(all).chain(of_clients) {
        for (period, limit) in periods(limits, now) {
            uses.push(BudgetUse {
                client: client.map(str::to_owned),
                limit,
                spent: spent(view, client, &period)?,
                reserved: reserved(view, client, &period)?,
                period,
            });
        }
    }
    Ok(uses)
}

fn periods(limits: SpendingLimits, now: Timestamp) -> impl Iterator<Item = (String, Money)> {
    let day = now.to_day_text();
    let month = day.chars().take(7).collect();
    [(day, limits.per_day), (month, limits.per_month)]
        .into_iter()
        .filter_map(|(period, limit)| Some((period, limit?)))
}

/// The budget that a new job of a client would exceed; `None` if it fits into all. The estimates of accepted
/// jobs count.
pub fn exceeded_budget(
    view: &View,
    budgets: &Budgets,
    client: &str,
    cost: Money,
    now: Timestamp,
) -> Stored<Option<BudgetUse>> {
    for mut budget in budget_uses(view, budgets, now)? {
        let of_client = budget.client.as_deref();
        if of_client.is_none_or(|of_client| of_client == client) {
            budget.reserved = promised(view, of_client)?;
            if budget.left() < cost {
                return Ok(Some(budget));
            }
        }
    }
    Ok(None)
}

/// The amounts that may still be reserved.
#[derive(Clone, Debug, Default)]
pub struct Allowance {
    /// For all clients together; `None` if it is not limited.
    pub total: Option<Money>,
    /// For each client that has a budget.
    pub clients: HashMap<String, Money>,
}

/// The amounts that the budgets leave for reservations.
pub fn allowance(view: &View, budgets: &Budgets, now: Timestamp) -> Stored<Allowance> {
    let mut allowance = Allowance::default();
    for budget in budget_uses(view, budgets, now)? {
        let left = budget.left();
        match budget.client {
            None => allowance.total = Some(allowance.total.map_or(left, |least| least.min(left))),
            Some(client) => {
                let least = allowance.clients.entry(client).or_insert(left);
                *least = left.min(*least);
            }
        }
    }
    Ok(allowance)
}

/// Adds an amount to what a planned batch reserves for a client. Without a batch, to what synchronous calls cost
/// whose tokens are unknown.
pub fn reserve(tx: &Tx<'_>, batch: Option<i64>, client: &str, cost: Money) -> Stored<()> {
    tx.execute(
        "INSERT INTO reservations (batch_id, client, day, cost) VALUES (?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET cost = cost + min(excluded.cost, 9223372036854775807 - cost)",
        params![batch, client, tx.now.to_day_text(), cost.0],
    )?;
    Ok(())
}

/// The batches, ingested after `since`, whose token count at OpenAI differs from the sum of their lines. A
/// batch with lines of jobs that are not here is not compared: `v_usage_without_job` has the difference.
pub fn differences(view: &View, since: Timestamp) -> Stored<Vec<AlertCause>> {
    let mut query = view.prepare_cached(
        "SELECT id, openai_batch_id, input_tokens, cached_tokens, output_tokens, reasoning_tokens, openai_input_tokens,
                openai_cached_tokens, openai_output_tokens, openai_reasoning_tokens FROM openai_batches
         WHERE ingested_at > ? AND openai_input_tokens IS NOT NULL AND lines_without_job = 0
           AND (openai_input_tokens, openai_cached_tokens, openai_output_tokens, openai_reasoning_tokens)
               <> (input_tokens, cached_tokens, output_tokens, reasoning_tokens) LIMIT 20",
    )?;
    let rows = query.query_map([since], |row| {
        let (id, batch): (i64, String) = (row.get("id")?, row.get("openai_batch_id")?);
        let lines = token_usage(row, "")?.to_array();
        let whole = token_usage(row, "openai_")?.to_array();
        let message = format!(
            "the lines of batch {batch} add up to {lines:?} tokens (in, cached, out, reasoning), OpenAI counts {whole:?} \
             for the whole batch. Its cost is computed from the lines. Look at it: batchkeeper batches show {id}"
        );
        let subject = AlertSubject::Usage(id);
        Ok(AlertCause { subject, message })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The batches that are over, and the jobs with synchronous calls, of which OpenAI stated after `since` tokens that
/// they cannot have. The number of a batch's lines is known when it is over.
pub fn unknown_usage(view: &View, since: Timestamp) -> Stored<Vec<AlertCause>> {
    let mut query = view.prepare_cached(
        "SELECT e.batch_id, coalesce(e.job_id, '') AS job, coalesce(b.openai_batch_id, '') AS openai_batch_id,
                coalesce(b.usage_unknown, 0) AS lines, e.detail, max(e.id) AS newest
         FROM events e LEFT JOIN openai_batches b ON b.id = e.batch_id
         WHERE e.kind = 'usage_unknown' AND e.at > ? AND (b.id IS NULL OR b.ingested_at IS NOT NULL)
         GROUP BY e.batch_id, e.job_id ORDER BY newest DESC LIMIT 20",
    )?;
    let rows = query.query_map([since], |row| {
        let (job, lines): (String, u64) = (row.get("job")?, row.get("lines")?);
        let (batch, detail): (String, String) = (row.get("openai_batch_id")?, row.get("detail")?);
        let consequence = "They are stored as unknown: the cost is unknown, budgets keep what was reserved, and no \
                           estimate uses them";
        Ok(match row.get::<_, Option<i64>>("batch_id")? {
            Some(id) => AlertCause {
                subject: AlertSubject::Usage(id),
                message: format!(
                    "OpenAI stated tokens that are not possible for batch {batch}, in {lines} of its lines; the newest: \
                     {detail}. {consequence}. Look at it: batchkeeper batches show {id}"
                ),
            },
            None => AlertCause {
                message: format!(
                    "OpenAI stated tokens that are not possible, in a synchronous call of job {job}: {detail}. \
                     {consequence}. Look at it: batchkeeper jobs show {job}"
                ),
                subject: AlertSubject::Named(job),
            },
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The spending of the last month, by client, day, model and mode.
pub fn spending(view: &View, now: Timestamp) -> Stored<Table> {
    inspect::table(
        view,
        "SELECT * FROM v_spending WHERE day >= ? ORDER BY day DESC, client, model, mode LIMIT ?",
        params![now.before(SHOWN).to_day_text(), SHOWN_ROWS],
    )
}

/// The spending since a day, by client, day, model and mode, oldest first.
pub fn spending_since(view: &View, since: &str) -> Stored<Table> {
    inspect::table(
        view,
        "SELECT client, day, model, mode, answers, input_tokens, cached_tokens, output_tokens, reasoning_tokens,
                usage_unknown, cost_usd
         FROM v_spending WHERE day >= ? ORDER BY day, client, model, mode",
        [since],
    )
}

/// The newest jobs with their estimates and costs.
pub fn newest_jobs(view: &View) -> Stored<Table> {
    // Without the inner query, the view would add up the usage of every job.
    inspect::table(
        view,
        "SELECT c.* FROM (SELECT seq, id FROM batch_jobs ORDER BY seq DESC LIMIT ?) j
                JOIN v_job_costs c ON c.job_id = j.id ORDER BY j.seq DESC",
        [SHOWN_COSTS],
    )
}

/// The newest batches with their tokens and costs.
pub fn newest_batches(view: &View) -> Stored<Table> {
    let sql = "SELECT * FROM v_costs ORDER BY batch_id DESC LIMIT ?";
    inspect::table(view, sql, [SHOWN_COSTS])
}

/// Everything that a model was used for in one mode.
#[derive(Clone, Debug)]
pub struct ModelUsage {
    /// The model.
    pub model: String,
    /// `batch` or `synchronous`.
    pub mode: String,
    /// The tokens.
    pub tokens: TokenUsage,
    /// The cost of the usage that has a price.
    pub cost: Money,
}

/// The usage of each model and mode since the beginning.
pub fn usage_by_model(view: &View) -> Stored<Vec<ModelUsage>> {
    let mut query = view.prepare_cached(&format!(
        "SELECT u.model, u.mode, {} AS cost, {TOKEN_SUMS} FROM v_spending u GROUP BY u.model, u.mode",
        sum_of_money("u.cost_picodollars")
    ))?;
    let rows = query.query_map([], |row| {
        Ok(ModelUsage {
            model: row.get("model")?,
            mode: row.get("mode")?,
            tokens: token_usage(row, "")?,
            cost: Money(row.get("cost")?),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::prices::prices;
    use crate::store::Store;

    /// A sum of SQLite's own would fail, and a product would become a fraction.
    #[test]
    fn amounts_beyond_an_integer_s_range_are_the_largest_integer() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Timestamp::from_seconds(1_795_400_000);
        let store = Store::open(&folder.path().join("a.db"), now).expect("a store");
        let written = store.write(now, |tx| {
            set_prices(tx, &prices(&[]), "https://a/v1")?;
            for (client, tokens) in [("a", i64::MAX), ("b", i64::MAX), ("c", 3)] {
                tx.execute(
                    "INSERT INTO client_usage VALUES (?1, '2026-11-24', 'gpt-6-luna', 'batch', 1, ?2, 0, ?2, 0, 0)",
                    params![client, tokens],
                )?;
            }
            for (client, cost) in [("a", Money(i64::MAX)), ("a", Money(i64::MAX)), ("b", Money(i64::MAX))] {
                reserve(tx, None, client, cost)?;
            }
            Ok(())
        });
        written.expect("usage");
        let (day, month) = ("2026-11-23", "2026-11");
        let spent = |client| store.read(|view| spent(view, client, month)).expect("a sum");
        assert!(spent(Some("a")).0 > i64::MAX / 2);
        assert_eq!(spent(None), Money(i64::MAX));
        assert_eq!(spent(Some("c")), Money(3 * 50_000 + 3 * 250_000));
        let reserved = |client| store.read(|view| reserved(view, client, day)).expect("a sum");
        assert_eq!(
            (reserved(None), reserved(Some("a"))),
            (Money(i64::MAX), Money(i64::MAX))
        );
        let shown = store.read(|view| spending(view, now)).expect("the view");
        assert_eq!(shown.rows.len(), 3);
    }

    /// The cost formula stands in several views, since SQLite would compute one view of all usage whole each time.
    #[test]
    fn every_view_has_the_same_cost_formula() {
        let views = include_str!("../../migrations/V12__views.sql");
        let formulas: std::collections::BTreeSet<String> = views
            .split("(SELECT min(")
            .skip(1)
            .filter_map(|rest| rest.split("FROM prices").next())
            .map(|formula| {
                let words: Vec<&str> = formula.split_whitespace().collect();
                words.join(" ").replace("b.", "u.").replace("d.", "u.")
            })
            .collect();
        assert_eq!(formulas.len(), 1, "{formulas:?}");
        assert_eq!(
            views.matches("* p.output").count(),
            views.matches("(SELECT min(").count()
        );
    }

    /// The views multiply as [`Rates::cost`] does, and know a dated name as [`Price::is_of`] does.
    #[test]
    fn the_views_and_the_program_know_one_price_and_one_formula() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Timestamp::from_seconds(1_795_400_000);
        let store = Store::open(&folder.path().join("a.db"), now).expect("a store");
        let all = prices(&[]);
        let names = [
            "gpt-6-luna",
            "gpt-6-luna-2026-09-22",
            "gpt-6-luna-20xx-09-22",
            "gpt-6-luna-mini",
        ];
        store
            .write(now, |tx| {
                set_prices(tx, &all, "https://a/v1")?;
                for name in names {
                    tx.execute(
                        "INSERT INTO client_usage VALUES ('shop', '2026-11-24', ?, 'batch', 1, 1000, 400, 70, 9, 0)",
                        [name],
                    )?;
                }
                Ok(())
            })
            .expect("usage");
        let usage = store.read(usage_by_model).expect("usage");
        assert_eq!(usage.len(), names.len());
        for of_model in usage {
            let has_price = all.iter().any(|price| price.is_for(&of_model.model));
            let rates = store.read(|view| rates(view, &of_model.model, "batch", "2026-11-24"));
            let rates = rates.expect("prices");
            assert_eq!(rates.is_some(), has_price, "{}", of_model.model);
            let cost = rates.map(|rates| rates.cost(of_model.tokens));
            assert_eq!(of_model.cost, cost.unwrap_or_default(), "{}", of_model.model);
        }
    }
}
