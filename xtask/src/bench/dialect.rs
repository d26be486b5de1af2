//! What a protocol adds to a configuration that is otherwise the same.

use super::protocol::Protocol;

/// Lines for a template's `@KEY@` lines.
pub(super) type Blocks = Vec<(&'static str, &'static str)>;

/// Of HAProxy: what stands behind a client's `bind`, and behind a `server`.
pub(super) fn haproxy(protocol: Protocol, certificates: &str) -> (String, &'static str) {
    match protocol {
        Protocol::Grpc => (" proto h2".to_owned(), " proto h2"),
        Protocol::Https => (format!(" ssl ssl-min-ver TLSv1.3 alpn http/1.1 crt {certificates}/app.pem"), ""),
        Protocol::Http1 | Protocol::Tcp => (String::new(), ""),
    }
}

/// Of nginx: what stands behind `listen`, and lines of the server.
pub(super) fn nginx(protocol: Protocol) -> (&'static str, Blocks) {
    if protocol == Protocol::Https { (" ssl", vec![("TLS", NGINX_TLS)]) } else { ("", vec![("TLS", "")]) }
}

/// Of Envoy.
pub(super) fn envoy(protocol: Protocol) -> Blocks {
    let tls = if protocol == Protocol::Https { ENVOY_TLS } else { "" };
    let upstream = if protocol == Protocol::Grpc { ENVOY_HTTP2 } else { "" };
    vec![("TLS", tls), ("SPEAKS", upstream)]
}

/// Of ours.
pub(super) fn leno(protocol: Protocol) -> Blocks {
    let speaks = match protocol {
        Protocol::Http1 | Protocol::Https => "",
        Protocol::Grpc => "    protocol: grpc",
        Protocol::Tcp => "    protocol: tcp",
    };
    vec![("PROTOCOL", speaks)]
}

const NGINX_TLS: &str = "\
        ssl_protocols TLSv1.3;
        ssl_certificate @CERTS@/app.crt;
        ssl_certificate_key @CERTS@/app.key;";

const ENVOY_TLS: &str = r#"          transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              common_tls_context:
                tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
                alpn_protocols: ["http/1.1"]
                tls_certificates:
                  - {certificate_chain: {filename: "@CERTS@/app.crt"}, private_key: {filename: "@CERTS@/app.key"}}"#;

const ENVOY_HTTP2: &str = r#"      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {http2_protocol_options: {}}"#;
