//! What `--help`, `--help_tls` and `--version` say.

/// The version that clients are told, which they choose their features by.
pub(crate) fn version() -> String {
    nats_broker::BrokerConfig::default().version
}

/// The line of `--version`: under the name of nats-server exactly its form, which others parse.
pub(crate) fn version_line(name: &str) -> String {
    if name == "nats-server" {
        format!("{name}: v{}", version())
    } else {
        format!("{name}: v{}, speaks as nats-server v{}", env!("CARGO_PKG_VERSION"), version())
    }
}

/// The text of `--help`.
pub(crate) fn usage(name: &str) -> String {
    USAGE.replace("{name}", name)
}

const USAGE: &str = "\
A NATS server. Takes the flags, the configuration file and the signals of nats-server.

Usage: {name} [flags]

Flags are written -x VALUE, --x VALUE, -x=VALUE or --x=VALUE; they count more than the file.

Server
    -a, --addr, --net HOST         address for clients (0.0.0.0)
    -p, --port PORT                port for clients (4222); -1 takes a free one
    -n, --name, --server_name NAME name shown to clients and in monitoring
    -P, --pid FILE                 write the process id there
    -m, --http_port PORT           monitoring over HTTP; -1 takes a free port
    -ms, --https_port PORT         monitoring over HTTPS with the certificate for clients
    -c, --config FILE              configuration file
    -t                             check the configuration and all files that it names, and end
    -sl, --signal SIGNAL=PID       tell a running server: reload, reopen, ldm, term, quit, stop;
                                   PID may be the name of its pid file
        --client_advertise ADDR    HOST:PORT that clients are told
        --ports_file_dir DIR       write the open ports to DIR/nats-server_<pid>.ports
        --cluster_name NAME        name shown to clients; there is no cluster behind it

Log
    -l, --log FILE                 write there instead of stderr
    -T, --logtime                  begin lines with the time (on; -T=false)
        --logtime_utc              in UTC
    -D, --debug                    more lines
    -V, --trace, -VV, -DV, -DVV    as nats-server's; the protocol itself is not traced
        --log_size_limit BYTES     begin a new file after so many bytes

Who may connect
        --user NAME --pass TEXT    one user
        --auth TOKEN               a token

TLS
        --tls                      clients must use TLS
        --tlscert FILE             certificate, with the certificates that lead to its CA
        --tlskey FILE              its private key
        --tlsverify                clients must show a certificate of
        --tlscacert FILE           this CA

What is not in this program
        --skip_unsupported         start without it, with a warning, instead of refusing to start
                                   (NATS_BROKER_SKIP_UNSUPPORTED=1 in the environment does the same)
    -js, --jetstream, -sd, --store_dir DIR, --routes, --cluster, --cluster_listen, --cluster_advertise,
    --no_advertise, --connect_retries, --profile, -s, --syslog, -r, --remote_syslog
                                   are understood, and refused

Other
    -h, --help                     this text
        --help_tls                 about TLS in the configuration file
    -v, --version                  the version
";

/// The text of `--help_tls`.
pub(crate) const TLS: &str = "\
TLS of clients is set in the block tls of the configuration file:

    tls {
        cert_file: \"./server.pem\"      # with the certificates that lead to its CA
        key_file:  \"./server-key.pem\"
        ca_file:   \"./ca.pem\"          # who signs certificates of clients
        verify:    true                # clients must show one
        # verify_and_map: true         # and it names the user: e-mail, DNS name, URI or subject
        # timeout: 2                   # seconds for the handshake
        # handshake_first: true        # TLS before INFO; \"auto\" or a time serve both kinds of clients
        # min_version: \"1.3\"
        # cipher_suites: [ \"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256\" ]   # of TLS 1.2
        # curve_preferences: [ \"X25519\" ]
    }

TLS 1.2 and 1.3 are spoken. SIGHUP reads the files again.
";
