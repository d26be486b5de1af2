//! The mesh's certificate authority: one self-signed ECDSA P-256 root that issues short-lived leaves directly.
//!
//! There is no intermediate: the root's key lies where an intermediate's would (in the control plane's store, mode
//! 0600), so a second level would only make every handshake longer. The SPIFFE id of a leaf is what the caller proved
//! about the applicant (from its token or from its present certificate); whatever the request asks for besides its
//! public key is ignored.

use core::fmt;
use core::time::Duration;

use aws_lc_rs::digest;
use leno_core::name::{Label, ServiceId, TrustDomain};
use leno_core::peer::SpiffeId;
use leno_core::time::UnixTime;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use crate::base64;
use crate::credential::{Credential, CredentialError, KeyAndCsr};
use crate::svid;
use crate::{EntropyError, entropy};

/// Issues the certificates of one trust domain.
pub struct Authority {
    /// Whose ids it vouches for; stands in the root as `spiffe://DOMAIN` (X509-SVID §4.1).
    trust_domain: TrustDomain,
    /// The self-signed root.
    root: CertificateDer<'static>,
    /// Of the root's public key.
    pin: Pin,
    /// End of the root's life; no leaf outlives it.
    not_after: UnixTime,
    /// The root's name and private key, ready to sign.
    issuer: Issuer<'static, KeyPair>,
}

/// SHA-256 of an authority's public key (the DER SubjectPublicKeyInfo). Whoever knows it can recognise the mesh's
/// authority before trusting anything else. Written as 43 characters of base64url.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin([u8; 32]);

/// How long a root lives. Replacing it is a rotation with overlap, so it is long; it is what kubeadm uses.
pub const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How long a leaf lives when nothing else is asked: short enough that nobody needs revocation.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(86_400);
/// Certificates begin this long before they are made, so that a peer whose clock is behind accepts them at once.
pub const BACKDATING: Duration = Duration::from_secs(60);
/// A request with a P-256 key has some 250 bytes; OpenSSL's defaults with a long subject stay below 1,000.
pub const CSR_BYTES_MAX: usize = 4096;
/// 127 random bits (the top bit is clear, so that the number is positive in 16 bytes); RFC 5280 §4.1.2.2 allows 20
/// bytes, the CA/B Forum asks for 64 bits.
const SERIAL_BYTES: usize = 16;
/// 9999-12-31T23:59:59Z, the last time that X.509 can write (RFC 5280 §4.1.2.5).
const TIME_MAX: u64 = 253_402_300_799;
const P256_POINT_BYTES: usize = 65;

/// The id of the control plane itself: `spiffe://DOMAIN/ns/leno/sa/control`.
pub fn control_id(trust_domain: &TrustDomain) -> SpiffeId {
    SpiffeId { trust_domain: trust_domain.clone(), service: control_service() }
}

/// The service part of [`control_id`]. No token may grant it.
pub(crate) fn control_service() -> ServiceId {
    let label = |text| Label::parse(text).expect("a constant that is a label");
    ServiceId::new(label(CONTROL_NAMESPACE), label("control"))
}

/// The namespace of Leno's own identities. No token may grant a service in it.
pub const CONTROL_NAMESPACE: &str = "leno";

impl Authority {
    /// A new authority with a new key, valid from shortly before `now` for [`ROOT_LIFETIME`].
    pub fn create(trust_domain: &TrustDomain, now: UnixTime) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::crypto)?;
        let pin = Pin::of(&key.subject_public_key_info());
        let mut params = CertificateParams::default();
        params.distinguished_name = name(Some(&pin));
        params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.serial_number = Some(serial()?);
        let end = now.after(ROOT_LIFETIME);
        set_life(&mut params, begin(now), end)?;
        let root = params.self_signed(&key).map_err(AuthorityError::crypto)?;
        Ok(Self {
            trust_domain: trust_domain.clone(),
            root: root.der().clone(),
            pin,
            not_after: end,
            issuer: Issuer::new(params, key),
        })
    }

    /// An authority that was kept: its root certificate (DER) and private key (PKCS #8, DER). Checks that the two
    /// belong together and that the certificate may issue.
    pub fn load(cert_der: &[u8], key_pkcs8: &[u8]) -> Result<Self, AuthorityError> {
        let (rest, parsed) = X509Certificate::from_der(cert_der)
            .map_err(|_| AuthorityError::Certificate("it is not an X.509 certificate"))?;
        if !rest.is_empty() {
            return Err(AuthorityError::Certificate("bytes follow it"));
        }
        let usage = parsed.key_usage().ok().flatten();
        if !parsed.is_ca() || !usage.is_some_and(|usage| usage.value.key_cert_sign()) {
            return Err(AuthorityError::Certificate("it is not an authority's certificate"));
        }
        let trust_domain = svid::only_uri(&parsed)
            .ok()
            .and_then(|uri| uri.strip_prefix("spiffe://"))
            .and_then(|domain| TrustDomain::parse(domain).ok())
            .ok_or(AuthorityError::Certificate("it names no trust domain (one URI, spiffe://DOMAIN)"))?;
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key_pkcs8)).map_err(|_| AuthorityError::Key)?;
        let spki = parsed.public_key().raw;
        if key.subject_public_key_info() != spki {
            return Err(AuthorityError::KeyMismatch);
        }
        let root = CertificateDer::from(cert_der.to_vec());
        let issuer = Issuer::from_ca_cert_der(&root, key).map_err(AuthorityError::crypto)?;
        let not_after = svid::unix(parsed.validity().not_after.timestamp());
        Ok(Self { trust_domain, pin: Pin::of(spki), not_after, issuer, root })
    }

    /// The private key (PKCS #8, DER), to be kept where only the control plane can read it.
    pub fn key_pkcs8(&self) -> &[u8] {
        self.issuer.key().serialized_der()
    }

    /// Whose ids it vouches for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// What the members of the mesh trust: today one root.
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        vec![self.root.clone()]
    }

    /// How a stranger recognises this authority.
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// End of the root's life.
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// Issues a leaf for the public key in `csr_der` (PKCS #10), with `id` as its only name, valid from
    /// [`BACKDATING`] before `now` for `lifetime`, at most as long as the root. The request proves possession of its
    /// key by its own signature; everything else in it is ignored. The answer is the chain to present, leaf first,
    /// without the root.
    pub fn issue(
        &self,
        csr_der: &[u8],
        id: &SpiffeId,
        now: UnixTime,
        lifetime: Duration,
    ) -> Result<Vec<CertificateDer<'static>>, IssueError> {
        if id.trust_domain != self.trust_domain {
            return Err(IssueError::TrustDomain { asked: id.clone(), ours: self.trust_domain.clone() });
        }
        if now >= self.not_after {
            return Err(IssueError::RootExpired);
        }
        let public_key = public_key_of(csr_der)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(None);
        params.subject_alt_names = vec![uri(&id.to_uri())?];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        let end = now.after(lifetime).min(self.not_after);
        set_life(&mut params, begin(now), end)?;
        let leaf = params.signed_by(&public_key, &self.issuer).map_err(AuthorityError::crypto)?;
        Ok(vec![leaf.into()])
    }

    /// Makes a key and issues to it: for the process that holds the authority itself.
    pub fn credential(
        &self,
        id: &SpiffeId,
        now: UnixTime,
        lifetime: Duration,
    ) -> Result<Credential, CredentialError> {
        let request = KeyAndCsr::generate()?;
        let chain = self.issue(request.csr_der(), id, now, lifetime).map_err(CredentialError::Issue)?;
        request.accept(chain, self.roots(), id, now)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("trust_domain", &self.trust_domain).field("pin", &self.pin).finish()
    }
}

impl Pin {
    /// The pin of a DER SubjectPublicKeyInfo.
    pub(crate) fn of(spki_der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, spki_der).as_ref());
        Self(bytes)
    }

    /// The digest.
    pub(crate) const fn bytes(self) -> [u8; 32] {
        self.0
    }

    /// Reads the 43 characters that [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Option<Self> {
        base64::decode(text)?.try_into().ok().map(Self)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64::encode(&self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The public key of a request, after checking that it is a P-256 key and that the request is signed with it.
fn public_key_of(csr_der: &[u8]) -> Result<SubjectPublicKeyInfo, IssueError> {
    if csr_der.len() > CSR_BYTES_MAX {
        return Err(IssueError::RequestTooLong(csr_der.len()));
    }
    let (rest, csr) = X509CertificationRequest::from_der(csr_der).map_err(|_| IssueError::Unreadable)?;
    if !rest.is_empty() {
        return Err(IssueError::Unreadable);
    }
    let spki = &csr.certification_request_info.subject_pki;
    // The algorithm's name alone would let a P-384 key through: the curve stands in its parameters.
    let key = SubjectPublicKeyInfo::from_der(spki.raw).map_err(|_| IssueError::KeyType)?;
    if key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
        return Err(IssueError::KeyType);
    }
    match spki.parsed() {
        Ok(PublicKey::EC(point)) if point.data().len() == P256_POINT_BYTES => {}
        _ => return Err(IssueError::KeyType),
    }
    csr.verify_signature().map_err(|_| IssueError::Signature)?;
    Ok(key)
}

/// `O = Leno`; a root gets a common name besides, unique per key, so that two roots of one mesh never look alike while
/// a chain is built.
fn name(root: Option<&Pin>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Leno");
    if let Some(pin) = root {
        let pin = pin.to_string();
        name.push(DnType::CommonName, format!("Leno authority {}", &pin[..8]));
    }
    name
}

fn uri(text: &str) -> Result<SanType, AuthorityError> {
    Ok(SanType::URI(text.try_into().map_err(AuthorityError::crypto)?))
}

fn serial() -> Result<SerialNumber, EntropyError> {
    let mut bytes = [0; SERIAL_BYTES];
    entropy(&mut bytes)?;
    // Neither negative nor shorter than it looks.
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn begin(now: UnixTime) -> UnixTime {
    UnixTime(now.0.saturating_sub(BACKDATING.as_secs()))
}

fn set_life(params: &mut CertificateParams, begin: UnixTime, end: UnixTime) -> Result<(), AuthorityError> {
    if end.0 > TIME_MAX {
        return Err(AuthorityError::Clock(end));
    }
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(begin.0);
    params.not_after = epoch + Duration::from_secs(end.0);
    Ok(())
}

/// Why there is no authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityError {
    /// The certificate that was kept cannot be a root of Leno's.
    Certificate(&'static str),
    /// The private key that was kept is no PKCS #8 key of a kind that can sign.
    Key,
    /// The private key that was kept belongs to another certificate.
    KeyMismatch,
    /// The clock says a time that no certificate can hold.
    Clock(UnixTime),
    /// No random bytes.
    Entropy(EntropyError),
    /// The library refused; a fault of Leno's.
    Crypto(String),
}

/// Why a certificate was not issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssueError {
    /// More than [`CSR_BYTES_MAX`]: this many bytes.
    RequestTooLong(usize),
    /// It is not a PKCS #10 request.
    Unreadable,
    /// Its key is not ECDSA P-256.
    KeyType,
    /// It is not signed with its own key.
    Signature,
    /// The id asked for belongs to another mesh.
    TrustDomain {
        /// What was to be issued.
        asked: SpiffeId,
        /// What this authority vouches for.
        ours: TrustDomain,
    },
    /// The root itself has expired; a new authority is needed.
    RootExpired,
    /// The authority failed.
    Authority(AuthorityError),
}

impl AuthorityError {
    fn crypto(error: impl fmt::Display) -> Self {
        Self::Crypto(error.to_string())
    }
}

impl From<EntropyError> for AuthorityError {
    fn from(error: EntropyError) -> Self {
        Self::Entropy(error)
    }
}

impl From<AuthorityError> for IssueError {
    fn from(error: AuthorityError) -> Self {
        Self::Authority(error)
    }
}

impl From<EntropyError> for IssueError {
    fn from(error: EntropyError) -> Self {
        Self::Authority(AuthorityError::Entropy(error))
    }
}

impl fmt::Display for AuthorityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(why) => write!(f, "the authority's certificate cannot be used: {why}"),
            Self::Key => f.write_str("the authority's private key cannot be read (PKCS #8, ECDSA P-256)"),
            Self::KeyMismatch => f.write_str("the authority's private key belongs to another certificate"),
            Self::Clock(time) => {
                write!(f, "the clock says {} s after 1970, which no certificate can hold", time.0)
            }
            Self::Entropy(error) => error.fmt(f),
            Self::Crypto(why) => write!(f, "making a certificate failed: {why}"),
        }
    }
}

impl fmt::Display for IssueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RequestTooLong(bytes) => {
                write!(f, "the certificate request has {bytes} bytes, {CSR_BYTES_MAX} at most")
            }
            Self::Unreadable => f.write_str("the certificate request is not PKCS #10"),
            Self::KeyType => f.write_str("the certificate request's key is not ECDSA P-256"),
            Self::Signature => f.write_str("the certificate request is not signed with its own key"),
            Self::TrustDomain { asked, ours } => write!(f, "{asked} does not belong to {ours}"),
            Self::RootExpired => f.write_str("the authority's root certificate has expired"),
            Self::Authority(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for AuthorityError {}
impl core::error::Error for IssueError {}
