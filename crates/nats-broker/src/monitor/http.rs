//! The monitoring pages over HTTP.

use std::collections::HashMap;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::any;
use serde::Serialize;

use super::{ConnzQuery, ConnzSort, ConnzState, ConnzSubs, Healthz, Monitor, QueryError, SubszQuery};

type Parameters = Query<HashMap<String, String>>;

const CORS: (HeaderName, &str) = (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");

pub(super) fn router(monitor: Monitor) -> Router {
    Router::new()
        .route("/", any(root))
        .route("/varz", any(varz))
        .route("/connz", any(connz))
        .route("/subsz", any(subsz))
        .route("/subscriptionsz", any(subsz))
        .route("/accountz", any(accountz))
        .route("/accstatz", any(accstatz))
        .route("/routez", any(routez))
        .route("/gatewayz", any(gatewayz))
        .route("/leafz", any(leafz))
        .route("/jsz", any(jsz))
        .route("/raftz", any(raftz))
        .route("/ipqueuesz", any(ipqueuesz))
        .route("/healthz", any(healthz))
        .route("/debug/vars", any(variables))
        .fallback(nothing)
        .with_state(monitor)
}

/// A page of JSON as nats-server sends it.
fn page(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec_pretty(body) {
        Ok(body) => (status, [CORS, (header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn bad(error: &QueryError) -> Response {
    (StatusCode::BAD_REQUEST, error.to_string()).into_response()
}

async fn root(State(monitor): State<Monitor>) -> Html<&'static str> {
    monitor.count_request("/");
    Html(
        "<!doctype html><html lang=\"en\"><title>Broker</title><ul>\
         <li><a href=\"/varz\">General</a><li><a href=\"/jsz\">Streams</a>\
         <li><a href=\"/connz\">Connections</a><li><a href=\"/accountz\">Accounts</a>\
         <li><a href=\"/accstatz\">Account figures</a><li><a href=\"/subsz\">Subscriptions</a>\
         <li><a href=\"/routez\">Routes</a><li><a href=\"/leafz\">Leaf nodes</a>\
         <li><a href=\"/gatewayz\">Gateways</a><li><a href=\"/healthz\">Health</a></ul></html>",
    )
}

async fn nothing() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "404 page not found\n")
}

async fn varz(State(monitor): State<Monitor>) -> Response {
    monitor.count_request("/varz");
    page(StatusCode::OK, &monitor.varz())
}

async fn healthz(State(monitor): State<Monitor>, Query(parameters): Parameters) -> Response {
    monitor.count_request("/healthz");
    if let Err(error) = readable(&parameters, &["js-enabled-only", "js-enabled", "js-server-only", "details"], &[]) {
        return bad(&error);
    }
    let mut health = monitor.healthz();
    let mut status = StatusCode::SERVICE_UNAVAILABLE;
    if text(&parameters, "stream").is_some() && text(&parameters, "account").is_none() {
        health = Healthz { status: "error", error: Some(QueryError::StreamWithoutAccount.to_string()) };
        status = StatusCode::BAD_REQUEST;
    }
    page(if health.error.is_none() { StatusCode::OK } else { status }, &health)
}

async fn accountz(State(monitor): State<Monitor>, Query(parameters): Parameters) -> Response {
    monitor.count_request("/accountz");
    match monitor.accountz(text(&parameters, "acc").as_deref()) {
        Ok(accountz) => page(StatusCode::OK, &accountz),
        Err(error) => bad(&error),
    }
}

async fn accstatz(State(monitor): State<Monitor>, Query(parameters): Parameters) -> Response {
    monitor.count_request("/accstatz");
    match boolean(&parameters, "unused") {
        Ok(unused) => page(StatusCode::OK, &monitor.accstatz(unused)),
        Err(error) => bad(&error),
    }
}

async fn routez(State(monitor): State<Monitor>, Query(parameters): Parameters) -> Response {
    monitor.count_request("/routez");
    if let Err(error) = readable(&parameters, &["subs"], &[]) {
        return bad(&error);
    }
    page(StatusCode::OK, &super::routez(&monitor.shared))
}

async fn gatewayz(State(monitor): State<Monitor>, Query(parameters): Parameters) -> Response {
    monitor.count_request("/gatewayz");
    if let Err(error) = readable(&parameters, &["accs"], &[]) {
        return bad(&error);
    }
    page(StatusCode::OK, &super::gatewayz(&monitor.shared))
}

async fn leafz(State(monitor): State<Monitor>, Query(parameters): Parameters) -> Response {
    monitor.count_request("/leafz");
    if let Err(error) = readable(&parameters, &["subs"], &[]) {
        return bad(&error);
    }
    page(StatusCode::OK, &super::leafz(&monitor.shared))
}

async fn jsz(State(monitor): State<Monitor>, Query(parameters): Parameters) -> Response {
    monitor.count_request("/jsz");
    if let Err(error) = readable(
        &parameters,
        &["accounts", "streams", "consumers", "config", "leader-only", "raft", "stream-leader-only"],
        &["limit", "offset"],
    ) {
        return bad(&error);
    }
    page(StatusCode::OK, &super::jsz(&monitor.shared))
}

async fn raftz() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "No Raft nodes registered")
}

async fn ipqueuesz(State(monitor): State<Monitor>, Query(parameters): Parameters) -> Response {
    monitor.count_request("/ipqueuesz");
    if let Err(error) = readable(&parameters, &["all"], &[]) {
        return bad(&error);
    }
    page(StatusCode::OK, &serde_json::Map::new())
}

async fn variables() -> Response {
    page(StatusCode::OK, &super::expvarz())
}

async fn connz(State(monitor): State<Monitor>, Query(parameters): Parameters) -> Response {
    monitor.count_request("/connz");
    let query = match connz_query(&parameters) {
        Ok(query) => query,
        Err(error) => return bad(&error),
    };
    match (super::connz_of_unknown(&monitor.shared, &query), monitor.connz(&query)) {
        (_, Err(error)) => bad(&error),
        (Some(nothing), Ok(_)) => page(StatusCode::OK, &nothing),
        (None, Ok(connz)) => page(StatusCode::OK, &connz),
    }
}

async fn subsz(State(monitor): State<Monitor>, Query(parameters): Parameters) -> Response {
    monitor.count_request("/subsz");
    match subsz_query(&parameters).and_then(|query| monitor.subsz(&query)) {
        Ok(subsz) => page(StatusCode::OK, &subsz),
        Err(error) => bad(&error),
    }
}

/// Looks whether parameters can be read that change nothing here.
fn readable(
    parameters: &HashMap<String, String>,
    booleans: &[&'static str],
    numbers: &[&'static str],
) -> Result<(), QueryError> {
    for key in booleans {
        // Routes can be asked for in detail.
        if *key != "subs" || text(parameters, key).as_deref() != Some("detail") {
            boolean(parameters, key)?;
        }
    }
    numbers.iter().try_for_each(|key| number(parameters, key).map(|_| ()))
}

fn text(parameters: &HashMap<String, String>, key: &str) -> Option<String> {
    parameters.get(key).filter(|value| !value.is_empty()).cloned()
}

fn boolean(parameters: &HashMap<String, String>, key: &'static str) -> Result<bool, QueryError> {
    match text(parameters, key).as_deref() {
        None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some(other) => Err(QueryError::Boolean { key, value: other.to_owned() }),
    }
}

fn number(parameters: &HashMap<String, String>, key: &'static str) -> Result<usize, QueryError> {
    let Some(value) = text(parameters, key) else { return Ok(0) };
    match value.parse::<i64>() {
        // What is below 0 counts as not given.
        Ok(number) => Ok(usize::try_from(number).unwrap_or(0)),
        Err(_) => Err(QueryError::Number { kind: "int", key, function: "Atoi", value }),
    }
}

fn connz_query(parameters: &HashMap<String, String>) -> Result<ConnzQuery, QueryError> {
    let cid = match text(parameters, "cid") {
        None => None,
        Some(value) => match value.parse() {
            Ok(0) => None,
            Ok(cid) => Some(cid),
            Err(_) => {
                return Err(QueryError::Number { kind: "uint64", key: "cid", function: "ParseUint", value });
            }
        },
    };
    Ok(ConnzQuery {
        auth: boolean(parameters, "auth")?,
        subs: match text(parameters, "subs").as_deref() {
            Some("detail") => ConnzSubs::Detail,
            _ if boolean(parameters, "subs")? => ConnzSubs::List,
            _ => ConnzSubs::None,
        },
        state: match text(parameters, "state").as_deref() {
            None => ConnzState::Open,
            Some(state) => match state.to_ascii_lowercase().as_str() {
                "open" => ConnzState::Open,
                "closed" => ConnzState::Closed,
                "any" | "all" => ConnzState::All,
                _ => return Err(QueryError::State(state.to_owned())),
            },
        },
        sort: ConnzSort::parse(&text(parameters, "sort").unwrap_or_default())?,
        offset: number(parameters, "offset")?,
        limit: number(parameters, "limit")?,
        cid,
        user: text(parameters, "user"),
        // Without an account it is not looked at.
        filter_subject: text(parameters, "filter_subject").filter(|_| text(parameters, "acc").is_some()),
        acc: text(parameters, "acc"),
        mqtt_client: text(parameters, "mqtt_client"),
    })
}

fn subsz_query(parameters: &HashMap<String, String>) -> Result<SubszQuery, QueryError> {
    Ok(SubszQuery {
        subs: boolean(parameters, "subs")?,
        offset: number(parameters, "offset")?,
        limit: number(parameters, "limit")?,
        acc: text(parameters, "acc"),
        test: text(parameters, "test"),
    })
}
