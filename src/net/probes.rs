//! Many images looked at side by side, by a fixed crew.

use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::image::{ImageLimits, ImageProblem};
use super::outbound::Outbound;
use crate::threads::Crew;

/// What was found of one image.
type Found = (String, Result<(), ImageProblem>);

/// One look that is wanted, and where what is found goes.
struct Wanted {
    url: String,
    tell: Sender<Found>,
}

/// The crew's other end. When it is dropped, the crew ends.
pub struct Probes {
    wanted: Sender<Wanted>,
}

impl Probes {
    /// Starts `number` threads that look at images.
    ///
    /// # Errors
    /// When the machine gives no further thread.
    pub fn start(crew: &Crew, outbound: &Arc<Outbound>, number: u32) -> io::Result<Self> {
        let (wanted, next) = bounded::<Wanted>(0);
        for number in 1..=number {
            let (outbound, next) = (outbound.clone(), next.clone());
            crew.spawn(&format!("image-{number}"), move || look(&outbound, &next))?;
        }
        Ok(Self { wanted })
    }

    /// Looks at every URL; comes back when all are known, in any order.
    pub fn check(&self, urls: Vec<String>) -> Vec<Found> {
        let (tell, found) = unbounded();
        for url in urls {
            let wanted = Wanted {
                url,
                tell: tell.clone(),
            };
            if self.wanted.send(wanted).is_err() {
                break;
            }
        }
        drop(tell);
        found.iter().collect()
    }
}

fn look(outbound: &Outbound, next: &Receiver<Wanted>) {
    let limits = ImageLimits::default();
    for Wanted { url, tell } in next {
        let mut seen = outbound.probe_image(&url, &limits);
        if seen.as_ref().is_err_and(ImageProblem::retry) {
            // Two failures in a row make an image missing.
            seen = outbound.probe_image(&url, &limits);
        }
        // Nobody listens any more only when the daemon stops.
        drop(tell.send((url, seen)));
    }
}
