//! Bodies, envelopes and the three ways to seal them, against the recordings of the original.

use choria_config::Mode;
use choria_protocol::v1::{self, SignatureKind};
use choria_testkit::golden;
use serde_json::Value;

use super::*;
use crate::clock::Clock;
use crate::counters::Counters;
use crate::settings::ServerSettings;

const NOW: i64 = 1_795_170_529;

struct Silent(tokio::sync::watch::Sender<Connection>);

#[async_trait::async_trait]
impl choria_connector::Connector for Silent {
    async fn publish(&self, _: &str, _: Bytes) -> Result<(), choria_connector::ConnectorError> {
        Ok(())
    }
    async fn subscribe(
        &self,
        _: &str,
        _: Option<&str>,
        _: usize,
    ) -> Result<choria_connector::Subscription, choria_connector::ConnectorError> {
        Err(choria_connector::ConnectorError::Closed)
    }
    async fn flush(&self) -> Result<(), choria_connector::ConnectorError> {
        Ok(())
    }
    fn status(&self) -> tokio::sync::watch::Receiver<Connection> {
        self.0.subscribe()
    }
    async fn close(&self) {}
}

fn registration(text: &str, seal: Seal) -> (Registration, Rhythm) {
    let environment = choria_config::Environment::fixed("t1.lab.test");
    let config = Config::from_text(text, Mode::Server, &environment).unwrap();
    let plugin = plugins(&config).unwrap().remove(0);
    let rhythm = rhythm(&config);
    let settings = Arc::new(ServerSettings::member(config, &environment));
    let connected = Connection::Connected { server: "nats://localhost:25200".into() };
    let connector = Arc::new(Silent(tokio::sync::watch::Sender::new(connected)));
    let counters = Arc::new(Counters::default());
    let context = Arc::new(ServerContext::new(settings, counters, Clock::new(|| NOW), connector));
    (Registration::new(context, plugin, rhythm, Arc::new(seal)), rhythm)
}

const TEXT: &str = "collectives = provisioning\nregistration = file_content\n\
                    plugin.choria.registration.file_content.target = provisioning.registration.data\n";

/// Values that differ on every run.
fn masked(wire: &[u8]) -> (Value, Value, Value) {
    let decoded = v1::decode_request(wire).unwrap();
    let mut body: Value = serde_json::from_str(&decoded.request.message).unwrap();
    body["mtime"] = Value::Null;
    body["file"] = Value::Null;
    let file = FileContent::parse(decoded.request.message.as_bytes(), 10_000).unwrap();
    body["zcontent"] = serde_json::from_slice(&file.content).unwrap();
    let mut request: Value = serde_json::from_str(&decoded.secure.message).unwrap();
    request["message"] = Value::Null;
    request["envelope"]["requestid"] = Value::Null;
    request["envelope"]["time"] = Value::Null;
    let mut transport: Value = serde_json::from_slice(wire).unwrap();
    transport["data"] = Value::from(format!("{} {}", decoded.secure.signature, decoded.secure.pubcert));
    (transport, request, body)
}

#[test]
fn messages_are_those_of_the_original() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("metadata.json");
    fs::write(&data, r#"{"country": "mt", "dc": "ams", "serial": 17}"#).unwrap();
    let text = format!("{TEXT}plugin.choria.registration.file_content.data = {}\n", data.display());
    for (file, seal) in [
        ("server/registration-v1.json", Seal::Insecure),
        ("server/registration-secure-v1.json", Seal::UnsignedRegistration),
    ] {
        let golden = golden::json(file);
        let (registration, _) = registration(&text, seal);
        let (body, _) = registration.body().unwrap();
        let (subject, wire) = registration.message(body).unwrap();
        assert_eq!(subject, golden["subject"].as_str().unwrap());
        assert_eq!(masked(&wire), masked(golden["message"].as_str().unwrap().as_bytes()), "{file}");
    }
}

#[test]
fn a_member_with_an_rsa_key_signs() {
    use choria_security::ca::{CertificateAuthority, IssueRequest};
    use choria_security::keys::KeyKind;
    let (ca, _) = CertificateAuthority::generate("lab", KeyKind::P256, NOW).unwrap();
    let issued = ca.issue(&IssueRequest::new("t1.lab.test", KeyKind::Rsa2048), NOW).unwrap();
    let signer = RequestSigner::from_pem(&issued.certificate.pem, &issued.key).unwrap();
    let (registration, _) = registration("registration = inventory_content\n", Seal::Signed(signer));
    let (body, _) = registration.body().unwrap();
    let (subject, wire) = registration.message(body).unwrap();
    assert_eq!(subject, "mcollective.broadcast.agent.registration");
    let decoded = v1::decode_request(&wire).unwrap();
    assert_eq!(decoded.secure.kind(), SignatureKind::Signed);
    assert_eq!(decoded.request.envelope.caller_id, "choria=t1.lab.test");
    let inventory = InventoryContent::parse(decoded.request.message.as_bytes(), 100_000).unwrap().content;
    let keys: Vec<&String> = inventory.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["agents", "classes", "facts", "status", "collectives", "build_info", "machines"]);
}

#[tokio::test]
async fn updated_is_told_once_per_change() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data.json");
    fs::write(&data, "{}").unwrap();
    let text = format!(
        "registration = file_content\nplugin.choria.registration.file_content.data = {}\n\
         plugin.choria.registration.file_content.compression = no\n",
        data.display()
    );
    let (mut registration, rhythm) = registration(&text, Seal::Insecure);
    let updated = |registration: &Registration| {
        FileContent::parse(registration.body().unwrap().0.as_bytes(), 1000).unwrap().updated
    };
    assert!(!updated(&registration));
    registration.publish(std::time::Duration::ZERO).await.unwrap();
    let later = SystemTime::now() + std::time::Duration::from_secs(60);
    fs::File::options().write(true).open(&data).unwrap().set_modified(later).unwrap();
    assert!(updated(&registration));
    registration.publish(rhythm.interval).await.unwrap();
    assert!(!updated(&registration));
}

#[test]
fn missing_and_empty_files_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data.json");
    let text = format!("{TEXT}plugin.choria.registration.file_content.data = {}\n", data.display());
    let (registration, _) = registration(&text, Seal::Insecure);
    assert!(registration.body().unwrap_err().starts_with("could not find data file"));
    fs::write(&data, "").unwrap();
    assert!(registration.body().unwrap_err().contains("is empty"));
    fs::write(&data, vec![b'x'; 600_000]).unwrap();
    assert!(registration.body().unwrap_err().contains("the limit is"));
}

#[test]
fn incomplete_settings_are_refused() {
    let environment = choria_config::Environment::fixed("n1");
    let plugins_of = |text: &str| plugins(&Config::from_text(text, Mode::Server, &environment).unwrap());
    assert_eq!(plugins_of("registration = file_content\n"), Err(RegistrationError::NoFile));
    let text = "registration = inventory_content\nplugin.choria.registration.inventory_content.target = a.>\n";
    assert_eq!(plugins_of(text), Err(RegistrationError::Target("a.>".into())));
    assert_eq!(plugins_of("").unwrap(), []);
}
