//! `--limit` and `rpclimitmethod`: how many of the discovered nodes a request goes to (spec 05 §2.6).

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// How many nodes a request may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// At most this many nodes.
    Count(usize),
    /// This share of the discovered nodes, rounded down.
    Percent(usize),
}

/// Which nodes are kept when a limit leaves some out (`rpclimitmethod`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LimitMethod {
    /// The first ones in discovery order.
    #[default]
    First,
    /// A random choice. The same seed chooses the same nodes from the same list; it does not choose what the Go client chooses.
    Random {
        /// `--limit-seed`; `None` and zero differ at every run.
        seed: Option<u64>,
    },
}

/// Why a limit cannot be used. The texts are those of the reference (golden `cli/limits.jsonl`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Neither `3` nor `10%`.
    #[error(
        "could not limit targets: could not parse limit as either number or percent: got {0:?}, expected something like 3 or 10%"
    )]
    Unparsable(String),
    /// The limit leaves nothing.
    #[error("could not limit targets: no targets left after applying target limits of '{0}'")]
    NothingLeft(Limit),
    /// `rpclimitmethod` is unknown.
    #[error("limit method '{0}' is not valid, only 'random' or 'first' supported")]
    UnknownMethod(String),
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Count(n) => write!(f, "{n}"),
            Self::Percent(n) => write!(f, "{n}%"),
        }
    }
}

impl Limit {
    /// Reads `3`, `10%` or the empty text, which means no limit.
    pub fn parse(text: &str) -> Result<Option<Self>, LimitError> {
        if text.is_empty() {
            return Ok(None);
        }
        let (digits, percent) = text.strip_suffix('%').map_or((text, false), |digits| (digits, true));
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(LimitError::Unparsable(text.to_owned()));
        }
        // More digits than a usize holds can only mean "all of them".
        let number = digits.parse().unwrap_or(usize::MAX);
        Ok(Some(if percent { Self::Percent(number) } else { Self::Count(number) }))
    }

    /// How many of `discovered` nodes this leaves: never more than there are.
    pub fn allowed(&self, discovered: usize) -> usize {
        match self {
            Self::Count(n) => (*n).min(discovered),
            Self::Percent(n) => (discovered.saturating_mul(*n) / 100).min(discovered),
        }
    }

    /// Cuts `nodes` down. A limit above the number of nodes keeps them all.
    pub fn apply(&self, mut nodes: Vec<String>, method: LimitMethod) -> Result<Vec<String>, LimitError> {
        let allowed = self.allowed(nodes.len());
        if allowed == 0 {
            return Err(LimitError::NothingLeft(*self));
        }
        if let LimitMethod::Random { seed } = method {
            let seed = seed.filter(|seed| *seed > 0);
            let mut rng = seed.map_or_else(StdRng::from_os_rng, StdRng::seed_from_u64);
            nodes.shuffle(&mut rng);
        }
        nodes.truncate(allowed);
        Ok(nodes)
    }
}

impl LimitMethod {
    /// Reads `rpclimitmethod`.
    pub fn parse(text: &str, seed: Option<u64>) -> Result<Self, LimitError> {
        match text {
            "first" => Ok(Self::First),
            "random" => Ok(Self::Random { seed }),
            other => Err(LimitError::UnknownMethod(other.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("n{n}")).collect()
    }

    /// Every row of `golden/cli/limits.jsonl`; `-1` is refused by the command line before it gets here.
    #[test]
    fn golden_limits() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/cli/limits.jsonl");
        let text = std::fs::read_to_string(path).unwrap();
        let mut rows = 0;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let discovered = row["discovered"].as_u64().unwrap() as usize;
            let limit = row["limit"].as_str().unwrap();
            let got = Limit::parse(limit).and_then(|limit| match limit {
                Some(limit) => limit.apply(nodes(discovered), LimitMethod::First),
                None => Ok(nodes(discovered)),
            });
            let wanted = row["targets"].as_u64().or_else(|| row["wanted_targets"].as_u64());
            match (wanted, got) {
                (Some(count), Ok(kept)) => assert_eq!(kept, nodes(count as usize), "{line}"),
                (None, Err(error)) if limit != "-1" => {
                    assert!(error.to_string().starts_with(row["error"].as_str().unwrap()), "{line}: {error}");
                }
                (None, Err(_)) => {}
                (wanted, got) => panic!("{line}: wanted {wanted:?}, got {got:?}"),
            }
            rows += 1;
        }
        assert_eq!(rows, 20);
    }

    #[test]
    fn percent_rounds_down() {
        assert_eq!(Limit::Percent(10).allowed(25), 2);
        assert_eq!(Limit::Percent(10).allowed(9), 0);
    }

    /// DESIGN §6 (Client): `--limit` beyond the fleet ends; the reference hangs for ever.
    #[test]
    fn design6_limit_beyond_the_fleet_clamps() {
        assert_eq!(Limit::Count(10).apply(nodes(3), LimitMethod::First).unwrap(), nodes(3));
        assert_eq!(Limit::Percent(200).apply(nodes(3), LimitMethod::First).unwrap(), nodes(3));
        assert_eq!(Limit::parse("99999999999999999999999").unwrap().unwrap().allowed(3), 3);
    }

    #[test]
    fn the_same_seed_chooses_the_same_nodes() {
        let method = LimitMethod::Random { seed: Some(7) };
        let one = Limit::Count(5).apply(nodes(50), method).unwrap();
        let two = Limit::Count(5).apply(nodes(50), method).unwrap();
        assert_eq!(one, two);
        assert_ne!(one, nodes(5), "a seed of 7 does not happen to keep the order");
    }
}
