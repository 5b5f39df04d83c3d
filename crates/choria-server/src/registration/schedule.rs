//! When registration data is due (spec 03 §12). Sans-io; one schedule per plugin, so that two plugins do not silence each
//! other (spec 03 §17 row 27).

use std::time::Duration;

use rand::Rng;

/// A tick may come this much early and still counts: whole intervals must not be skipped for a rounding.
const TOLERANCE: Duration = Duration::from_secs(1);

/// The settings of one plugin's rhythm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rhythm {
    /// `registerinterval`.
    pub interval: Duration,
    /// `registration_splay`.
    pub splay: bool,
    /// `plugin.choria.registration.size_trigger` in bytes, 0 = off.
    pub size_trigger: u64,
    /// `plugin.choria.registration.size_interval`.
    pub size_interval: Duration,
}

impl Rhythm {
    /// How long after the start the first look is taken: with splay a random part of the interval, then 1 to 4 seconds.
    pub fn first(&self, rng: &mut impl Rng) -> Duration {
        let splay = if self.splay { rng.random_range(0..self.interval.as_secs().max(1)) } else { 0 };
        Duration::from_secs(splay + rng.random_range(1..=4))
    }

    /// Time between two looks.
    pub fn tick(&self) -> Duration {
        if self.size_trigger > 0 { self.size_interval.min(self.interval) } else { self.interval }
    }
}

/// What was published last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Schedule {
    last: Option<(Duration, u64)>,
}

impl Schedule {
    /// Whether data of `size` bytes is due at `now` (time since the start).
    pub fn is_due(&self, rhythm: &Rhythm, now: Duration, size: u64) -> bool {
        let Some((at, last_size)) = self.last else { return true };
        let elapsed = now.saturating_sub(at) + TOLERANCE;
        elapsed >= rhythm.interval || (rhythm.size_trigger > 0 && size.abs_diff(last_size) >= rhythm.size_trigger)
    }

    /// Remembers a publication.
    pub fn published(&mut self, now: Duration, size: u64) {
        self.last = Some((now, size));
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const RHYTHM: Rhythm = Rhythm {
        interval: Duration::from_secs(120),
        splay: false,
        size_trigger: 0,
        size_interval: Duration::from_secs(30),
    };

    #[test]
    fn first_look_and_ticks() {
        let mut rng = StdRng::seed_from_u64(3);
        for _ in 0..200 {
            assert!((1..=4).contains(&RHYTHM.first(&mut rng).as_secs()));
            assert!((1..=123).contains(&Rhythm { splay: true, ..RHYTHM }.first(&mut rng).as_secs()));
        }
        assert_eq!(RHYTHM.tick().as_secs(), 120);
        assert_eq!(Rhythm { size_trigger: 10, ..RHYTHM }.tick().as_secs(), 30);
    }

    #[test]
    fn an_early_tick_does_not_skip_an_interval() {
        let at = Duration::from_secs_f64;
        let mut schedule = Schedule::default();
        assert!(schedule.is_due(&RHYTHM, at(1.0), 5));
        schedule.published(at(1.0), 5);
        assert!(!schedule.is_due(&RHYTHM, at(60.0), 500));
        assert!(schedule.is_due(&RHYTHM, at(120.6), 5));
    }

    #[test]
    fn growth_publishes_early() {
        let rhythm = Rhythm { size_trigger: 10, ..RHYTHM };
        let mut schedule = Schedule::default();
        schedule.published(Duration::ZERO, 100);
        let soon = Duration::from_secs(30);
        assert!(!schedule.is_due(&rhythm, soon, 109));
        assert!(schedule.is_due(&rhythm, soon, 110));
        assert!(schedule.is_due(&rhythm, soon, 90));
    }
}
