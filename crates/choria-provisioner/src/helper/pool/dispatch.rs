//! Which process gets which request. No I/O.
//!
//! The least loaded process gets the oldest request; one that is not started yet counts as without load. More than one
//! request at a time goes to a process only when the helper has shown that it repeats `identity`: otherwise one skipped
//! answer would give every later node its neighbour's configuration.

use std::collections::VecDeque;

use super::conversation::Job;

/// What is known about the helper's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naming {
    /// There was no answer yet.
    Unknown,
    /// Every answer so far named its node.
    Always,
    /// Some did not.
    NotAlways,
}

/// The requests that wait and the places of the processes.
#[derive(Debug)]
pub(super) struct Dispatch {
    waiting: VecDeque<Job>,
    places: Vec<Place>,
    pipeline: usize,
    naming: Naming,
    closed: bool,
}

/// The place of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// No process.
    #[default]
    Empty,
    /// A process runs.
    Running,
    /// Its process ended and is not started again yet.
    Resting,
}

#[derive(Debug, Default)]
struct Place {
    state: State,
    /// Handed out and not yet taken.
    inbox: Vec<Job>,
    /// Requests in the inbox and under way.
    load: usize,
    /// It has a suspect, and gets nothing beside it.
    alone: bool,
}

impl Dispatch {
    pub(super) fn new(processes: usize, pipeline: usize) -> Self {
        let places = (0..processes.max(1)).map(|_| Place::default()).collect();
        Self { waiting: VecDeque::new(), places, pipeline: pipeline.max(1), naming: Naming::Unknown, closed: false }
    }

    /// Takes a request on; it is given back when the pool was closed.
    pub(super) fn submit(&mut self, job: Job) -> Result<(), Job> {
        if self.closed {
            return Err(job);
        }
        self.waiting.push_back(job);
        Ok(())
    }

    /// Takes no more requests.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Requests under way in one process.
    fn depth(&self) -> usize {
        match self.naming {
            Naming::Always => self.pipeline,
            Naming::Unknown | Naming::NotAlways => 1,
        }
    }

    /// Hands waiting requests to places with room; returns the places that got some.
    pub(super) fn assign(&mut self) -> Vec<usize> {
        let mut got = Vec::new();
        while let Some(next) = self.waiting.front() {
            let room = if next.suspect { 1 } else { self.depth() };
            let free = self
                .places
                .iter()
                .enumerate()
                .filter(|(_, place)| place.state != State::Resting && !place.alone && place.load < room);
            // Of those with the same load one that runs, so that no process is started without need.
            let best = free.min_by_key(|(_, place)| (place.load, place.state != State::Running));
            let Some((index, _)) = best else { break };
            let Some(job) = self.waiting.pop_front() else { break };
            let place = &mut self.places[index];
            place.alone = job.suspect;
            place.load += 1;
            place.inbox.push(job);
            if !got.contains(&index) {
                got.push(index);
            }
        }
        got
    }

    /// What was handed to a place.
    pub(super) fn take(&mut self, place: usize) -> Vec<Job> {
        std::mem::take(&mut self.places[place].inbox)
    }

    /// Whether something was handed to a place.
    pub(super) fn has_work(&self, place: usize) -> bool {
        !self.places[place].inbox.is_empty()
    }

    /// A process was started in a place.
    pub(super) fn started(&mut self, place: usize) {
        self.places[place].state = State::Running;
    }

    /// A request of a place was answered; `named`: the answer named its node. Returns whether it is news that the helper
    /// does not name all of them.
    pub(super) fn answered(&mut self, place: usize, named: bool) -> bool {
        let place = &mut self.places[place];
        place.load = place.load.saturating_sub(1);
        place.alone &= place.load > 0;
        match (self.naming, named) {
            (Naming::Unknown, true) => self.naming = Naming::Always,
            (Naming::Unknown | Naming::Always, false) => {
                self.naming = Naming::NotAlways;
                return true;
            }
            _ => {}
        }
        false
    }

    /// The process of a place is gone. What it is to be asked `again` comes before everything that waits.
    pub(super) fn ended(&mut self, place: usize, again: Vec<Job>) {
        let place = &mut self.places[place];
        let untouched = std::mem::take(&mut place.inbox);
        *place = Place { state: State::Resting, ..Place::default() };
        for job in again.into_iter().chain(untouched).rev() {
            self.waiting.push_front(job);
        }
    }

    /// A place may start a process again.
    pub(super) fn rested(&mut self, place: usize) {
        self.places[place].state = State::Empty;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::sync::oneshot;
    use tokio::time::Instant;

    use super::*;

    fn job(number: usize) -> Job {
        let (reply, _) = oneshot::channel();
        Job {
            identity: number.to_string().into(),
            request: String::new(),
            suspect: false,
            since: Instant::now(),
            reply,
        }
    }

    fn loads(dispatch: &Dispatch) -> Vec<usize> {
        dispatch.places.iter().map(|place| place.load).collect()
    }

    fn submit(dispatch: &mut Dispatch, count: usize) -> Vec<usize> {
        for number in 0..count {
            dispatch.submit(job(number)).unwrap();
        }
        dispatch.assign()
    }

    #[test]
    fn one_at_a_time_until_the_helper_names_its_nodes() {
        let mut dispatch = Dispatch::new(2, 4);
        assert_eq!(submit(&mut dispatch, 10), [0, 1]);
        assert_eq!(loads(&dispatch), [1, 1]);
        assert!(!dispatch.answered(0, true));
        dispatch.assign();
        assert_eq!(loads(&dispatch), [4, 4]);
        assert!(dispatch.answered(1, false), "told once");
        assert!(!dispatch.answered(1, false));
        dispatch.assign();
        assert_eq!(loads(&dispatch), [4, 2], "back to one at a time");
    }

    #[test]
    fn a_running_process_comes_before_a_new_one_and_a_new_one_before_a_busy_one() {
        let mut dispatch = Dispatch::new(2, 4);
        assert_eq!(submit(&mut dispatch, 1), [0]);
        dispatch.started(0);
        dispatch.answered(0, true);
        assert_eq!(submit(&mut dispatch, 1), [0]);
        assert_eq!(submit(&mut dispatch, 1), [1]);
        assert_eq!(submit(&mut dispatch, 2), [0, 1]);
    }

    #[test]
    fn a_suspect_is_alone_and_comes_first() {
        let mut dispatch = Dispatch::new(1, 4);
        submit(&mut dispatch, 1);
        dispatch.answered(0, true);
        submit(&mut dispatch, 2);
        dispatch.take(0);
        submit(&mut dispatch, 1);
        dispatch.ended(0, vec![Job { suspect: true, ..job(7) }, Job { suspect: true, ..job(8) }]);
        assert!(dispatch.assign().is_empty(), "it rests");
        dispatch.rested(0);
        assert_eq!(dispatch.assign(), [0]);
        let alone = dispatch.take(0);
        assert_eq!((alone.len(), &*alone[0].identity), (1, "7"));
        dispatch.answered(0, true);
        dispatch.assign();
        assert_eq!(&*dispatch.take(0)[0].identity, "8");
        dispatch.answered(0, true);
        dispatch.assign();
        assert_eq!(dispatch.take(0).len(), 1, "what was never written comes before what waits");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_place_is_overloaded(
            steps in prop::collection::vec((0_u8..5, 0_usize..3, any::<bool>()), 0..200), pipeline in 1_usize..5
        ) {
            let mut dispatch = Dispatch::new(3, pipeline);
            let mut under_way: Vec<Vec<Job>> = vec![Vec::new(), Vec::new(), Vec::new()];
            let (mut submitted, mut done) = (0, 0);
            for (step, place, flag) in steps {
                match step {
                    0 | 1 => {
                        dispatch.submit(job(submitted)).unwrap();
                        submitted += 1;
                    }
                    2 => {
                        let taken = dispatch.take(place);
                        under_way[place].extend(taken);
                    }
                    3 => {
                        if under_way[place].pop().is_some() {
                            dispatch.answered(place, flag);
                            done += 1;
                        }
                    }
                    _ => {
                        let mut again = std::mem::take(&mut under_way[place]);
                        again.iter_mut().for_each(|job| job.suspect |= flag);
                        dispatch.ended(place, again);
                        dispatch.rested(place);
                    }
                }
                dispatch.assign();
                for (index, place) in dispatch.places.iter().enumerate() {
                    prop_assert!(place.load <= pipeline);
                    prop_assert_eq!(place.load, place.inbox.len() + under_way[index].len());
                    let suspects = place.inbox.iter().chain(&under_way[index]).filter(|job| job.suspect).count();
                    prop_assert!(suspects == 0 || place.load == 1, "a suspect is alone");
                }
                let held: usize = dispatch.places.iter().map(|place| place.load).sum();
                prop_assert_eq!(submitted, done + held + dispatch.waiting.len());
            }
        }
    }
}
