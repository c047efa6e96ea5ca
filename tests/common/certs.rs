//! Certificates for tests: an authority, and what it signs for whom.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use std::path::{Path, PathBuf};

pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: PathBuf,
    name: String,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// Its certificate is `<name>.crt` in `dir`.
    pub fn new(dir: &Path, name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are good names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let authority = Authority { issuer, dir: dir.to_owned(), name: name.to_owned() };
        std::fs::write(authority.file(), authority.issuer.pem()).expect("a file");
        authority
    }

    pub fn file(&self) -> PathBuf {
        self.dir.join(format!("{}.crt", self.name))
    }

    /// Good for both sides of a connection and for years.
    pub fn sign(&self, names: &[&str]) -> Pair {
        self.sign_until(names, 2200)
    }

    pub fn sign_expired(&self, names: &[&str]) -> Pair {
        self.sign_until(names, 2020)
    }

    fn sign_until(&self, names: &[&str], year: i32) -> Pair {
        let names: Vec<String> = names.iter().map(|n| n.to_string()).collect();
        let stem = format!("{}-{}-{year}", self.name, names.join("-"));
        let mut params = CertificateParams::new(names).expect("names");
        params.not_before = date_time_ymd(2010, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        let pair = Pair { cert: self.dir.join(format!("{stem}.crt")), key: self.dir.join(format!("{stem}.key")) };
        std::fs::write(&pair.cert, cert.pem()).expect("a file");
        std::fs::write(&pair.key, key.serialize_pem()).expect("a file");
        pair
    }
}
