//! The arithmetic of traffic: which share of the requests goes to which deployment.

use std::collections::BTreeMap;

use crate::fault::Fault;

/// Percentages by deployment name. The sum is 0 or 100; zero weights are kept, since clients show them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrafficSplit(BTreeMap<String, u8>);

impl TrafficSplit {
    /// Checks and wraps a map of percentages.
    ///
    /// # Errors
    /// `BadArgument` when a share is over 100 or the sum is neither 0 nor 100.
    pub fn new(shares: BTreeMap<String, u64>) -> Result<Self, Fault> {
        let mut sum = 0_u64;
        let mut kept = BTreeMap::new();
        for (name, share) in shares {
            let fitting = u8::try_from(share).ok().filter(|share| *share <= 100).ok_or_else(|| {
                Fault::invalid(
                    "BadArgument",
                    format!("The traffic of deployment '{name}' is {share}; give a whole percentage from 0 to 100."),
                )
                .at("traffic")
            })?;
            sum += share;
            kept.insert(name, fitting);
        }
        if sum != 0 && sum != 100 {
            return Err(Fault::invalid(
                "BadArgument",
                format!("The traffic percentages add up to {sum}; they must add up to 0 or 100."),
            )
            .at("traffic"));
        }
        Ok(Self(kept))
    }

    /// The deployment that a draw in `0..100` falls on, or none when no deployment has a share.
    #[must_use]
    pub fn pick(&self, draw: u8) -> Option<&str> {
        let mut upper = 0_u8;
        for (name, share) in &self.0 {
            upper += share;
            if draw < upper {
                return Some(name);
            }
        }
        None
    }

    /// The share of a deployment in percent; 0 when it is not named.
    #[must_use]
    pub fn share(&self, deployment: &str) -> u8 {
        self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(deployment)).map_or(0, |(_, share)| *share)
    }

    /// The named deployments with their shares, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u8)> {
        self.0.iter().map(|(name, share)| (name.as_str(), *share))
    }

    /// Whether no deployment has a positive share.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.values().all(|share| *share == 0)
    }
}

/// The one deployment that gets copies of live requests, and of how many of 100.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The target.
    pub deployment: String,
    /// 1 to 50.
    pub percent: u8,
}

impl Mirror {
    /// Reads a mirror map; zero shares mean no mirroring.
    ///
    /// # Errors
    /// `BadArgument` for more than one target, more than 50 percent, or a target that also has live traffic.
    pub fn new(shares: &BTreeMap<String, u64>, live: &TrafficSplit) -> Result<Option<Self>, Fault> {
        let bad = |message: String| Err(Fault::invalid("BadArgument", message).at("mirrorTraffic"));
        let mut targets = shares.iter().filter(|(_, share)| **share > 0);
        let Some((deployment, share)) = targets.next() else {
            return Ok(None);
        };
        if targets.next().is_some() {
            return bad("Only one deployment can receive mirrored traffic at a time; set the others to 0.".to_owned());
        }
        let percent = match u8::try_from(*share) {
            Ok(percent) if percent <= 50 => percent,
            _ => {
                return bad(format!(
                    "The mirror traffic of '{deployment}' is {share}; at most 50 percent can be mirrored."
                ));
            }
        };
        if live.share(deployment) > 0 {
            return bad(format!(
                "Deployment '{deployment}' has live traffic; a deployment can't receive both live and mirrored traffic."
            ));
        }
        Ok(Some(Self { deployment: deployment.clone(), percent }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(shares: &[(&str, u64)]) -> Result<TrafficSplit, Fault> {
        TrafficSplit::new(shares.iter().map(|(name, share)| ((*name).to_owned(), *share)).collect())
    }

    #[test]
    fn sums() {
        for good in [&[][..], &[("a", 0)], &[("a", 100)], &[("a", 90), ("b", 10)], &[("a", 0), ("b", 100)]] {
            assert!(split(good).is_ok(), "{good:?}");
        }
        for bad in [&[("a", 50)][..], &[("a", 90), ("b", 20)], &[("a", 101)], &[("a", u64::MAX), ("b", 1)]] {
            assert!(split(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_draw_falls_in_proportion() {
        let split = split(&[("blue", 90), ("green", 10), ("grey", 0)]).unwrap();
        let green = (0..100).filter(|draw| split.pick(*draw) == Some("green")).count();
        let blue = (0..100).filter(|draw| split.pick(*draw) == Some("blue")).count();
        assert_eq!((blue, green), (90, 10));
        assert_eq!(TrafficSplit::default().pick(0), None);
    }

    #[test]
    fn mirrors() {
        let live = split(&[("blue", 100)]).unwrap();
        let mirror =
            |shares: &[(&str, u64)]| Mirror::new(&shares.iter().map(|(n, s)| ((*n).to_owned(), *s)).collect(), &live);
        assert_eq!(mirror(&[("green", 10)]).unwrap(), Some(Mirror { deployment: "green".into(), percent: 10 }));
        assert_eq!(mirror(&[("green", 0)]).unwrap(), None);
        assert!(mirror(&[("green", 51)]).is_err());
        assert!(mirror(&[("blue", 10)]).is_err());
        assert!(mirror(&[("green", 10), ("red", 10)]).is_err());
    }
}
