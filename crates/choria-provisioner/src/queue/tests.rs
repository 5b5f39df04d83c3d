use proptest::prelude::*;

use super::*;

fn limits() -> Limits {
    Limits { max_known: 100, max_nodes: 3, ..Limits::for_interval(Duration::from_secs(60), 3) }
}

fn added() -> Admission {
    Admission::Added { evicted: None }
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn start(queue: &mut Scheduler, now: Instant) -> Option<String> {
    match queue.next_turn(now)? {
        Turn::Start { identity, .. } => Some(identity.to_string()),
        Turn::Stale { identity, .. } => panic!("{identity} is stale"),
    }
}

#[test]
fn a_known_identity_is_not_added_again() {
    let (mut queue, now) = (Scheduler::new(limits()), Instant::now());
    assert_eq!(queue.seen("n1", Source::Event, now), added());
    assert_eq!(queue.seen("n1", Source::Event, now), Admission::Known);
    assert_eq!(queue.seen("n1", Source::Discovery, now), Admission::Known);
    assert_eq!(queue.queued(), 1);
}

#[test]
fn nodes_start_in_the_order_in_which_they_were_seen() {
    let (mut queue, now) = (Scheduler::new(limits()), Instant::now());
    for name in ["c", "a", "b", "d"] {
        queue.seen(name, Source::Event, now);
    }
    let order: Vec<_> = std::iter::from_fn(|| start(&mut queue, now)).collect();
    assert_eq!(order, ["c", "a", "b"], "and at most max_nodes of them");
    queue.ended("a", Ending::Settle, now);
    assert_eq!(start(&mut queue, now).as_deref(), Some("d"));
}

#[test]
fn a_failed_node_queues_behind_those_that_wait() {
    let (mut queue, now) = (Scheduler::new(Limits { max_nodes: 1, ..limits() }), Instant::now());
    queue.seen("bad", Source::Event, now);
    assert_eq!(start(&mut queue, now).as_deref(), Some("bad"));
    queue.seen("n1", Source::Event, now);
    queue.ended("bad", Ending::Failed { retry: true }, now);
    let later = now + secs(2);
    queue.advance(later);
    assert_eq!(start(&mut queue, later).as_deref(), Some("n1"));
    queue.ended("n1", Ending::Settle, later);
    assert_eq!(start(&mut queue, later).as_deref(), Some("bad"));
}

#[test]
fn rests_grow_and_sightings_during_a_rest_are_not_lost() {
    let mut queue = Scheduler::new(limits());
    let mut now = Instant::now();
    queue.seen("bad", Source::Event, now);
    for expected in [1, 5, 15, 60, 300, 900, 900] {
        assert!(start(&mut queue, now).is_some(), "before the rest of {expected}s");
        let until = queue.ended("bad", Ending::Failed { retry: false }, now).unwrap();
        assert_eq!(until, now + secs(expected));
        assert_eq!(queue.seen("bad", Source::Event, now), Admission::Resting { until });
        queue.advance(until - Duration::from_millis(1));
        assert_eq!(queue.queued(), 0);
        queue.advance(until);
        assert_eq!(queue.queued(), 1);
        now = until;
    }
}

#[test]
fn a_deferred_node_starts_at_once_when_it_is_seen_a_second_later() {
    let (mut queue, now) = (Scheduler::new(limits()), Instant::now());
    queue.seen("n1", Source::Event, now);
    start(&mut queue, now).unwrap();
    queue.ended("n1", Ending::PutOff(secs(1)), now);
    queue.advance(now + secs(1));
    assert_eq!(queue.queued(), 0, "only what is seen again starts again");
    assert_eq!(queue.seen("n1", Source::Event, now + secs(1)), added());
    match queue.next_turn(now + secs(1)) {
        Some(Turn::Start { fresh, .. }) => assert!(!fresh, "it has seen a shared request of ours"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn success_settles_for_a_minute() {
    let (mut queue, now) = (Scheduler::new(limits()), Instant::now());
    queue.seen("n1", Source::Event, now);
    start(&mut queue, now).unwrap();
    queue.ended("n1", Ending::Settle, now);
    queue.advance(now + secs(30));
    assert_eq!(queue.seen("n1", Source::Discovery, now + secs(30)), Admission::Known);
    assert_eq!(queue.waiting(), 1);
    queue.advance(now + secs(61));
    assert_eq!(queue.waiting(), 0);
    assert_eq!(queue.seen("n1", Source::Discovery, now + secs(61)), added());
}

#[test]
fn a_node_that_falls_back_into_provisioning_is_noticed_within_the_settling_time() {
    let (mut queue, now) = (Scheduler::new(limits()), Instant::now());
    queue.seen("n1", Source::Event, now);
    start(&mut queue, now).unwrap();
    queue.ended("n1", Ending::Settle, now);
    assert_eq!(queue.seen("n1", Source::Event, now + secs(1)), Admission::Known, "still the old process");
    let back = now + secs(5);
    assert_eq!(queue.seen("n1", Source::Event, back), Admission::Returned { until: back + secs(10) });
    queue.advance(back + secs(10));
    assert_eq!(queue.queued(), 1);
}

#[test]
fn an_old_entry_that_nothing_sees_any_more_is_stale() {
    let (mut queue, now) = (Scheduler::new(limits()), Instant::now());
    queue.seen("dead", Source::Event, now);
    queue.seen("alive", Source::Event, now);
    queue.seen("alive", Source::Discovery, now + secs(60));
    let later = now + secs(121);
    assert_eq!(queue.next_turn(later), Some(Turn::Stale { identity: Arc::from("dead"), waited: secs(121) }));
    assert_eq!(start(&mut queue, later).as_deref(), Some("alive"));
}

#[test]
fn a_silent_node_stops_counting_after_the_grace_time() {
    let (mut queue, now) = (Scheduler::new(limits()), Instant::now());
    for index in 0..4 {
        queue.seen(&format!("n{index}"), Source::Event, now);
    }
    while start(&mut queue, now).is_some() {}
    assert_eq!((queue.worked(), queue.queued()), (3, 1));
    queue.answered("n0");
    queue.advance(now + secs(1));
    assert_eq!(queue.worked(), 1, "only the one that answered");
    assert_eq!(start(&mut queue, now + secs(1)).as_deref(), Some("n3"));
    queue.answered("n1");
    assert_eq!(queue.worked(), 3, "a late answer counts again");
}

/// Of ten thousand that wake at once, all may have been started before the first one answers.
#[test]
fn of_those_that_answer_late_only_so_many_are_worked_on() {
    let (mut queue, now) = (Scheduler::new(Limits { max_nodes: 10, ..limits() }), Instant::now());
    for index in 0..50 {
        queue.seen(&format!("n{index}"), Source::Discovery, now);
    }
    for round in 0..5 {
        queue.advance(now + secs(round));
        assert_eq!(std::iter::from_fn(|| start(&mut queue, now + secs(round))).count(), 10);
    }
    queue.advance(now + secs(5));
    assert_eq!((queue.worked(), queue.counts().silent), (0, 50));
    let room: Vec<usize> = (0..50).filter(|index| queue.answered(&format!("n{index}"))).collect();
    assert_eq!((room, queue.worked()), ((0..20).collect(), 20));
    // Those for which there was no room are next.
    for index in 20..50 {
        queue.ended(&format!("n{index}"), Ending::Interrupted, now + secs(5));
    }
    assert_eq!((start(&mut queue, now + secs(5)), queue.queued()), (None, 30));
    for index in 0..11 {
        queue.ended(&format!("n{index}"), Ending::Settle, now + secs(6));
    }
    assert_eq!(start(&mut queue, now + secs(6)).as_deref(), Some("n20"));
}

#[test]
fn a_shutdown_event_evicts_what_has_not_started() {
    let (mut queue, now) = (Scheduler::new(limits()), Instant::now());
    queue.seen("n1", Source::Event, now);
    assert!(!queue.gone("n1"));
    assert_eq!((queue.queued(), queue.waiting()), (0, 0));
    queue.seen("n1", Source::Event, now);
    start(&mut queue, now).unwrap();
    assert!(queue.gone("n1"), "its flow has no answer yet");
    queue.answered("n1");
    assert!(!queue.gone("n1"), "a node that answered is led on");
}

#[test]
fn a_node_whose_connection_ended_leaves_unless_it_is_back_in_a_moment() {
    let (mut queue, now) = (Scheduler::new(Limits { max_nodes: 0, ..limits() }), Instant::now());
    for name in ["n1", "n2", "n3"] {
        queue.seen(name, Source::Event, now);
        queue.disconnected(name, now);
    }
    assert!(
        matches!(queue.standing("n2"), Some(Standing::Queued { place: 2, leaves: Some(at) }) if at == now + LINGER)
    );
    queue.disconnected("n2", now + secs(2));
    queue.seen("n2", Source::Discovery, now + secs(2));
    assert!(queue.advance(now + LINGER - Duration::from_millis(1)).is_empty());
    let mut left = queue.advance(now + LINGER);
    left.sort();
    assert_eq!(left, ["n1", "n3"].map(Arc::from));
    assert_eq!(queue.standing("n2"), Some(Standing::Queued { place: 1, leaves: None }), "with its place");
    assert_eq!(queue.standing("n1"), None);
}

#[test]
fn coming_and_going_buys_no_new_attempts() {
    let mut queue = Scheduler::new(limits());
    let mut now = Instant::now();
    queue.seen("bad", Source::Event, now);
    for failures in 1..=4 {
        assert!(start(&mut queue, now).is_some());
        let until = queue.ended("bad", Ending::Failed { retry: true }, now).unwrap();
        // Its connection ends while it rests: it is not tried again by itself, and not sooner when it is back.
        queue.disconnected("bad", now);
        assert_eq!(queue.standing("bad"), Some(Standing::WaitingToBeSeen { until }));
        assert_eq!(queue.failures("bad"), failures);
        queue.advance(until);
        assert_eq!(queue.queued(), 0);
        assert_eq!(queue.seen("bad", Source::Event, until), added());
        // Nor does leaving the queue help.
        assert!(!queue.gone("bad"));
        assert_eq!(queue.failures("bad"), failures);
        assert_eq!(queue.seen("bad", Source::Event, until), added());
        now = until;
    }
}

#[test]
fn an_absent_node_takes_no_place() {
    let (mut queue, now) = (Scheduler::new(Limits { max_nodes: 1, ..limits() }), Instant::now());
    for name in ["forged", "n1"] {
        queue.seen(name, Source::Event, now);
    }
    start(&mut queue, now).unwrap();
    assert_eq!(start(&mut queue, now), None);
    queue.absent("forged");
    assert_eq!(queue.standing("forged"), Some(Standing::Silent));
    assert_eq!(start(&mut queue, now).as_deref(), Some("n1"));
    queue.answered("n1");
    queue.absent("n1");
    assert_eq!(queue.standing("n1"), Some(Standing::Engaged), "it has answered");
}

#[test]
fn interrupted_nodes_keep_their_place() {
    let (mut queue, now) = (Scheduler::new(Limits { max_nodes: 2, ..limits() }), Instant::now());
    for name in ["a", "b", "c"] {
        queue.seen(name, Source::Event, now);
    }
    start(&mut queue, now).unwrap();
    start(&mut queue, now).unwrap();
    queue.ended("b", Ending::Interrupted, now);
    queue.ended("a", Ending::Interrupted, now);
    let order: Vec<_> = std::iter::from_fn(|| start(&mut queue, now)).collect();
    assert_eq!(order, ["a", "b"]);
}

#[test]
fn when_full_memory_goes_first_then_silent_nodes_and_never_live_ones() {
    let now = Instant::now();
    let mut queue = Scheduler::new(Limits { max_known: 3, max_nodes: 3, ..limits() });
    for name in ["failed", "silent", "live"] {
        queue.seen(name, Source::Event, now);
        start(&mut queue, now).unwrap();
    }
    queue.ended("failed", Ending::Failed { retry: false }, now);
    queue.answered("live");
    let later = now + secs(2);
    queue.advance(later);
    assert_eq!(queue.seen("x1", Source::Event, later), added());
    assert_eq!(queue.seen("x2", Source::Event, later), Admission::Added { evicted: Some(Arc::from("silent")) });
    assert_eq!(queue.seen("x3", Source::Event, later), Admission::Full);
}

/// Everything that may happen to the queue.
#[derive(Debug, Clone)]
enum Step {
    Seen(u8, u8),
    Turn,
    Answered(u8),
    Ended(u8, u8),
    Gone(u8),
    Disconnected(u8),
    Absent(u8),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..12_u8, 0..3_u8).prop_map(|(n, s)| Step::Seen(n, s)),
        Just(Step::Turn),
        (0..12_u8).prop_map(Step::Answered),
        (0..12_u8, 0..6_u8).prop_map(|(n, e)| Step::Ended(n, e)),
        (0..12_u8).prop_map(Step::Gone),
        (0..12_u8).prop_map(Step::Disconnected),
        (0..12_u8).prop_map(Step::Absent),
        (0..2000_u16).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn bounds_hold_and_nothing_runs_twice(steps in proptest::collection::vec(step(), 0..200)) {
        let mut now = Instant::now();
        let mut queue = Scheduler::new(Limits { max_known: 8, max_nodes: 3, ..limits() });
        let mut running = BTreeSet::new();
        for step in steps {
            match step {
                Step::Seen(n, s) => {
                    let source = [Source::Event, Source::Discovery, Source::Registration][usize::from(s)];
                    if let Admission::Added { evicted: Some(gone) } = queue.seen(&format!("n{n}"), source, now) {
                        prop_assert!(running.remove(&gone.to_string()), "only a running node has a flow to abandon");
                    }
                },
                Step::Turn => {
                    if let Some(Turn::Start { identity, .. }) = queue.next_turn(now) {
                        prop_assert!(running.insert(identity.to_string()), "{} runs twice", identity);
                        prop_assert!(queue.worked() <= 3);
                    }
                },
                Step::Answered(n) => { queue.answered(&format!("n{n}")); },
                Step::Ended(n, e) => {
                    let name = format!("n{n}");
                    let ending = [
                        Ending::Settle, Ending::Failed { retry: false }, Ending::Failed { retry: true },
                        Ending::PutOff(secs(1)), Ending::Interrupted, Ending::Gone,
                    ][usize::from(e)];
                    if running.remove(&name) {
                        queue.ended(&name, ending, now);
                    } else {
                        let before = queue.queued();
                        prop_assert!(queue.ended(&name, ending, now).is_none());
                        prop_assert_eq!(queue.queued(), before, "a node that does not run cannot end");
                    }
                },
                Step::Gone(n) => { queue.gone(&format!("n{n}")); },
                Step::Disconnected(n) => queue.disconnected(&format!("n{n}"), now),
                Step::Absent(n) => queue.absent(&format!("n{n}")),
                Step::Wait(s) => {
                    now += secs(u64::from(s));
                    queue.advance(now);
                    prop_assert!(queue.next_timer().is_none_or(|due| due > now));
                },
            }
            prop_assert!(queue.nodes.len() <= 8);
            let mut counts = Counts::default();
            queue.nodes.values().for_each(|node| *counts.of(node.state) += 1);
            prop_assert_eq!(queue.counts(), counts);
            prop_assert!(queue.nodes.keys().all(|name| queue.standing(name).is_some()));
            let worked = queue.nodes.values().filter(|n| matches!(n.state, State::Probing | State::Engaged)).count();
            prop_assert_eq!(queue.worked(), worked);
            prop_assert!(queue.worked() <= 6, "whoever answers late");
            prop_assert_eq!(queue.queued(), queue.nodes.values().filter(|n| n.state == State::Queued).count());
            prop_assert_eq!(queue.timers.len(), queue.nodes.values().filter(|n| n.timer.is_some()).count());
        }
    }
}
