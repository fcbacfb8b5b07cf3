//! The cost of each day as an SVG, with the figures in words below it.

use std::time::Duration;

use maud::{Markup, html};

use super::chart::{HEIGHT, WIDTH, height};
use super::components::{dollars, number};
use crate::base::clock::Timestamp;
use crate::domain::money::Money;
use crate::store::status::GroupCosts;

const DAY: Duration = Duration::from_hours(24);
/// The fewest days that are drawn.
const LEAST_DAYS: usize = 14;
/// The most days that are drawn; further ones are in the table.
const MOST_DAYS: usize = 92;
/// The space above the highest bar.
const MARGIN: u64 = 8;

/// The days from the first that cost something to today, at least [`LEAST_DAYS`] and at most [`MOST_DAYS`], oldest first,
/// each with its cost. A day without a row cost nothing.
fn days(costs: &[GroupCosts], today: Timestamp) -> Vec<(String, Option<&GroupCosts>)> {
    let Some(first) = costs.iter().map(|day| day.name.as_str()).min() else {
        return Vec::new();
    };
    let mut days = Vec::new();
    let mut at = today;
    while days.len() < LEAST_DAYS || days.len() < MOST_DAYS && at.to_day_text().as_str() >= first {
        let name = at.to_day_text();
        let cost = costs.iter().find(|day| day.name == name);
        days.push((name, cost));
        at = at.before(DAY);
    }
    days.reverse();
    days
}

/// The cost of each day as bars; nothing if nothing was spent.
pub(super) fn cost_chart(costs: &[GroupCosts], today: Timestamp) -> Markup {
    let days = days(costs, today);
    let cost_of = |day: &(String, Option<&GroupCosts>)| day.1.map_or(Money(0), |costs| costs.cost);
    let most = days.iter().map(cost_of).max().unwrap_or(Money(0));
    let total: Money = days.iter().map(cost_of).sum();
    let is_partly_unknown = days
        .iter()
        .any(|(_, costs)| costs.is_some_and(|costs| costs.is_partly_unknown));
    let count = u64::try_from(days.len()).unwrap_or(1).max(1);
    let step = WIDTH / count;
    let full = HEIGHT - MARGIN;
    let in_units = |money: Money| u64::try_from(money.0).unwrap_or(0);
    let bars = (0..).step_by(usize::try_from(step).unwrap_or(1)).zip(&days);
    html! {
        @if let (Some((first, _)), Some((last, _))) = (days.first(), days.last()) {
            figure {
                div class="head" { h2 id="costs-title" { "Cost per day" } }
                div class="plot" {
                    div class="scale" aria-hidden="true" {
                        span { (dollars(most)) }
                        span { "$0" }
                    }
                    svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img"
                        aria-labelledby="costs-title costs-words" {
                        @for y in [HEIGHT, HEIGHT - full / 2, MARGIN] {
                            line class="rule" x1="0" y1=(y) x2=(WIDTH) y2=(y) {}
                        }
                        @for (x, day) in bars {
                            @let bar = height(in_units(cost_of(day)), in_units(most), full);
                            g {
                                title { (day.0) ": " (dollars(cost_of(day))) }
                                rect class="good" x=(x + 1) y=(HEIGHT - bar) width=(step.saturating_sub(2).max(1))
                                    height=(bar) {}
                            }
                        }
                    }
                }
                p class="axis" aria-hidden="true" { span { (first) } span { (last) } }
                figcaption id="costs-words" {
                    span class="key good" {}
                    (dollars(total)) " in " (number(count)) @if count == 1 { " day" } @else { " days" }
                    ", " (dollars(most)) " on the most expensive one. Days are those of UTC."
                    @if is_partly_unknown { " A part is unknown: a model without a price, or tokens that OpenAI did not state." }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::usage::TokenUsage;

    fn day(name: &str, cost: i64) -> GroupCosts {
        GroupCosts {
            name: name.into(),
            answers: 1,
            usage: TokenUsage::ZERO,
            cost: Money(cost),
            is_partly_unknown: false,
        }
    }

    #[test]
    fn days_without_a_cost_are_gaps() {
        let today: Timestamp = "2026-12-01T16:00:00Z".parse().expect("a time");
        let costs = [
            day("2026-11-30", 4_000_000_000_000),
            day("2026-11-27", 1_000_000_000_000),
        ];
        let names: Vec<String> = days(&costs, today).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), LEAST_DAYS);
        assert_eq!((&*names[0], &*names[13]), ("2026-11-18", "2026-12-01"));
        let shown = cost_chart(&costs, today).into_string();
        assert_eq!(shown.matches("<rect").count(), 14, "{shown}");
        assert_eq!(shown.matches("height=\"0\"").count(), 12, "{shown}");
        assert!(shown.contains("<title>2026-11-30: $4"), "{shown}");
        assert!(shown.contains("$5") && shown.contains("in 14 days"), "{shown}");
        assert_eq!(cost_chart(&[], today).into_string(), "");
        let long = [day("2020-01-01", 1)];
        assert_eq!(days(&long, today).len(), MOST_DAYS);
    }
}
