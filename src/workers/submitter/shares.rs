//! Fair shares of a batch between clients, jobs and requests with different caps.

use std::collections::{BTreeMap, HashMap};

use crate::domain::money::Money;
use crate::store::money::Allowance;
use crate::store::requests::JobQueue;

/// Cuts each client's queues to what its budget pays for. Returns how many lines the budget of all clients
/// pays for.
pub fn limit_to_budgets(queues: &mut Vec<JobQueue>, allowance: &Allowance, line_cost: Money) -> u32 {
    let mut left: HashMap<String, u32> = allowance
        .clients
        .iter()
        .map(|(client, money)| (client.clone(), money.divided_into(line_cost)))
        .collect();
    for queue in queues.iter_mut() {
        if let Some(left) = left.get_mut(&queue.client) {
            queue.length = queue.length.min(*left);
            *left -= queue.length;
        }
    }
    queues.retain(|queue| queue.length > 0);
    allowance
        .total
        .map_or(u32::MAX, |money| money.divided_into(line_cost))
}

/// The caps by which requests are sent apart, and `None` for the rest, in the order of their turns. The cap
/// after `last` comes first, so that no cap keeps the others waiting.
pub fn caps_in_turn(caps: Vec<u32>, last: Option<&Option<u32>>) -> Vec<Option<u32>> {
    let place = |cap: Option<u32>| cap.unwrap_or(u32::MAX);
    let mut turns: Vec<Option<u32>> = caps.into_iter().map(Some).chain([None]).collect();
    if let Some(last) = last {
        let had = turns.partition_point(|cap| place(*cap) <= place(*last));
        turns.rotate_left(had);
    }
    turns
}

/// Each queue's share of `lines`: even between clients, and between the jobs of one client. Lines that a
/// small queue does not need go to the others. Lines that cannot be divided go by turns, which begin elsewhere
/// in each batch.
pub fn fair_shares(queues: &[JobQueue], lines: u32, batch: i64) -> Vec<(&JobQueue, u32)> {
    let mut clients: BTreeMap<&str, Vec<&JobQueue>> = BTreeMap::new();
    for queue in queues {
        clients.entry(&queue.client).or_default().push(queue);
    }
    let lengths = |jobs: &[&JobQueue]| jobs.iter().map(|queue| queue.length).collect::<Vec<_>>();
    let wanted: Vec<u32> = clients
        .values()
        .map(|jobs| lengths(jobs).into_iter().fold(0, u32::saturating_add))
        .collect();
    let mut shares = Vec::with_capacity(queues.len());
    let of_clients = even(&wanted, lines, spread(batch, 0));
    for (jobs, lines) in clients.into_values().zip(of_clients) {
        let of_jobs = even(&lengths(&jobs), lines, spread(batch, 1));
        shares.extend(jobs.into_iter().zip(of_jobs));
    }
    shares
}

/// Shares `whole` out evenly, to each at most what it wants. The rest goes out one by one, beginning at the
/// place `turn`. So if there is less than one for each, none is ignored for long.
fn even(wanted: &[u32], whole: u32, turn: u64) -> Vec<u32> {
    let mut order: Vec<u32> = wanted.to_vec();
    order.sort_unstable();
    let (mut level, mut left) = (u32::MAX, whole);
    for (served, wants) in order.into_iter().enumerate() {
        let still = u32::try_from(wanted.len() - served).unwrap_or(u32::MAX);
        if wants > left / still {
            level = left / still;
            break;
        }
        left -= wants;
    }
    let mut shares: Vec<u32> = wanted.iter().map(|wants| *wants.min(&level)).collect();
    let mut left = whole - shares.iter().sum::<u32>().min(whole);
    let places = wanted.len().max(1) as u64;
    let first = usize::try_from(turn % places).unwrap_or(0);
    for at in (first..wanted.len()).chain(0..first) {
        if left > 0 && shares[at] < wanted[at] {
            shares[at] += 1;
            left -= 1;
        }
    }
    shares
}

/// A number that is spread evenly over the batches, and also over every second or third of them. The mixing
/// is SplitMix64 by Steele, Lea and Flood.
fn spread(batch: i64, level: u64) -> u64 {
    let mut mixed = batch
        .unsigned_abs()
        .wrapping_mul(2)
        .wrapping_add(level)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;

    #[test]
    fn requests_with_a_cap_take_turns_with_the_rest() {
        for (last, expected) in [
            (None, [Some(1), Some(8), None]),
            (Some(Some(1)), [Some(8), None, Some(1)]),
            (Some(Some(4)), [Some(8), None, Some(1)]),
            (Some(Some(8)), [None, Some(1), Some(8)]),
            (Some(None), [Some(1), Some(8), None]),
        ] {
            assert_eq!(caps_in_turn(vec![1, 8], last.as_ref()), expected, "{last:?}");
        }
    }

    fn queue(job: i64, client: &str, length: u32) -> JobQueue {
        JobQueue {
            job,
            client: client.into(),
            since: Timestamp::from_millis(0),
            length,
        }
    }

    #[test]
    fn clients_share_evenly_whatever_their_number_of_jobs() {
        let queues = [
            queue(1, "a", 50_000),
            queue(2, "a", 50_000),
            queue(3, "b", 2),
            queue(4, "c", 50_000),
        ];
        let shares: Vec<(i64, u32)> = fair_shares(&queues, 1002, 1)
            .into_iter()
            .map(|(queue, share)| (queue.job, share))
            .collect();
        assert_eq!(shares, [(1, 250), (2, 250), (3, 2), (4, 500)]);
    }

    #[test]
    fn no_queue_gets_more_than_it_wants_and_every_line_is_used() {
        assert_eq!(even(&[5, 1, 9], 100, 0), [5, 1, 9]);
        assert_eq!(even(&[5, 1, 9], 9, 0), [4, 1, 4]);
        assert_eq!(even(&[5, 1, 9], 10, 0), [5, 1, 4]);
        assert_eq!(even(&[5, 1, 9], 10, 1), [4, 1, 5]);
        assert_eq!(even(&[5, 1, 9], 1, 4), [0, 1, 0]);
        assert!(even(&[], 9, 3).is_empty());
    }

    #[test]
    fn no_queue_is_ignored_for_long_when_there_is_less_than_a_line_for_each() {
        // Twelve large jobs of one client, a small one of another; and every second or third batch alone.
        let mut queues: Vec<JobQueue> = (1..=12).map(|job| queue(job, "a", 1000)).collect();
        queues.push(queue(13, "b", 2));
        for step in 1..=3 {
            let mut last = [0; 14];
            for (nth, batch) in (0..600).zip((1..).step_by(step)) {
                for (queue, share) in fair_shares(&queues, 1, batch) {
                    let job = usize::try_from(queue.job).unwrap();
                    let limit = if job == 13 { 20 } else { 200 };
                    assert!(nth - last[job] < limit, "job {job} by batch {batch}");
                    if share > 0 {
                        last[job] = nth;
                    }
                }
            }
        }
    }
}
