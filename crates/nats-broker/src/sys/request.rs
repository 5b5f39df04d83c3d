//! Which request a subject is.

/// A page about the whole broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    Statsz,
    Varz,
    Connz,
    Subsz,
    Routez,
    Gatewayz,
    Leafz,
    Accountz,
    Jsz,
    Healthz,
    Idz,
    Profilez,
    Expvarz,
    Ipqueuesz,
    Raftz,
}

/// The last token of their subjects, and the name of their options in error texts of nats-server.
const PAGES: &[(&str, Page, &str)] = &[
    ("STATSZ", Page::Statsz, "StatszEventOptions"),
    ("VARZ", Page::Varz, "VarzEventOptions"),
    ("CONNZ", Page::Connz, "ConnzEventOptions"),
    ("SUBSZ", Page::Subsz, "SubszEventOptions"),
    ("ROUTEZ", Page::Routez, "RoutezEventOptions"),
    ("GATEWAYZ", Page::Gatewayz, "GatewayzEventOptions"),
    ("LEAFZ", Page::Leafz, "LeafzEventOptions"),
    ("ACCOUNTZ", Page::Accountz, "AccountzEventOptions"),
    ("JSZ", Page::Jsz, "JszEventOptions"),
    ("HEALTHZ", Page::Healthz, "HealthzEventOptions"),
    ("IDZ", Page::Idz, ""),
    ("PROFILEZ", Page::Profilez, "ProfilezEventOptions"),
    ("EXPVARZ", Page::Expvarz, "ExpvarzEventOptions"),
    ("IPQUEUESZ", Page::Ipqueuesz, "IpqueueszEventOptions"),
    ("RAFTZ", Page::Raftz, "RaftzEventOptions"),
];

/// Something that the broker is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// End a connection.
    Kick,
    /// Tell a connection to go elsewhere.
    LameDuck,
    /// Ask the embedder for new settings.
    Reload,
}

/// A page about one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AccountPage {
    Connz,
    Subsz,
    Info,
    Statz,
    Jsz,
    Leafz,
    Conns,
}

const ACCOUNT_PAGES: &[(&str, AccountPage, &str)] = &[
    ("CONNZ", AccountPage::Connz, "ConnzEventOptions"),
    ("SUBSZ", AccountPage::Subsz, "SubszEventOptions"),
    ("INFO", AccountPage::Info, "AccInfoEventOptions"),
    ("STATZ", AccountPage::Statz, "AccountStatzEventOptions"),
    ("JSZ", AccountPage::Jsz, "JszEventOptions"),
    ("LEAFZ", AccountPage::Leafz, "LeafzEventOptions"),
    ("CONNS", AccountPage::Conns, ""),
];

/// In place of an account: all of them.
pub(super) const ALL_ACCOUNTS: &str = "PING";

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    Server(Page),
    Order(Order),
    Account(Box<str>, AccountPage),
}

impl Request {
    /// Reads a subject. `own` is the name of the asking account when it is not the system account: it may ask for its own
    /// connections and figures, under the subjects for all. `None`: not a request, or none that this account may make.
    pub(super) fn parse(subject: &str, server_id: &str, own: Option<&str>) -> Option<Self> {
        let rest = subject.strip_prefix("$SYS.REQ.")?;
        if let Some(own) = own {
            let page = match rest {
                "ACCOUNT.PING.CONNZ" | "SERVER.PING.CONNZ" => AccountPage::Connz,
                "ACCOUNT.PING.STATZ" => AccountPage::Statz,
                _ => return None,
            };
            return Some(Self::Account(own.into(), page));
        }
        if rest == "SERVER.PING" {
            return Some(Self::Server(Page::Statsz));
        }
        if let Some(rest) = rest.strip_prefix("ACCOUNT.") {
            let (account, word) = rest.split_once('.')?;
            let (_, page, _) = ACCOUNT_PAGES.iter().find(|(name, ..)| *name == word)?;
            return Some(Self::Account(account.into(), *page));
        }
        let (whom, word) = rest.strip_prefix("SERVER.")?.split_once('.')?;
        if whom == server_id {
            match word {
                "KICK" => return Some(Self::Order(Order::Kick)),
                "LDM" => return Some(Self::Order(Order::LameDuck)),
                "RELOAD" => return Some(Self::Order(Order::Reload)),
                _ => {}
            }
        } else if whom != "PING" {
            return None;
        }
        let (_, page, _) = PAGES.iter().find(|(name, ..)| *name == word)?;
        Some(Self::Server(*page))
    }

    /// Name of the options in error texts; `None`: a body is not looked at, or in another manner.
    pub(super) fn options(&self) -> Option<&'static str> {
        let name = match self {
            Self::Server(page) => PAGES.iter().find(|(_, known, _)| known == page)?.2,
            Self::Account(_, page) => ACCOUNT_PAGES.iter().find(|(_, known, _)| known == page)?.2,
            Self::Order(Order::Reload) => "EventFilterOptions",
            Self::Order(Order::Kick | Order::LameDuck) => "",
        };
        (!name.is_empty()).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_of_requests_and_who_may_make_them() {
        let ask = |subject: &str, own| Request::parse(&format!("$SYS.REQ.{subject}"), "NID", own);
        assert_eq!(ask("SERVER.PING", None), Some(Request::Server(Page::Statsz)));
        assert_eq!(ask("SERVER.PING.IDZ", None), Some(Request::Server(Page::Idz)));
        assert_eq!(ask("SERVER.NID.VARZ", None), Some(Request::Server(Page::Varz)));
        assert_eq!(ask("SERVER.NID.KICK", None), Some(Request::Order(Order::Kick)));
        assert_eq!(ask("ACCOUNT.A.INFO", None), Some(Request::Account("A".into(), AccountPage::Info)));
        for subject in ["SERVER.PING.KICK", "SERVER.X.VARZ", "SERVER.NID", "SERVER.PING.NOPE", "ACCOUNT.A.B.INFO", "X"]
        {
            assert_eq!(ask(subject, None), None, "{subject}");
        }
        let own = Some(Request::Account("A".into(), AccountPage::Connz));
        assert_eq!(ask("SERVER.PING.CONNZ", Some("A")), own);
        assert_eq!(ask("ACCOUNT.PING.CONNZ", Some("A")), own);
        for subject in ["ACCOUNT.A.CONNZ", "SERVER.PING", "SERVER.NID.CONNZ", "ACCOUNT.PING.SUBSZ", "SERVER.NID.KICK"] {
            assert_eq!(ask(subject, Some("A")), None, "{subject}");
        }
    }
}
