//! What is answered to a request.

use std::time::SystemTime;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::body::Body;
use super::events::{ConnsMessage, StatszMessage};
use super::request::{ALL_ACCOUNTS, AccountPage, Order, Page, Request};
use super::{ServerObject, Work};
use crate::monitor::{self, ConnzQuery, ConnzSort, ConnzState, ConnzSubs, QueryError, SubszQuery};
use crate::shared::Shared;

/// Something went wrong.
#[derive(Debug, Serialize)]
struct ApiError {
    code: u16,
    description: String,
}

/// The usual form of an answer.
#[derive(Debug, Serialize)]
struct Answer {
    server: ServerObject,
    /// `null` when the page could not be made, absent when the request was wrong or wanted none.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Option<Box<RawValue>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ApiError>,
}

/// Why there is no page.
enum Failure {
    /// The request cannot be read.
    Request(String),
    /// The page cannot be made.
    Page(String),
    /// Nobody gets an answer.
    Silence,
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        Self::Page(error.to_string())
    }
}

type Made = Result<Box<RawValue>, Failure>;

/// Answers a request.
pub(super) fn carry_out(shared: &Shared, work: &Work) {
    if let Some(answer) = answer(shared, work)
        && let Some(reply) = &work.reply
    {
        shared.tell(work.account, reply, &answer);
    }
}

fn answer(shared: &Shared, work: &Work) -> Option<Vec<u8>> {
    let server = || shared.server_object(SystemTime::now());
    let answer = match options(shared, work).and_then(|body| made(shared, &work.request, &body)) {
        Ok(Done::Whole(whole)) => return Some(whole),
        Ok(Done::Data(data)) => Answer { server: server(), data: Some(Some(data)), error: None },
        Ok(Done::Nothing) => Answer { server: server(), data: None, error: None },
        Err(Failure::Silence) => return None,
        Err(Failure::Request(description)) => {
            Answer { server: server(), data: None, error: Some(ApiError { code: 400, description }) }
        }
        Err(Failure::Page(description)) => {
            let is_order = matches!(work.request, Request::Order(_));
            let error = Some(ApiError { code: 500, description });
            Answer { server: server(), data: (!is_order).then_some(None), error }
        }
    };
    serde_json::to_vec(&answer).ok()
}

/// What came of a request.
enum Done {
    /// The answer has a form of its own.
    Whole(Vec<u8>),
    Data(Box<RawValue>),
    Nothing,
}

/// Reads the body; a request that is meant for other brokers ends here.
fn options(shared: &Shared, work: &Work) -> Result<Body, Failure> {
    let Some(name) = work.request.options() else {
        return match work.request {
            // A wrong order is carried out by nobody.
            Request::Order(_) if work.body.is_empty() => Err(Failure::Silence),
            Request::Order(_) => Body::parse(&work.body, "").map_err(|_| Failure::Silence),
            Request::Account(_, AccountPage::Conns) => Body::parse(&work.body, "").map_err(|_| Failure::Silence),
            _ => Ok(Body::default()),
        };
    };
    let body = Body::parse(&work.body, name).map_err(Failure::Request)?;
    match body.is_for(shared).map_err(Failure::Request)? {
        true => Ok(body),
        false => Err(Failure::Silence),
    }
}

fn json_of(value: &impl Serialize) -> Made {
    to_raw_value(value).map_err(|error| Failure::Page(error.to_string()))
}

fn whole(value: &impl Serialize) -> Result<Done, Failure> {
    serde_json::to_vec(value).map(Done::Whole).map_err(|error| Failure::Page(error.to_string()))
}

fn made(shared: &Shared, request: &Request, body: &Body) -> Result<Done, Failure> {
    match request {
        Request::Order(order) => carry_out_order(shared, *order, body).map(|()| Done::Nothing),
        Request::Account(_, AccountPage::Conns) | Request::Server(Page::Statsz | Page::Idz | Page::Expvarz) => {
            of_own_form(shared, request)
        }
        Request::Account(account, page) => account_page(shared, account, *page, body).map(Done::Data),
        Request::Server(page) => server_page(shared, *page, body).map(Done::Data),
    }
}

fn of_own_form(shared: &Shared, request: &Request) -> Result<Done, Failure> {
    match request {
        Request::Account(account, _) => {
            let figures = monitor::account_statz(shared, Some(&[&**account]), true).pop().ok_or(Failure::Silence)?;
            whole(&ConnsMessage::new(shared, figures))
        }
        Request::Server(Page::Statsz) => {
            let server = shared.server_object(SystemTime::now());
            whole(&StatszMessage { server, statsz: monitor::statsz(shared) })
        }
        Request::Server(Page::Expvarz) => whole(&json!({ "data": monitor::expvarz() })),
        Request::Server(_) | Request::Order(_) => {
            whole(&json!({ "name": shared.server_name, "host": shared.host(), "id": shared.server_id }))
        }
    }
}

fn carry_out_order(shared: &Shared, order: Order, body: &Body) -> Result<(), Failure> {
    if order == Order::Reload {
        return shared.observer.reload_requested().map_err(Failure::Page);
    }
    let cid = body.integer("cid", "uint64").map_err(|_| Failure::Silence)?;
    let conn = u64::try_from(cid).ok().and_then(|cid| shared.conn(cid));
    match (order, conn) {
        (Order::Kick, Some(conn)) => conn.close("Kicked"),
        (Order::Kick, None) => return Err(Failure::Page("no such client or leafnode id".to_owned())),
        (_, Some(conn)) => conn.tell_lame_duck(),
        (_, None) => return Err(Failure::Page("no such client id".to_owned())),
    }
    Ok(())
}

fn server_page(shared: &Shared, page: Page, body: &Body) -> Made {
    match page {
        Page::Varz => json_of(&monitor::varz(shared)),
        Page::Connz => connz(shared, None, body),
        Page::Subsz => subsz(shared, None, body),
        Page::Routez => json_of(&monitor::routez(shared)),
        Page::Gatewayz => json_of(&monitor::gatewayz(shared)),
        Page::Leafz => json_of(&monitor::leafz(shared)),
        Page::Jsz => json_of(&monitor::jsz(shared)),
        Page::Accountz => {
            let account = body.text("account").map_err(Failure::Request)?;
            json_of(&monitor::accountz(shared, Some(account).filter(|name| !name.is_empty()))?)
        }
        Page::Healthz => healthz(shared, body),
        Page::Profilez => json_of(&json!({ "profile": null, "error": profile_error(body)? })),
        Page::Ipqueuesz | Page::Raftz | Page::Statsz | Page::Idz | Page::Expvarz => json_of(&json!({})),
    }
}

/// There are no profiles to take from outside.
fn profile_error(body: &Body) -> Result<String, Failure> {
    Ok(match body.text("name").map_err(Failure::Request)? {
        "" => "Profile name not specified".to_owned(),
        name => format!("Profile {name:?} not found"),
    })
}

fn healthz(shared: &Shared, body: &Body) -> Made {
    let stream = body.text("stream").map_err(Failure::Request)?;
    let account = body.text("account").map_err(Failure::Request)?;
    let health = monitor::healthz(shared);
    let (status, code, error) = match health.error {
        _ if !stream.is_empty() && account.is_empty() => {
            ("error", 400, Some(QueryError::StreamWithoutAccount.to_string()))
        }
        None => (health.status, 200, None),
        Some(error) => (health.status, 503, Some(error)),
    };
    let mut data = json!({ "status": status, "status_code": code });
    if let Some(error) = error {
        data["error"] = Value::from(error);
    }
    json_of(&data)
}

fn account_page(shared: &Shared, account: &str, page: AccountPage, body: &Body) -> Made {
    match page {
        AccountPage::Connz => connz(shared, Some(account), body),
        AccountPage::Subsz => subsz(shared, Some(account), body),
        AccountPage::Info => json_of(&monitor::account_info(shared, account)?),
        AccountPage::Jsz => Err(Failure::Page("jetstream not enabled".to_owned())),
        AccountPage::Leafz => json_of(&monitor::leafz(shared)),
        AccountPage::Statz | AccountPage::Conns => {
            if account == ALL_ACCOUNTS {
                let accounts = body.texts("accounts").map_err(Failure::Request)?;
                let unused = body.boolean("include_unused").map_err(Failure::Request)?;
                let chosen = (!accounts.is_empty()).then_some(&*accounts);
                return json_of(&monitor::accstatz(shared, chosen, unused));
            }
            let figures = monitor::accstatz(shared, Some(&[account]), true);
            if figures.account_statz.is_empty() { Err(Failure::Silence) } else { json_of(&figures) }
        }
    }
}

fn connz(shared: &Shared, account: Option<&str>, body: &Body) -> Made {
    let query = connz_query(account, body)?;
    match monitor::connz_of_unknown(shared, &query) {
        Some(nothing) => json_of(&nothing),
        None => json_of(&monitor::connz(shared, &query)?),
    }
}

fn connz_query(account: Option<&str>, body: &Body) -> Result<ConnzQuery, Failure> {
    let text = |key| body.text(key).map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()));
    let read = || {
        let subs = match (body.boolean("subscriptions_detail")?, body.boolean("subscriptions")?) {
            (true, _) => ConnzSubs::Detail,
            (false, true) => ConnzSubs::List,
            (false, false) => ConnzSubs::None,
        };
        let state = match body.integer("state", "server.ConnState")? {
            0 => ConnzState::Open,
            1 => ConnzState::Closed,
            _ => ConnzState::All,
        };
        Ok(ConnzQuery {
            auth: body.boolean("auth")?,
            subs,
            state,
            sort: ConnzSort::Cid,
            offset: body.count("offset")?,
            limit: body.count("limit")?,
            cid: u64::try_from(body.integer("cid", "uint64")?).ok().filter(|cid| *cid > 0),
            user: text("user")?,
            acc: text("acc")?,
            filter_subject: text("filter_subject")?,
            mqtt_client: text("mqtt_client")?,
        })
    };
    let mut query: ConnzQuery = read().map_err(Failure::Request)?;
    query.sort = ConnzSort::parse(body.text("sort").map_err(Failure::Request)?)?;
    if let Some(account) = account {
        query.acc = Some(account.to_owned());
    }
    Ok(query)
}

fn subsz(shared: &Shared, account: Option<&str>, body: &Body) -> Made {
    let text = |key| body.text(key).map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()));
    let read = || {
        Ok(SubszQuery {
            // Of an account they are always listed.
            subs: account.is_some() || body.boolean("subscriptions")?,
            offset: body.count("offset")?,
            limit: body.count("limit")?,
            acc: match account {
                Some(account) => Some(account.to_owned()),
                None => text("account")?,
            },
            test: text("test")?,
        })
    };
    let query = read().map_err(Failure::Request)?;
    json_of(&monitor::subsz(shared, &query)?)
}
