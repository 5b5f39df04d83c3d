//! Taking turns: the costly steps of newcomers, a few at a time.
//!
//! After a restart ten thousand TLS handshakes are there at once, half a millisecond of computing each. Were all of them
//! ready to run, a message of an established connection would wait behind them, and none of them would be done before
//! the first peer loses its patience. So only as many compute as there are threads, those that were begun before new
//! ones, each kind in the order in which it came.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Hands out a fixed number of turns.
#[derive(Debug)]
pub(crate) struct Turns {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// The peer waits for an answer that was begun.
    begun: VecDeque<oneshot::Sender<Turn>>,
    new: VecDeque<oneshot::Sender<Turn>>,
}

/// The right to compute. Goes to the next in line when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn(Option<Arc<Turns>>);

impl Turns {
    /// As many turns at the same time.
    pub(crate) fn new(count: usize) -> Arc<Self> {
        let state = State { free: count.max(1), begun: VecDeque::new(), new: VecDeque::new() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Lines up. The turn is given up when the receiver is dropped.
    pub(crate) fn line_up(self: &Arc<Self>, has_begun: bool) -> oneshot::Receiver<Turn> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        if state.free > 0 {
            state.free -= 1;
            drop(state);
            // Nobody can have dropped the receiver yet.
            let _ = sender.send(Turn(Some(Arc::clone(self))));
        } else if has_begun {
            state.begun.push_back(sender);
        } else {
            state.new.push_back(sender);
        }
        receiver
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // In a loop, because each send to somebody who has left gives the turn back.
        while let Some(turns) = self.0.take() {
            let mut state = turns.state.lock();
            let next = state.begun.pop_front().or_else(|| state.new.pop_front());
            let Some(next) = next else {
                state.free += 1;
                return;
            };
            drop(state);
            if let Err(mut back) = next.send(Self(Some(turns))) {
                self.0 = back.0.take();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_have_begun_come_first_and_those_who_left_are_passed_over() {
        let turns = Turns::new(1);
        let mut first = turns.line_up(false);
        let turn = first.try_recv().unwrap();
        let mut new: Vec<_> = (0..3).map(|_| turns.line_up(false)).collect();
        let mut begun = turns.line_up(true);
        assert!(new[0].try_recv().is_err() && begun.try_recv().is_err());
        drop(turn);
        let turn = begun.try_recv().unwrap();
        assert!(new[0].try_recv().is_err());
        drop(new.remove(0));
        drop(turn);
        let turn = new[0].try_recv().unwrap();
        assert!(new[1].try_recv().is_err());
        drop(turn);
        // Given, but never looked at.
        drop(new);
        assert!(turns.line_up(false).try_recv().is_ok());
    }

    #[test]
    fn a_crowd_that_left_is_passed_over_without_a_deep_stack() {
        let turns = Turns::new(2);
        let held: Vec<_> = (0..2).map(|_| turns.line_up(false).try_recv().unwrap()).collect();
        drop((0..200_000).map(|_| turns.line_up(false)).collect::<Vec<_>>());
        let mut last = turns.line_up(false);
        drop(held);
        assert!(last.try_recv().is_ok());
        assert!(turns.line_up(true).try_recv().is_ok());
    }
}
