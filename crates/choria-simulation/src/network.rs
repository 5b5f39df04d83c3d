//! The network: who is connected, what is on its way, what is lost, doubled and late.

use std::rc::Rc;
use std::time::Duration;

use crate::broker::{ConnectionId, DISCONNECTS, NotTaken, Party, Proof};
use crate::material::BEGINNING;
use crate::scenario::Script;
use crate::world::{Event, Message, World, note};

impl World {
    /// Who a message really comes from.
    pub(crate) fn name_of(&self, party: Party) -> String {
        match party {
            Party::Machine(index) => self.machines[index].identity.clone(),
            Party::Hostile(index) => self.hostiles[index].identity.clone(),
            Party::Provisioner(index) => format!("p{index}"),
        }
    }

    pub(crate) fn is_cut_off(&self, party: Party) -> bool {
        self.cut_off.get(&party).is_some_and(|until| *until > self.now)
    }

    pub(crate) fn connect(&mut self, party: Party, name: &str, proof: &Proof<'_>) -> Result<ConnectionId, String> {
        let unix = BEGINNING + i64::try_from(self.now.as_secs()).unwrap_or(i64::MAX);
        let (machines, hostiles, cut_off, now) = (&self.machines, &self.hostiles, &self.cut_off, self.now);
        let lives = |holder: Party, connection: ConnectionId| {
            let reachable = cut_off.get(&holder).is_none_or(|until| *until <= now);
            reachable
                && match holder {
                    Party::Machine(index) => machines[index].hears(connection),
                    Party::Hostile(index) => hostiles[index].hears(connection),
                    Party::Provisioner(_) => true,
                }
        };
        match self.broker.connect(party, name, proof, unix, lives) {
            Ok((connection, replaced)) => {
                if let Some((replaced, old)) = replaced {
                    self.stats.names_taken_over += 1;
                    note!(self, "{party} takes the name of {replaced}, which does not answer");
                    // Learnt when it can be reached again, if it still lives.
                    let at = self.cut_off.get(&replaced).map_or(self.now, |until| self.now.max(*until));
                    self.agenda.plan(at, Event::Closed { party: replaced, connection: old });
                    self.tell_of_end(replaced, name, "Claim Taken Over");
                }
                if let Some(expires) = self.broker.get(connection).and_then(|connection| connection.grant.expires_at) {
                    let left = Duration::from_secs(u64::try_from(expires - BEGINNING).unwrap_or_default());
                    self.agenda.plan(left.max(self.now), Event::Expire { connection });
                }
                Ok(connection)
            }
            Err(reason) => {
                if self.broker.up {
                    self.stats.connections_refused += 1;
                    note!(self, "{party} is refused by the broker: {reason}");
                }
                Err(reason)
            }
        }
    }

    /// A party is told that its connection is gone.
    pub(crate) fn lost(&mut self, party: Party, connection: ConnectionId) {
        match party {
            Party::Machine(index) => self.machine_lost(index, connection),
            Party::Provisioner(index) => self.provisioner_lost(index, connection),
            Party::Hostile(index) => self.hostiles[index].lost(),
        }
    }

    /// Sends a message.
    pub(crate) fn publish(
        &mut self,
        from: Party,
        connection: Option<ConnectionId>,
        subject: &str,
        payload: Vec<u8>,
    ) -> Result<usize, NotTaken> {
        let connection = connection.ok_or(NotTaken::NotConnected)?;
        self.stats.messages += 1;
        if self.scenario.script == Some(Script::BrokerAtMessage(self.stats.messages)) {
            self.restart_broker(Duration::from_secs(1));
        }
        if self.is_cut_off(from) {
            self.stats.lost += 1;
            // Nobody knows.
            return Ok(1);
        }
        let receivers = self.broker.publish(connection, subject, &payload)?;
        let message = Rc::new(Message { from, subject: subject.to_owned(), payload });
        for receiver in &receivers {
            self.transmit(*receiver, &message);
        }
        Ok(receivers.len())
    }

    /// Ends a connection at the broker, which tells of it.
    pub(crate) fn close(&mut self, connection: ConnectionId, reason: &str) -> Option<Party> {
        let closed = self.broker.close(connection)?;
        if let Some(name) = closed.grant.tag {
            self.tell_of_end(closed.party, &name, reason);
        }
        Some(closed.party)
    }

    /// The broker tells the provisioner that a node's connection has ended.
    fn tell_of_end(&mut self, party: Party, name: &str, reason: &str) {
        if self.scenario.informs {
            let advisory = serde_json::json!({
                "type": "io.nats.server.advisory.v1.client_disconnect", "client": {"name": name}, "reason": reason
            });
            let payload = advisory.to_string().into_bytes();
            let message = Rc::new(Message { from: party, subject: DISCONNECTS.to_owned(), payload });
            for listener in self.broker.listeners(DISCONNECTS) {
                self.transmit(listener, &message);
            }
        }
    }

    fn transmit(&mut self, connection: ConnectionId, message: &Rc<Message>) {
        let (loss, duplicate, delay) =
            (self.scenario.rates.loss, self.scenario.rates.duplicate, self.scenario.rates.delay);
        if self.chance(loss) {
            self.stats.lost += 1;
            return;
        }
        let copies = 1 + u32::from(self.chance(duplicate));
        self.stats.duplicated += u64::from(copies - 1);
        for _ in 0..copies {
            let mut takes = self.between(Duration::from_micros(100), Duration::from_millis(2));
            if self.chance(delay) {
                self.stats.delayed += 1;
                let most = if self.chance(0.1) { 90 } else { 5 };
                takes += self.between(Duration::from_millis(50), Duration::from_secs(most));
            }
            self.agenda.plan(self.now + takes, Event::Deliver { connection, message: Rc::clone(message) });
        }
    }

    pub(crate) fn deliver(&mut self, connection: ConnectionId, message: &Rc<Message>) {
        let Some(party) = self.broker.get(connection).map(|connection| connection.party) else {
            self.stats.lost_with_connection += 1;
            return;
        };
        if self.is_cut_off(party) {
            self.stats.lost += 1;
            return;
        }
        match party {
            Party::Machine(index) => self.deliver_to_machine(index, connection, message),
            Party::Provisioner(index) => self.deliver_to_provisioner(index, connection, message),
            Party::Hostile(index) => self.deliver_to_hostile(index, connection, message),
        }
    }
}
