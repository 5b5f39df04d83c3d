//! What one seed asks for: how large the world is, what goes wrong in it and how often.

use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;

/// How nodes get their keys and what they show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowKind {
    /// Token and certificate request: `features.jwt`, `features.pki`.
    TokenAndRequest,
    /// Certificate request only: `features.pki`.
    Request,
    /// Token only; the helper makes key and certificate, in a directory that does not exist yet.
    HelperKey,
}

impl FlowKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::TokenAndRequest, Self::Request, Self::HelperKey];
}

/// How often things go wrong while they may: probabilities at each opportunity, or times per simulated minute.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rates {
    /// A message is lost.
    pub loss: f64,
    /// A message arrives twice.
    pub duplicate: f64,
    /// A message takes seconds.
    pub delay: f64,
    /// A provisioner dies between two effects.
    pub provisioner_between_effects: f64,
    /// A node dies at some point of a request.
    pub node_at_request: f64,
    /// A node dies within the work of a request.
    pub node_in_work: f64,
    /// A node dies while it recovers.
    pub node_in_recovery: f64,
    /// A disk fails within the work of a request.
    pub disk: f64,
    /// A death of a node is a power cut.
    pub power: f64,
    /// A helper misbehaves.
    pub helper: f64,
    /// Deaths of provisioners per minute.
    pub provisioner_kills: f64,
    /// Stops of provisioners for another reason per minute.
    pub provisioner_stops: f64,
    /// Deaths of nodes per minute.
    pub node_kills: f64,
    /// Partitions per minute.
    pub partitions: f64,
    /// Broker restarts per minute.
    pub broker_restarts: f64,
    /// Jumps of wall clocks per minute.
    pub clock_jumps: f64,
    /// Members sent back into provisioning per minute.
    pub reprovisions: f64,
    /// Replacements of the authority per minute.
    pub ca_swaps: f64,
}

/// One death at one exact step, in a world where nothing else goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// The provisioner dies before its effect of this number.
    ProvisionerAtEffect(u64),
    /// The first machine dies after this many disk operations.
    MachineAtOperation {
        /// Operations of its disk since its first start.
        after: u64,
        /// Whether a write is cut in the middle.
        torn: bool,
        /// Whether the power goes, too.
        power: bool,
    },
    /// The first machine dies right before (even) or after (odd) its reply of this number divided by two.
    MachineAtReply(u64),
    /// The broker restarts when this message is published.
    BrokerAtMessage(u64),
}

/// Everything about a history but its chances.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Machines that are to be provisioned.
    pub machines: usize,
    /// The last two machines share one identity.
    pub twins: bool,
    /// Machines that were members before and are being provisioned again.
    pub returning: usize,
    /// Provisioners, each with an identity of its own.
    pub provisioners: usize,
    /// Holders of a token with bad intentions.
    pub hostiles: usize,
    /// Whether the broker checks that nodes speak for themselves; another broker does not.
    pub guarded: bool,
    /// Whether the broker tells the provisioner that nobody listens, and that a connection has ended.
    pub informs: bool,
    /// How the flow goes.
    pub flow: FlowKind,
    /// Nodes start within this time.
    pub spread: Duration,
    /// Things may go wrong for so long.
    pub trouble: Duration,
    /// The tokens on the nodes expire this long after the beginning.
    pub token_lives: Option<Duration>,
    /// What goes wrong.
    pub rates: Rates,
    /// One death at one step.
    pub script: Option<Script>,
}

impl Scenario {
    /// A world where nothing goes wrong.
    pub fn quiet(machines: usize, flow: FlowKind) -> Self {
        Self {
            machines,
            twins: false,
            returning: 0,
            provisioners: 1,
            hostiles: 0,
            guarded: true,
            informs: true,
            flow,
            spread: Duration::from_secs(2),
            trouble: Duration::from_secs(30),
            token_lives: None,
            rates: Rates::default(),
            script: None,
        }
    }

    /// Whether nothing may go wrong.
    pub fn is_quiet(&self) -> bool {
        self.rates == Rates::default()
            && self.script.is_none()
            && self.hostiles == 0
            && self.token_lives.is_none()
            && !self.twins
            && self.provisioners == 1
    }

    /// Draws a scenario.
    pub fn draw(random: &mut SmallRng) -> Self {
        let flow = match random.random_range(0..10) {
            0..6 => FlowKind::TokenAndRequest,
            6..8 => FlowKind::Request,
            _ => FlowKind::HelperKey,
        };
        let machines = *pick(random, &[1, 1, 2, 2, 3, 3, 4, 5, 6, 8]);
        if random.random_bool(0.03) {
            return Self { returning: random.random_range(0..=machines), ..Self::quiet(machines, flow) };
        }
        let trouble = Duration::from_secs(random.random_range(30..400));
        let guarded = random.random_bool(0.6);
        let provisioners = if random.random_bool(0.25) { 2 } else { 1 };
        Self {
            // Two provisioners and two nodes of one name that a broker lets in together: each of the nodes is locked for one
            // of the provisioners, the other one's refusal comes first, and nobody gets on. Only our broker prevents that.
            twins: machines > 1 && (guarded || provisioners == 1) && random.random_bool(0.15),
            returning: if random.random_bool(0.3) { random.random_range(0..=machines) } else { 0 },
            provisioners,
            hostiles: if random.random_bool(0.4) { random.random_range(1..=2) } else { 0 },
            guarded,
            informs: random.random_bool(0.7),
            spread: Duration::from_millis(random.random_range(0..60_000)),
            trouble,
            token_lives: random.random_bool(0.15).then(|| trouble.mul_f64(random.random_range(0.1..0.9))),
            rates: Rates::draw(random),
            ..Self::quiet(machines, flow)
        }
    }
}

impl Rates {
    /// Draws which things go wrong in a history, and how often. Each history has a profile of its own: with everything
    /// at once, nothing would ever get far enough to meet the rarer troubles.
    fn draw(random: &mut SmallRng) -> Self {
        let mut some = |chance: f64, most: f64| {
            if random.random_bool(chance) { random.random_range(0.0..most) } else { 0.0 }
        };
        Self {
            loss: some(0.4, 0.25),
            duplicate: some(0.4, 0.3),
            delay: some(0.4, 0.3),
            provisioner_between_effects: some(0.3, 0.1),
            node_at_request: some(0.3, 0.2),
            node_in_work: some(0.5, 0.6),
            node_in_recovery: some(0.5, 0.9),
            disk: some(0.3, 0.5),
            power: some(0.7, 1.0),
            helper: some(0.4, 0.6),
            provisioner_kills: some(0.3, 3.0),
            provisioner_stops: some(0.3, 2.0),
            node_kills: some(0.3, 6.0),
            partitions: some(0.3, 3.0),
            broker_restarts: some(0.3, 1.5),
            clock_jumps: some(0.3, 3.0),
            reprovisions: some(0.3, 2.0),
            ca_swaps: some(0.25, 1.0),
        }
    }
}

/// One of several.
pub(crate) fn pick<'a, T>(random: &mut SmallRng, from: &'a [T]) -> &'a T {
    &from[random.random_range(0..from.len())]
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn scenarios_differ_and_reach_every_kind() {
        let all: Vec<Scenario> = (0..500).map(|seed| Scenario::draw(&mut SmallRng::seed_from_u64(seed))).collect();
        for kind in FlowKind::ALL {
            assert!(all.iter().any(|scenario| scenario.flow == kind));
        }
        assert!(all.iter().any(Scenario::is_quiet));
        assert!(all.iter().any(|scenario| scenario.twins && scenario.hostiles > 0 && scenario.provisioners == 2));
        assert!(all.iter().any(|scenario| scenario.token_lives.is_some() && !scenario.guarded));
    }
}
