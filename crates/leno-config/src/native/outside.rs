//! Services outside the mesh: places that are known by name, and TLS with them.

use std::sync::Arc;

use leno_core::spec::{Alpn, ClientIdentity, HostMatch, Pinned, Roots, TlsSpec};

use super::fields::{Kind, TLS};
use super::read::Reader;
use super::value;
use crate::diagnostic::Problem;
use crate::yaml::{Entry, Node};

/// Most names or pins of one service.
const ITEMS_MAX: usize = 100;

/// How TLS is begun with the endpoints of a service.
pub(crate) fn tls(node: &Node, reader: &mut Reader<'_>) -> Option<TlsSpec> {
    let mut fields = reader.fields(node, &TLS)?;
    let sni = fields.get("sni").map(|node| reader.parsed(node, Kind::Host, value::server_name));
    let roots = fields.get("roots").map(|node| roots(node, reader));
    let mut items = |name: &'static str, what: &str, reader: &mut Reader<'_>| {
        fields.get(name).map_or(&[][..], |node| reader.one_or_more(node, what, ITEMS_MAX))
    };
    let pinned = items("pinned", "a pin, or a list of pins", reader);
    let names = items("names", "a name, or a list of names", reader);
    let alpn = items("alpn", "a protocol, or a list of protocols", reader);
    let pinned: Vec<Pinned> = pinned.iter().filter_map(|item| pin(item, reader)).collect();
    let names: Vec<Arc<str>> = names
        .iter()
        .filter_map(|item| {
            reader.parsed(item, Kind::Host, value::host).and_then(|host| plain(item, host, reader))
        })
        .collect();
    let alpn: Vec<Alpn> = alpn
        .iter()
        .filter_map(|item| reader.choice(item, TLS.choices("alpn")).and_then(Alpn::parse))
        .collect();
    let spiffe = fields.get("spiffe").map(|node| reader.parsed(node, Kind::Spiffe, value::spiffe));
    let (cert, key) = (fields.entry("cert"), fields.entry("key"));
    fields.finish();
    Some(TlsSpec {
        sni: given(sni)?,
        roots: given(roots)?,
        pinned,
        names,
        spiffe: given(spiffe)?,
        identity: identity(cert, key, reader)?,
        alpn,
    })
}

/// A field that is wrong takes the whole with it; one that is not there does not.
fn given<T>(field: Option<Option<T>>) -> Option<Option<T>> {
    match field {
        Some(value) => value.map(Some),
        None => Some(None),
    }
}

fn roots(node: &Node, reader: &mut Reader<'_>) -> Option<Roots> {
    match reader.text(node, Kind::File)? {
        "system" => Some(Roots::System),
        "mesh" => Some(Roots::Mesh),
        _ => file(node, reader).map(Roots::File),
    }
}

fn pin(node: &Node, reader: &mut Reader<'_>) -> Option<Pinned> {
    let text = reader.text(node, Kind::File)?;
    let Some(hex) = text.strip_prefix("sha256:") else { return file(node, reader).map(Pinned::File) };
    let pin = Pinned::parse_key(hex);
    if pin.is_none() {
        let problem = Problem::error(node.span, "a pin is `sha256:` and 64 hexadecimal digits");
        reader.error(problem.hint("the SHA-256 of the certificate's public key (SubjectPublicKeyInfo)"));
    }
    pin
}

/// A name in a certificate: no wildcard.
fn plain(node: &Node, host: HostMatch, reader: &mut Reader<'_>) -> Option<Arc<str>> {
    match host {
        HostMatch::Exact(name) => {
            // A certificate has an address without brackets.
            Some(
                name.strip_prefix('[')
                    .and_then(|name| name.strip_suffix(']'))
                    .map_or(name.clone(), Arc::from),
            )
        }
        HostMatch::Suffix(_) => {
            let problem = Problem::error(node.span, "a certificate is compared with whole names");
            reader.error(problem.hint("write each name; a certificate's own wildcard covers it"));
            None
        }
    }
}

/// `cert: mesh`, or `cert` and `key`.
fn identity(
    cert: Option<&Entry>,
    key: Option<&Entry>,
    reader: &mut Reader<'_>,
) -> Option<Option<ClientIdentity>> {
    let is_mesh =
        |entry: &Entry| matches!(&entry.value.value, crate::yaml::Value::Scalar(it) if it.text == "mesh");
    match (cert, key) {
        (None, None) => Some(None),
        (Some(cert), None) if is_mesh(cert) => Some(Some(ClientIdentity::Mesh)),
        (Some(cert), Some(key)) if is_mesh(cert) => {
            let problem = Problem::error(key.key_span, "`key` does not go with the mesh's own certificate");
            reader.error(problem.related(cert.key_span, "this one").hint("remove `key`"));
            None
        }
        (Some(cert), Some(key)) => {
            let (cert, key) = (file(&cert.value, reader), file(&key.value, reader));
            Some(Some(ClientIdentity::Files { cert: cert?, key: key? }))
        }
        (Some(only), None) | (None, Some(only)) => {
            let other = if cert.is_some() { "key" } else { "cert" };
            let problem = Problem::error(only.key_span, format!("`{}` needs `{other}`", only.key));
            reader.error(problem.hint("a certificate and its key are two PEM files"));
            None
        }
    }
}

/// A file, as every process of this machine finds it.
fn file(node: &Node, reader: &mut Reader<'_>) -> Option<Arc<str>> {
    let text = reader.text(node, Kind::File)?;
    let path = std::path::absolute(reader.folder.join(text)).ok();
    match path.as_ref().and_then(|path| path.to_str()).filter(|_| !text.is_empty()) {
        Some(path) => Some(path.into()),
        None => {
            reader.error(Problem::error(node.span, "the name of the file cannot be used"));
            None
        }
    }
}
