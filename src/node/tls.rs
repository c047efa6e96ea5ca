//! Certificates and keys from files, made into what the listeners and the links between peers need.
//!
//! TLS 1.2 and 1.3 only, by rustls with its ring provider. What is wrong with a file is said at the start, with its name: a
//! node whose own certificate its peers would refuse does not begin.

use super::config::{AuthClients, Config};
use crate::base::NodeId;
use crate::raft::{PeerTls, PeerTlsError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig, SupportedProtocolVersion, version};

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{name} {path}: {why}", path = .path.display())]
    File { name: &'static str, path: PathBuf, why: String },
    #[error("certificate and key (tls-cert-file and tls-key-file, --cert and --key) do not fit together: {0}")]
    Pair(rustls::Error),
    #[error("TLS: {0}")]
    Setup(rustls::Error),
    #[error(transparent)]
    Peers(#[from] PeerTlsError),
}

/// What the files hold.
pub struct Identity {
    provider: Arc<CryptoProvider>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// Who may sign the certificates of those on the other side.
    authorities: Arc<RootCertStore>,
    versions: Vec<&'static SupportedProtocolVersion>,
}

impl Identity {
    /// Reads the files that `config` names; it has passed [`Config::check`].
    pub fn load(config: &Config) -> Result<Identity, TlsError> {
        let chain = certificates("tls-cert-file", &config.tls_cert_file)?;
        let key = PrivateKeyDer::from_pem_file(&config.tls_key_file)
            .map_err(|e| file("tls-key-file", &config.tls_key_file, pem_error(&e)))?;
        let authorities = match &config.tls_ca_cert_file {
            none if none.as_os_str().is_empty() => RootCertStore::empty(),
            path => authorities("tls-ca-cert-file", path)?,
        };
        let versions =
            config.tls_protocols.iter().map(|v| if v == "TLSv1.2" { &version::TLS12 } else { &version::TLS13 });
        Ok(Identity {
            provider: Arc::new(ring::default_provider()),
            chain,
            key,
            authorities: Arc::new(authorities),
            versions: versions.collect(),
        })
    }

    /// For the port of clients.
    pub fn for_clients(&self, auth: AuthClients) -> Result<Arc<ServerConfig>, TlsError> {
        let verifier = match auth {
            AuthClients::No => WebPkiClientVerifier::no_client_auth(),
            AuthClients::Optional => self.verifier(true)?,
            AuthClients::Yes => self.verifier(false)?,
        };
        self.server(verifier)
    }

    /// For the port of peers and the links to them: both sides show a certificate of the cluster's authority.
    pub fn for_peers(&self, node: NodeId) -> Result<PeerTls, TlsError> {
        let server = self.server(self.verifier(false)?)?;
        let client = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&self.versions)
            .map_err(TlsError::Setup)?
            .with_root_certificates(self.authorities.clone())
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(TlsError::Pair)?;
        let verifier = WebPkiServerVerifier::builder_with_provider(self.authorities.clone(), self.provider.clone());
        let verifier = verifier.build().map_err(|e| TlsError::Setup(rustls::Error::General(e.to_string())))?;
        let peers = PeerTls::new(server, client, verifier);
        peers.check_own(&self.chain, node)?;
        Ok(peers)
    }

    fn verifier(&self, optional: bool) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let builder = WebPkiClientVerifier::builder_with_provider(self.authorities.clone(), self.provider.clone());
        let builder = if optional { builder.allow_unauthenticated() } else { builder };
        builder.build().map_err(|e| TlsError::Setup(rustls::Error::General(e.to_string())))
    }

    fn server(&self, verifier: Arc<dyn ClientCertVerifier>) -> Result<Arc<ServerConfig>, TlsError> {
        let config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&self.versions)
            .map_err(TlsError::Setup)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(TlsError::Pair)?;
        Ok(Arc::new(config))
    }
}

/// Files of a client, as redis-cli names them.
#[derive(Clone, Debug, Default)]
pub struct ClientFiles {
    /// Who signed the server's certificate.
    pub cacert: PathBuf,
    /// The client's own certificate and its key.
    pub own: Option<(PathBuf, PathBuf)>,
}

impl ClientFiles {
    pub fn load(&self) -> Result<Arc<rustls::ClientConfig>, TlsError> {
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_root_certificates(authorities("--cacert", &self.cacert)?);
        let Some((cert, key)) = &self.own else { return Ok(Arc::new(config.with_no_client_auth())) };
        let chain = certificates("--cert", cert)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|e| file("--key", key, pem_error(&e)))?;
        Ok(Arc::new(config.with_client_auth_cert(chain, key).map_err(TlsError::Pair)?))
    }
}

fn authorities(name: &'static str, path: &Path) -> Result<RootCertStore, TlsError> {
    let mut all = RootCertStore::empty();
    for authority in certificates(name, path)? {
        all.add(authority).map_err(|e| file(name, path, e.to_string()))?;
    }
    Ok(all)
}

fn file(name: &'static str, path: &Path, why: String) -> TlsError {
    TlsError::File { name, path: path.into(), why }
}

fn pem_error(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "holds nothing of that kind in PEM form".into(),
        other => other.to_string(),
    }
}

/// All certificates of a file.
fn certificates(name: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_file_iter(path).and_then(|found| found.collect::<Result<Vec<_>, _>>());
    match all.map_err(|e| file(name, path, pem_error(&e)))? {
        none if none.is_empty() => Err(file(name, path, pem_error(&pem::Error::NoItemsFound))),
        found => Ok(found),
    }
}
