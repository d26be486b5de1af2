//! Certificates of an authority that only the tests believe.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// An authority with its file.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, PEM.
    pub(crate) file: PathBuf,
    folder: PathBuf,
}

impl Authority {
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let file = folder.join(format!("{name}.pem"));
        fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), file, folder: folder.to_owned() }
    }

    /// Writes `FILE.pem` and `FILE.key` for these names; what is there is replaced. Returns the certificate's DER.
    pub(crate) fn issue(&self, file: &str, common_name: &str, names: &[&str]) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        for (end, text) in [("pem", certificate.pem()), ("key", key.serialize_pem())] {
            let path = self.folder.join(format!("{file}.{end}"));
            // As good programs do it: nobody ever reads half of a file.
            let next = self.folder.join(format!("{file}.{end}.next"));
            fs::write(&next, text).unwrap();
            fs::rename(&next, &path).unwrap();
        }
        certificate.der().to_vec()
    }
}
