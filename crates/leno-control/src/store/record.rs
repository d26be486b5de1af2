//! The records as they are kept: protobuf, so that fields can be added.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use leno_core::name::{Label, ServiceId};
use leno_core::spec::{Labels, Tags};
use leno_core::time::UnixTime;
use leno_identity::token::{Grant, TokenRecord};
use leno_wire::full_name;
use prost::Message;

/// The certificate authority.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct AuthorityRecord {
    /// The root certificate, DER.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) cert_der: Vec<u8>,
    /// Its private key, PKCS #8.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) key_pkcs8: Vec<u8>,
}

/// A join token with who used it lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredToken {
    /// What leno-identity needs to know.
    pub(crate) record: TokenRecord,
    /// Digests of the last certificate requests that it was used for: a proxy that did not get the answer asks again
    /// with the same request, which costs no second use.
    pub(crate) recent: Vec<[u8; 32]>,
}

/// An instance or a gateway's proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberRecord {
    /// The service of its certificate, or the one it was registered for by hand.
    pub(crate) service: ServiceId,
    /// Unique in its service.
    pub(crate) name: Label,
    /// What it is.
    pub(crate) role: RoleRecord,
    /// Why it gets no requests; `None`: it may.
    pub(crate) unhealthy: Option<String>,
    /// The proxy's own version; empty: not known.
    pub(crate) proxy_version: String,
}

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RoleRecord {
    /// An instance behind its sidecar.
    Sidecar(Reach),
    /// A plain endpoint registered by hand.
    Plain(Reach),
    /// A gateway's proxy.
    Gateway,
}

/// How an instance is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Where.
    pub(crate) address: SocketAddr,
    /// The version it runs.
    pub(crate) version: Option<Label>,
    /// Its share beside the others.
    pub(crate) weight: u32,
    /// Where it is, and its labels.
    pub(crate) tags: Tags,
}

/// [`StoredToken`] on disk.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct TokenOnDisk {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(bytes = "vec", tag = "2")]
    secret_sha256: Vec<u8>,
    #[prost(string, tag = "3")]
    service: String,
    #[prost(string, tag = "4")]
    gateway: String,
    #[prost(uint32, optional, tag = "5")]
    uses_left: Option<u32>,
    #[prost(uint64, tag = "6")]
    expires_unix: u64,
    #[prost(bytes = "vec", repeated, tag = "7")]
    recent: Vec<Vec<u8>>,
}

/// [`MemberRecord`] on disk.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct MemberOnDisk {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(string, tag = "2")]
    name: String,
    /// 1 sidecar, 2 plain, 3 gateway.
    #[prost(uint32, tag = "3")]
    role: u32,
    #[prost(string, tag = "4")]
    address: String,
    #[prost(string, tag = "5")]
    version: String,
    #[prost(uint32, tag = "6")]
    weight: u32,
    #[prost(string, optional, tag = "7")]
    unhealthy: Option<String>,
    #[prost(string, tag = "8")]
    proxy_version: String,
    #[prost(string, tag = "70")]
    zone: String,
    #[prost(btree_map = "string, string", tag = "71")]
    labels: BTreeMap<String, String>,
}

/// Parses an [`AuthorityRecord`].
pub(crate) fn decode_authority(bytes: &[u8]) -> Result<AuthorityRecord, String> {
    AuthorityRecord::decode(bytes).map_err(|error| error.to_string())
}

/// Parses a [`StoredToken`].
pub(crate) fn decode_token(bytes: &[u8]) -> Result<StoredToken, String> {
    let disk = TokenOnDisk::decode(bytes).map_err(|error| error.to_string())?;
    let digest = |bytes: Vec<u8>| <[u8; 32]>::try_from(bytes).map_err(|_| "a digest has 32 bytes".to_owned());
    let grant = if disk.gateway.is_empty() {
        Grant::Service(ServiceId::parse(&disk.service).map_err(|error| format!("service: {error}"))?)
    } else {
        Grant::Gateway(ServiceId::parse(&disk.gateway).map_err(|error| format!("gateway: {error}"))?)
    };
    Ok(StoredToken {
        record: TokenRecord {
            id: disk.id,
            secret_sha256: digest(disk.secret_sha256)?,
            grant,
            uses_left: disk.uses_left,
            expires: UnixTime(disk.expires_unix),
        },
        recent: disk.recent.into_iter().map(digest).collect::<Result<_, _>>()?,
    })
}

impl StoredToken {
    /// As it is kept.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (service, gateway) = match &self.record.grant {
            Grant::Service(id) => (full_name(id), String::new()),
            Grant::Gateway(id) => (String::new(), full_name(id)),
        };
        TokenOnDisk {
            id: self.record.id.clone(),
            secret_sha256: self.record.secret_sha256.to_vec(),
            service,
            gateway,
            uses_left: self.record.uses_left,
            expires_unix: self.record.expires.0,
            recent: self.recent.iter().map(|digest| digest.to_vec()).collect(),
        }
        .encode_to_vec()
    }
}

/// Parses a [`MemberRecord`].
pub(crate) fn decode_member(bytes: &[u8]) -> Result<MemberRecord, String> {
    let disk = MemberOnDisk::decode(bytes).map_err(|error| error.to_string())?;
    let label = |field: &str, text: &str| Label::parse(text).map_err(|error| format!("{field}: {error}"));
    let reach = || {
        Ok::<_, String>(Reach {
            address: disk.address.parse().map_err(|_| "address: it is not IP:PORT".to_owned())?,
            version: if disk.version.is_empty() { None } else { Some(label("version", &disk.version)?) },
            weight: disk.weight,
            tags: leno_wire::tags(&disk.zone, &disk.labels).map_err(|error| error.to_string())?,
        })
    };
    Ok(MemberRecord {
        role: match disk.role {
            ROLE_SIDECAR => RoleRecord::Sidecar(reach()?),
            ROLE_PLAIN => RoleRecord::Plain(reach()?),
            ROLE_GATEWAY => RoleRecord::Gateway,
            other => return Err(format!("role: {other} is not known")),
        },
        service: ServiceId::parse(&disk.service).map_err(|error| format!("service: {error}"))?,
        name: label("name", &disk.name)?,
        unhealthy: disk.unhealthy,
        proxy_version: disk.proxy_version,
    })
}

impl MemberRecord {
    /// As it is kept.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (role, reach) = match &self.role {
            RoleRecord::Sidecar(reach) => (ROLE_SIDECAR, Some(reach)),
            RoleRecord::Plain(reach) => (ROLE_PLAIN, Some(reach)),
            RoleRecord::Gateway => (ROLE_GATEWAY, None),
        };
        let tags = reach.map(|reach| &reach.tags);
        MemberOnDisk {
            service: full_name(&self.service),
            name: self.name.to_string(),
            role,
            address: reach.map(|reach| reach.address.to_string()).unwrap_or_default(),
            version: reach.and_then(|reach| reach.version.as_ref()).map(String::from).unwrap_or_default(),
            weight: reach.map_or(0, |reach| reach.weight),
            unhealthy: self.unhealthy.clone(),
            proxy_version: self.proxy_version.clone(),
            zone: tags.and_then(|tags| tags.zone.as_ref()).map(ToString::to_string).unwrap_or_default(),
            labels: tags.map(|tags| owned(&tags.labels)).unwrap_or_default(),
        }
        .encode_to_vec()
    }
}

/// Labels as they are kept and shown.
pub(crate) fn owned(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

const ROLE_SIDECAR: u32 = 1;
const ROLE_PLAIN: u32 = 2;
const ROLE_GATEWAY: u32 = 3;
