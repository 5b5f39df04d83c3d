//! What goes wrong at any time, and how everything is put right in the end.

use std::path::Path;
use std::time::Duration;

use rand::Rng;

use crate::broker::Party;
use crate::check::TOKEN;
use crate::disk::Trouble;
use crate::material::{AUTHORITIES, Material};
use crate::scenario::pick;
use crate::world::{Event, World, note};

/// How long a party that is cut off goes on without noticing.
const NOTICES: Duration = Duration::from_secs(10);

/// Something bad that happens to the world.
type Misfortune = fn(&mut World);

impl World {
    pub(crate) fn plan_trouble(&mut self) {
        let rates = &self.scenario.rates;
        let per_minute = rates.provisioner_kills
            + rates.provisioner_stops
            + rates.node_kills
            + rates.partitions
            + rates.broker_restarts
            + rates.clock_jumps
            + rates.reprovisions
            + rates.ca_swaps;
        if per_minute > 0.0 {
            // Exponentially distributed, so that troubles come in bunches, too.
            let wait = -self.random.random_range(f64::EPSILON..1.0).ln() * 60.0 / per_minute;
            self.agenda.plan(self.now + Duration::from_secs_f64(wait), Event::Trouble);
        }
    }

    pub(crate) fn trouble(&mut self) {
        if self.healthy {
            return;
        }
        let rates = self.scenario.rates.clone();
        let kinds: [(f64, Misfortune); 8] = [
            (rates.provisioner_kills, Self::kill_a_provisioner),
            (rates.provisioner_stops, Self::stop_a_provisioner),
            (rates.node_kills, Self::kill_a_machine),
            (rates.partitions, Self::cut_somebody_off),
            (rates.broker_restarts, Self::restart_the_broker),
            (rates.clock_jumps, Self::jump),
            (rates.reprovisions, Self::send_back),
            (rates.ca_swaps, Self::swap_authority),
        ];
        let mut at = self.random.random_range(0.0..kinds.iter().map(|(rate, _)| rate).sum());
        for (rate, happens) in kinds {
            if at < rate {
                happens(self);
                break;
            }
            at -= rate;
        }
        self.plan_trouble();
    }

    fn a_provisioner(&mut self) -> usize {
        self.random.random_range(0..self.provisioners.len())
    }

    fn a_machine(&mut self) -> usize {
        self.random.random_range(0..self.machines.len())
    }

    fn kill_a_provisioner(&mut self) {
        let index = self.a_provisioner();
        self.stats.provisioner_kills += 1;
        self.end_provisioner(index, "is killed");
    }

    fn stop_a_provisioner(&mut self) {
        let index = self.a_provisioner();
        self.trouble_provisioner(index);
    }

    fn kill_a_machine(&mut self) {
        let index = self.a_machine();
        if !self.machines[index].is_off() {
            self.stats.node_kills += 1;
            self.kill_machine(index, "is killed");
        }
    }

    fn cut_somebody_off(&mut self) {
        let party = if self.random.random_bool(0.7) {
            Party::Machine(self.a_machine())
        } else {
            Party::Provisioner(self.a_provisioner())
        };
        let lasts = self.between(Duration::from_millis(500), Duration::from_secs(40));
        self.stats.partitions += 1;
        note!(self, "{party} is cut off for {:.1}s", lasts.as_secs_f64());
        self.cut_off.insert(party, self.now + lasts);
        if lasts > NOTICES {
            // Both sides give up; each finds its old connection dead.
            for connection in self.broker.connections_of(party) {
                self.agenda.plan(self.now + NOTICES, Event::Dropped { connection });
                self.agenda.plan(self.now + NOTICES, Event::Closed { party, connection });
            }
        }
    }

    fn restart_the_broker(&mut self) {
        let down = self.between(Duration::from_millis(100), Duration::from_secs(20));
        self.restart_broker(down);
    }

    pub(crate) fn restart_broker(&mut self, down: Duration) {
        if !self.broker.up {
            return;
        }
        self.stats.broker_restarts += 1;
        note!(self, "the broker restarts, {:.1}s", down.as_secs_f64());
        for (connection, party) in self.broker.stop() {
            // Learnt a moment later: whoever publishes now does not know yet.
            let told = self.between(Duration::from_micros(10), Duration::from_millis(5));
            self.agenda.plan(self.now + told, Event::Closed { party, connection });
        }
        self.agenda.plan(self.now + down, Event::BrokerUp);
    }

    fn jump(&mut self) {
        let magnitude = *pick(&mut self.random, &[1, 5, 30, 90, 600, 7200, 40_000_000]);
        let seconds: i64 = self.random.random_range(1..=magnitude);
        let forward = self.random.random_bool(0.5);
        let jump = if forward { seconds } else { -seconds };
        self.stats.clock_jumps_forward += u64::from(forward);
        self.stats.clock_jumps_backward += u64::from(!forward);
        if self.random.random_bool(0.5) {
            let index = self.a_machine();
            self.machines[index].clock += jump;
            note!(self, "the clock of m{index} jumps by {jump}s");
        } else {
            let index = self.a_provisioner();
            self.provisioners[index].clock += jump;
            note!(self, "the clock of p{index} jumps by {jump}s");
        }
    }

    fn send_back(&mut self) {
        let index = self.a_machine();
        self.reprovision(index);
    }

    fn swap_authority(&mut self) {
        self.stats.ca_swaps += 1;
        self.helper.authority = (self.helper.authority + 1) % AUTHORITIES;
        note!(self, "authority {} signs from now on", self.helper.authority);
    }

    /// Everything is put right: clocks, tokens, network, broker. What is off is started.
    pub(crate) fn heal(&mut self) {
        note!(self, "nothing goes wrong any more");
        self.healthy = true;
        self.cut_off.clear();
        if !self.broker.up {
            self.agenda.plan(self.now, Event::BrokerUp);
        }
        for provisioner in &mut self.provisioners {
            provisioner.clock = 0;
        }
        let token = Material::get().token(None);
        for index in 0..self.machines.len() {
            let machine = &mut self.machines[index];
            machine.clock = 0;
            if self.scenario.script.is_none() {
                machine.disk.set_trouble(Trouble::None);
            }
            if self.scenario.token_lives.is_some()
                && machine.disk.plant(Path::new(TOKEN), token.as_bytes(), 0o600).is_err()
            {
                self.violate("a token cannot be replaced".to_owned());
            }
            self.boot(index, Duration::from_secs(1));
        }
    }
}
