//! `/connz`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::{Value, json};

use nats_proto::subject::overlaps;

use super::{QueryError, go_duration, rfc3339, uptime};
use crate::conn::Conn;
use crate::shared::Shared;
use crate::subscription::Subscription;
use crate::totals::Traffic;

/// Whether to list subscriptions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ConnzSubs {
    /// No.
    #[default]
    None,
    /// Subjects.
    List,
    /// With queue, sid and counters.
    Detail,
}

/// Which connections to list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ConnzState {
    /// Those that are open.
    #[default]
    Open,
    /// Those that have ended, as far as remembered.
    Closed,
    /// Both.
    All,
}

/// Order of the list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ConnzSort {
    /// Connection id.
    #[default]
    Cid,
    /// Age, oldest first.
    Start,
    /// Most subscriptions first.
    Subs,
    /// Most waiting bytes first.
    Pending,
    /// Most delivered messages first.
    MsgsTo,
    /// Most published messages first.
    MsgsFrom,
    /// Most delivered bytes first.
    BytesTo,
    /// Most published bytes first.
    BytesFrom,
    /// Latest activity first.
    Last,
    /// Longest idle first.
    Idle,
    /// Longest connected first.
    Uptime,
    /// Longest round trip first.
    Rtt,
    /// Latest end first.
    Stop,
    /// Reason of the end.
    Reason,
}

impl ConnzSort {
    /// Reads nats-server's names.
    ///
    /// # Errors
    /// An unknown name.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        Ok(match text {
            "" | "cid" => Self::Cid,
            "start" => Self::Start,
            "subs" => Self::Subs,
            "pending" => Self::Pending,
            "msgs_to" => Self::MsgsTo,
            "msgs_from" => Self::MsgsFrom,
            "bytes_to" => Self::BytesTo,
            "bytes_from" => Self::BytesFrom,
            "last" => Self::Last,
            "idle" => Self::Idle,
            "uptime" => Self::Uptime,
            "rtt" => Self::Rtt,
            "stop" => Self::Stop,
            "reason" => Self::Reason,
            other => return Err(QueryError::Sort(other.to_owned())),
        })
    }
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct ConnzQuery {
    /// Show user and account.
    pub auth: bool,
    /// Show subscriptions.
    pub subs: ConnzSubs,
    /// Open, closed or both.
    pub state: ConnzState,
    /// Order.
    pub sort: ConnzSort,
    /// Entries to skip.
    pub offset: usize,
    /// Entries to show; 0 = 1024.
    pub limit: usize,
    /// Only this connection.
    pub cid: Option<u64>,
    /// Only connections of this user.
    pub user: Option<String>,
    /// Only connections of this account.
    pub acc: Option<String>,
    /// Only connections with a subscription that matches this subject; needs `acc`.
    pub filter_subject: Option<String>,
    /// Only this MQTT client: there are none.
    pub mqtt_client: Option<String>,
}

/// A subscription with its counters.
#[derive(Debug, Clone, Serialize)]
pub struct SubDetail {
    /// Account name, only in `/subsz`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Account name once more, as nats-server does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_tag: Option<String>,
    /// Filter.
    pub subject: String,
    /// Queue group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qgroup: Option<String>,
    /// The client's name of the subscription.
    pub sid: String,
    /// Messages delivered.
    pub msgs: u64,
    /// Messages after which it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    /// Connection; 0 for receivers inside the broker's process.
    pub cid: u64,
}

impl SubDetail {
    pub(super) fn new(sub: &Subscription, account: Option<&str>) -> Self {
        let max = sub.max.load(Ordering::Relaxed);
        Self {
            account: account.map(str::to_owned),
            account_tag: account.map(str::to_owned),
            subject: sub.filter.to_string(),
            qgroup: sub.queue().map(|queue| queue.to_string()),
            sid: String::from_utf8_lossy(sub.sid.as_bytes()).into_owned(),
            msgs: sub.delivered.load(Ordering::Relaxed),
            max: (max > 0).then_some(max),
            cid: sub.conn().map_or(0, |conn| conn.cid),
        }
    }
}

/// One connection.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the names are those of nats-server's /connz")]
pub struct ConnzEntry {
    pub cid: u64,
    pub kind: &'static str,
    #[serde(rename = "type")]
    pub client_type: &'static str,
    pub ip: String,
    pub port: u16,
    pub start: String,
    pub last_activity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub rtt: String,
    pub uptime: String,
    pub idle: String,
    pub pending_bytes: usize,
    pub in_msgs: u64,
    pub out_msgs: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
    pub subscriptions: usize,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub lang: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tls_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tls_cipher_suite: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub authorized_user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub account: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subscriptions_list: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subscriptions_list_detail: Vec<SubDetail>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name_tag: String,
}

/// A page of connections.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the names are those of nats-server's /connz")]
pub struct Connz {
    pub server_id: String,
    pub now: String,
    /// Entries on this page.
    pub num_connections: usize,
    /// Entries before `cid` and `user` were looked at.
    pub total: usize,
    pub offset: usize,
    pub limit: usize,
    pub connections: Vec<ConnzEntry>,
}

/// A connection that has ended.
#[derive(Debug)]
pub(crate) struct ClosedConnection {
    entry: ConnzEntry,
    order: Order,
}

impl ClosedConnection {
    pub(crate) fn new(shared: &Shared, conn: &Conn, subscriptions: usize) -> Self {
        let now = SystemTime::now();
        let mut entry = entry(shared, conn, now);
        entry.subscriptions = subscriptions;
        entry.stop = Some(rfc3339(now));
        entry.reason = Some(conn.rare.lock().close.clone().unwrap_or_default().into_owned());
        let order = Order { stop: since_epoch(now), ..Order::of(shared, conn, now) };
        Self { entry, order }
    }
}

/// What lists can be sorted by and is not in an entry as a number.
#[derive(Debug, Clone, Copy, Default)]
struct Order {
    start: Duration,
    last: Duration,
    stop: Duration,
    rtt_us: u64,
}

impl Order {
    fn of(shared: &Shared, conn: &Conn, now: SystemTime) -> Self {
        Self {
            start: since_epoch(conn.started),
            last: since_epoch(last_activity(shared, conn, now).1),
            stop: Duration::ZERO,
            rtt_us: conn.rtt_us.load(Ordering::Relaxed),
        }
    }
}

/// A connection of the list, open or ended. Pages are put together of the few that are shown, not of all.
enum Found {
    Open(Arc<Conn>),
    Closed(Arc<ClosedConnection>),
}

impl Found {
    fn cid(&self) -> u64 {
        match self {
            Self::Open(conn) => conn.cid,
            Self::Closed(closed) => closed.entry.cid,
        }
    }

    fn is_in(&self, shared: &Shared, account: &str) -> bool {
        match self {
            Self::Open(conn) => {
                let number = conn.rare.lock().account;
                number.is_some_and(|number| *shared.live().accounts[number as usize].name == *account)
            }
            Self::Closed(closed) => closed.entry.account == account,
        }
    }

    fn is_of(&self, user: &str) -> bool {
        match self {
            Self::Open(conn) => conn.rare.lock().grant.as_ref().and_then(|grant| grant.user.as_deref()) == Some(user),
            Self::Closed(closed) => closed.entry.authorized_user == user,
        }
    }

    /// Where the connection stands in the order; smallest first.
    fn key(&self, shared: &Shared, by: ConnzSort, now: SystemTime) -> i128 {
        let order = || match self {
            Self::Open(conn) => Order::of(shared, conn, now),
            Self::Closed(closed) => closed.order,
        };
        let traffic = || match self {
            Self::Open(conn) => Traffic::of(conn),
            Self::Closed(closed) => Traffic {
                in_msgs: closed.entry.in_msgs,
                in_bytes: closed.entry.in_bytes,
                out_msgs: closed.entry.out_msgs,
                out_bytes: closed.entry.out_bytes,
            },
        };
        match by {
            ConnzSort::Cid | ConnzSort::Reason => i128::from(self.cid()),
            ConnzSort::Start | ConnzSort::Uptime => order().start.as_nanos() as i128,
            ConnzSort::Last => -(order().last.as_nanos() as i128),
            ConnzSort::Idle => order().last.as_nanos() as i128,
            ConnzSort::Stop => -(order().stop.as_nanos() as i128),
            ConnzSort::Rtt => -i128::from(order().rtt_us),
            ConnzSort::MsgsTo => -i128::from(traffic().out_msgs),
            ConnzSort::MsgsFrom => -i128::from(traffic().in_msgs),
            ConnzSort::BytesTo => -i128::from(traffic().out_bytes),
            ConnzSort::BytesFrom => -i128::from(traffic().in_bytes),
            ConnzSort::Subs => -match self {
                Self::Open(conn) => conn.rare.lock().subs.len() as i128,
                Self::Closed(closed) => closed.entry.subscriptions as i128,
            },
            ConnzSort::Pending => -match self {
                Self::Open(conn) => conn.outbox.lock().pending() as i128,
                Self::Closed(closed) => closed.entry.pending_bytes as i128,
            },
        }
    }

    fn reason(&self) -> String {
        match self {
            Self::Open(_) => String::new(),
            Self::Closed(closed) => closed.entry.reason.clone().unwrap_or_default(),
        }
    }

    fn into_entry(self, shared: &Shared, query: &ConnzQuery, now: SystemTime) -> ConnzEntry {
        let mut entry = match self {
            Self::Open(conn) => {
                let mut entry = entry(shared, &conn, now);
                add_subscriptions(&conn, query.subs, &mut entry);
                entry
            }
            Self::Closed(closed) => closed.entry.clone(),
        };
        if !query.auth {
            entry.authorized_user.clear();
            entry.account.clear();
            entry.name_tag.clear();
        }
        entry
    }
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// How long a connection has been silent, and since when.
fn last_activity(shared: &Shared, conn: &Conn, now: SystemTime) -> (Duration, SystemTime) {
    let idle = Duration::from_millis(shared.hub.timers.now().saturating_sub(conn.last_in.load(Ordering::Relaxed)));
    (idle, now.checked_sub(idle).unwrap_or(now).max(conn.started))
}

fn entry(shared: &Shared, conn: &Conn, now: SystemTime) -> ConnzEntry {
    let (idle, last) = last_activity(shared, conn, now);
    let traffic = Traffic::of(conn);
    let pending_bytes = conn.outbox.lock().pending();
    let rare = conn.rare.lock();
    let about = rare.about.as_deref().cloned().unwrap_or_default();
    let live = shared.live();
    let account = rare.account.map(|number| live.accounts[number as usize].name.to_string()).unwrap_or_default();
    ConnzEntry {
        cid: conn.cid,
        kind: "Client",
        client_type: conn.client_type(),
        ip: conn.remote.map(|remote| remote.ip().to_string()).unwrap_or_default(),
        port: conn.remote.map_or(0, |remote| remote.port()),
        start: rfc3339(conn.started),
        last_activity: rfc3339(last),
        stop: None,
        reason: None,
        rtt: go_duration(conn.rtt_us.load(Ordering::Relaxed)),
        uptime: uptime(now.duration_since(conn.started).unwrap_or_default()),
        idle: uptime(idle),
        pending_bytes,
        in_msgs: traffic.in_msgs,
        out_msgs: traffic.out_msgs,
        in_bytes: traffic.in_bytes,
        out_bytes: traffic.out_bytes,
        subscriptions: rare.subs.len(),
        tls_version: about.tls_version().to_owned(),
        tls_cipher_suite: about.tls_cipher_suite(),
        name: about.name.into(),
        lang: about.lang.into(),
        version: about.version.into(),
        authorized_user: rare.grant.as_ref().and_then(|grant| grant.user.clone()).unwrap_or_default(),
        name_tag: account.clone(),
        account,
        subscriptions_list: Vec::new(),
        subscriptions_list_detail: Vec::new(),
    }
}

fn has_matching_subscription(conn: &Conn, subject: &str) -> bool {
    conn.rare.lock().subs.iter().any(|sub| overlaps(&sub.filter, subject))
}

fn add_subscriptions(conn: &Conn, subs: ConnzSubs, entry: &mut ConnzEntry) {
    let rare = conn.rare.lock();
    match subs {
        ConnzSubs::None => {}
        ConnzSubs::List => entry.subscriptions_list = rare.subs.iter().map(|sub| sub.filter.to_string()).collect(),
        ConnzSubs::Detail => {
            entry.subscriptions_list_detail = rare.subs.iter().map(|sub| SubDetail::new(sub, None)).collect();
        }
    }
}

pub(crate) fn connz(shared: &Shared, query: &ConnzQuery) -> Result<Connz, QueryError> {
    if query.filter_subject.is_some() && query.acc.is_none() {
        return Err(QueryError::FilterWithoutAccount);
    }
    if query.state != ConnzState::Closed {
        match query.sort {
            ConnzSort::Stop => return Err(QueryError::SortOfClosed("stop")),
            ConnzSort::Reason => return Err(QueryError::SortOfClosed("reason")),
            _ => {}
        }
    }
    let now = SystemTime::now();
    let mut found: Vec<Found> = Vec::new();
    if query.state != ConnzState::Closed {
        let listens = |conn: &Arc<Conn>| {
            query.filter_subject.as_ref().is_none_or(|subject| has_matching_subscription(conn, subject))
        };
        found.extend(shared.all_conns().into_iter().filter(listens).map(Found::Open));
    }
    if query.state != ConnzState::Open && query.filter_subject.is_none() {
        found.extend(shared.closed.lock().iter().map(|closed| Found::Closed(Arc::clone(closed))));
    }
    if let Some(acc) = &query.acc {
        found.retain(|found| found.is_in(shared, acc));
    }
    let total = found.len();
    found.retain(|found| {
        query.cid.is_none_or(|cid| found.cid() == cid)
            && query.user.as_ref().is_none_or(|user| found.is_of(user))
            && query.mqtt_client.is_none()
    });
    match query.sort {
        ConnzSort::Reason => found.sort_by_cached_key(|found| (found.reason(), found.cid())),
        by => found.sort_by_cached_key(|found| (found.key(shared, by, now), found.cid())),
    }
    let limit = match (query.cid, query.limit) {
        (Some(_), _) => 1,
        (None, 0) => 1024,
        (None, limit) => limit,
    };
    let page = found.into_iter().skip(query.offset).take(limit);
    let connections: Vec<ConnzEntry> = page.map(|found| found.into_entry(shared, query, now)).collect();
    Ok(Connz {
        server_id: shared.server_id.clone(),
        now: rfc3339(now),
        num_connections: connections.len(),
        total,
        offset: query.offset,
        limit,
        connections,
    })
}

/// What nats-server says of the connections of an account that it does not know; `None`: it is known, or none is named.
pub(crate) fn connz_of_unknown(shared: &Shared, query: &ConnzQuery) -> Option<Value> {
    let account = query.acc.as_ref()?;
    shared.account_number(account).is_none().then(|| {
        json!({
            "server_id": "",
            "now": rfc3339(SystemTime::now()),
            "num_connections": 0,
            "total": 0,
            "offset": query.offset,
            "limit": if query.limit == 0 { 1024 } else { query.limit },
            "connections": null,
        })
    })
}
