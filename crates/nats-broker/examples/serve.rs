//! An open broker on an address: `serve 127.0.0.1:4222`. Load for it: `choria bench pubsub`.

use std::error::Error;
use std::sync::Arc;

use nats_broker::{AccountConfig, Broker, BrokerConfig, Listener, OpenAuthenticator};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let addr = std::env::args().nth(1).ok_or("serve ADDRESS")?;
    let config = BrokerConfig { listen: vec![Listener::plain(addr.parse()?)], ..BrokerConfig::default() };
    let open = Arc::new(OpenAuthenticator::default());
    let _broker = Broker::start(config, vec![AccountConfig::new("$G")], open, Vec::new(), Arc::new(()))?;
    std::future::pending::<()>().await;
    Ok(())
}
