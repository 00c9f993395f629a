//! When to try again, and when to stop.

use std::time::Duration;

/// How often to try, and how long to wait in between.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Attempts in all, the first one among them.
    pub attempts: u32,
    /// Wait after the first attempt.
    pub first: Duration,
    /// Each later wait is so many times as long.
    pub factor: f64,
    /// But never longer than this.
    pub most: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            first: Duration::from_secs(1),
            factor: 2.0,
            most: Duration::from_secs(10),
        }
    }
}

/// The waits of one thing that is tried again.
#[derive(Clone, Debug)]
pub struct Backoff {
    retry: Retry,
    failures: u32,
}

impl Backoff {
    /// Nothing was tried yet.
    #[must_use]
    pub const fn new(retry: Retry) -> Self {
        Self { retry, failures: 0 }
    }

    /// An attempt failed: the wait before the next one, or `None` when it was the last. `jitter`, from 0
    /// to 1, spreads those who failed together over the last quarter of the wait.
    pub fn fail(&mut self, jitter: f64) -> Option<Duration> {
        self.failures += 1;
        if self.failures >= self.retry.attempts {
            return None;
        }
        let exponent = i32::try_from(self.failures - 1).unwrap_or(i32::MAX);
        let seconds = self.retry.first.as_secs_f64() * self.retry.factor.powi(exponent);
        let most = self.retry.most.as_secs_f64();
        let wait = if seconds.is_finite() {
            seconds.clamp(0.0, most)
        } else {
            most
        };
        Some(Duration::from_secs_f64(
            wait * (0.75 + 0.25 * jitter.clamp(0.0, 1.0)),
        ))
    }

    /// Something worked: the attempts count anew.
    pub fn succeed(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(retry: Retry) -> Vec<Duration> {
        let mut backoff = Backoff::new(retry);
        std::iter::from_fn(|| backoff.fail(1.0)).collect()
    }

    #[test]
    fn three_attempts_one_second_twice_as_long_at_most_ten() {
        let second = Duration::from_secs(1);
        assert_eq!(waits(Retry::default()), [second, 2 * second]);
        let many = waits(Retry {
            attempts: 7,
            ..Retry::default()
        });
        assert_eq!(many, [1, 2, 4, 8, 10, 10].map(Duration::from_secs));
        assert!(
            waits(Retry {
                attempts: 0,
                ..Retry::default()
            })
            .is_empty()
        );
    }

    #[test]
    fn odd_settings_wait_no_longer_than_the_most() {
        for factor in [f64::INFINITY, f64::NAN, 1e300, -3.0, 0.0, 1.0] {
            let retry = Retry {
                attempts: 5000,
                factor,
                ..Retry::default()
            };
            assert!(waits(retry.clone()).iter().all(|wait| *wait <= retry.most));
        }
    }

    #[test]
    fn success_begins_anew() {
        let mut backoff = Backoff::new(Retry::default());
        assert!(backoff.fail(0.0).is_some() && backoff.fail(0.0).is_some());
        backoff.succeed();
        assert_eq!(backoff.fail(0.0), Some(Duration::from_millis(750)));
    }
}
