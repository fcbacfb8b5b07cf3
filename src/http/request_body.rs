//! Reads the body of a request.

use std::time::Duration;

use super::client_stream::{ClientStream, time_at_min_rate};
use super::connection_limiter::{ConnectionPermit, Phase};
use super::http_error::{HttpError, RequestFailure};
use super::memory_budget::BodyReservation;

/// The size of a body's first piece.
const FIRST_PIECE_BYTES: u64 = 16 * 1024;
/// The largest piece of a body.
const MAX_PIECE_BYTES: u64 = 256 * 1024;

/// Reads a body of `length` bytes in pieces, so that each piece can be freed as soon as it is passed on. No
/// piece is larger than all pieces before it together, so the memory in use follows what has arrived.
///
/// The body may fall behind the minimum rate by `max_stall`. Time that a fast client gains is not carried
/// over to the next piece.
///
/// # Errors
/// If the body is incomplete or too slow, if the memory budget is used up, or if the connection was evicted.
pub fn read_body(
    client: &mut ClientStream,
    permit: &ConnectionPermit,
    length: u64,
    max_stall: Duration,
    reservation: &mut BodyReservation<'_>,
) -> Result<Vec<Vec<u8>>, RequestFailure> {
    let mut deadline = client.now() + max_stall;
    let mut pieces = Vec::new();
    let mut arrived = 0;
    while arrived < length {
        // The head or a piece has arrived, which is progress.
        if !permit.enter(Phase::Arriving) {
            return Err(RequestFailure::ConnectionLost);
        }
        let bytes = (length - arrived).min(arrived.clamp(FIRST_PIECE_BYTES, MAX_PIECE_BYTES));
        if !reservation.grow(bytes) {
            return Err(HttpError::budget_exceeded().into());
        }
        pieces.push(read_piece(client, bytes, deadline)?);
        deadline = (deadline + time_at_min_rate(bytes)).min(client.now() + max_stall);
        arrived += bytes;
    }
    Ok(pieces)
}

fn read_piece(client: &mut ClientStream, bytes: u64, deadline: Duration) -> Result<Vec<u8>, RequestFailure> {
    let size = usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut piece = vec![0; size];
    let mut filled = client.buffer.len().min(size);
    piece[..filled].copy_from_slice(&client.buffer[..filled]);
    client.buffer.drain(..filled);
    while filled < size {
        let within = deadline.saturating_sub(client.now());
        match client.read(&mut piece[filled..], within) {
            Ok(0) => {
                let message = "the body is shorter than its Content-Length";
                return Err(HttpError::new(400, "INVALID_PARAMETER", message).into());
            }
            Ok(count) => filled += count,
            Err(error) => return Err(RequestFailure::while_reading("body", &error)),
        }
    }
    Ok(piece)
}
