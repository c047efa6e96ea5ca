//! TLS between peers. Both sides show a certificate of the cluster's authority, and its name is the node's id: the dialer
//! sees whether it reached the node it meant, and a node speaks for its own id only.

use crate::base::NodeId;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, CommonState, DigitallySignedStruct, ServerConfig, SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// Why peers would refuse this node.
#[derive(Debug, thiserror::Error)]
pub enum PeerTlsError {
    #[error(
        "tls-cert-file is not for this node ({why}); with tls-cluster it needs the subject alternative name DNS:node{node}"
    )]
    Name { node: NodeId, why: rustls::Error },
    #[error("this node's peers would refuse its tls-cert-file: {0}")]
    Refused(rustls::Error),
}

/// How a node meets its peers when it does not trust the network.
#[derive(Clone, Debug)]
pub struct PeerTls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    /// For a node of which only the address is known.
    any: Arc<ClientConfig>,
    verifier: Arc<WebPkiServerVerifier>,
}

/// The name in the certificate of a node: `node3`, as `LOOK.CLUSTER` calls it.
fn name_of(id: u64) -> Result<ServerName<'static>, InvalidDnsNameError> {
    ServerName::try_from(format!("node{id}"))
}

impl PeerTls {
    /// `server` must ask for certificates, `client` must show one; `verifier` knows the cluster's authority.
    pub fn new(server: Arc<ServerConfig>, mut client: ClientConfig, verifier: Arc<WebPkiServerVerifier>) -> PeerTls {
        // Links are made seldom: each shows who it is anew
        client.resumption = Resumption::disabled();
        let mut any = client.clone();
        any.dangerous().set_certificate_verifier(Arc::new(AnyName(verifier.clone())));
        PeerTls { server, client: Arc::new(client), any: Arc::new(any), verifier }
    }

    /// Looks at the node's own certificate as its peers will.
    pub fn check_own(&self, chain: &[CertificateDer<'static>], node: NodeId) -> Result<(), PeerTlsError> {
        let (own, between) =
            chain.split_first().ok_or(PeerTlsError::Refused(rustls::Error::NoCertificatesPresented))?;
        let name = name_of(node.0).map_err(|e| PeerTlsError::Refused(rustls::Error::General(e.to_string())))?;
        match self.verifier.verify_server_cert(own, between, &name, &[], UnixTime::now()) {
            Ok(_) => Ok(()),
            Err(why) if is_of_name(&why) => Err(PeerTlsError::Name { node, why }),
            Err(why) => Err(PeerTlsError::Refused(why)),
        }
    }

    /// Shakes hands with the node that was dialed; fails unless its certificate is that of `to`.
    pub async fn connect<S>(&self, stream: S, to: u64) -> io::Result<client::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = name_of(to).map_err(io::Error::other)?;
        TlsConnector::from(self.client.clone()).connect(name, stream).await
    }

    /// Shakes hands with some node of the cluster's authority: whose certificate it is must be looked at before it is trusted.
    pub async fn connect_any<S>(&self, stream: S) -> io::Result<client::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = name_of(0).map_err(io::Error::other)?;
        TlsConnector::from(self.any.clone()).connect(name, stream).await
    }

    /// Shakes hands with whoever dialed; fails unless it shows a certificate of the cluster's authority.
    pub async fn accept<S>(&self, stream: S) -> io::Result<server::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        TlsAcceptor::from(self.server.clone()).accept(stream).await
    }
}

/// All is well with a certificate but whose it is.
fn is_of_name(error: &rustls::Error) -> bool {
    use CertificateError::{NotValidForName, NotValidForNameContext};
    matches!(error, rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }))
}

/// Takes a certificate of the cluster's authority, whatever its name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(own, between, name, ocsp, now) {
            Err(why) if is_of_name(&why) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The certificate of the other side.
pub struct Passport(Option<CertificateDer<'static>>);

impl Passport {
    pub fn of(connection: &CommonState) -> Passport {
        let shown = connection.peer_certificates();
        Passport(shown.and_then(|chain| chain.first()).map(|own| own.clone().into_owned()))
    }

    /// Whether it is that of node `id`.
    pub fn is_of(&self, id: u64) -> bool {
        let certificate = self.0.as_ref().and_then(|der| ParsedCertificate::try_from(der).ok());
        match (certificate, name_of(id)) {
            (Some(certificate), Ok(name)) => verify_server_name(&certificate, &name).is_ok(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::rustls::RootCertStore;
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::server::WebPkiClientVerifier;

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// A node that trusts and was signed by `authority`, whatever its certificate's `name`.
    fn node(authority: &CertifiedIssuer<'static, KeyPair>, name: &str) -> PeerTls {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, authority).unwrap();
        let (chain, key) =
            (vec![cert.der().clone()], rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap());
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let (roots, provider) = (Arc::new(roots), Arc::new(ring::default_provider()));
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build().unwrap();
        let server =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let server =
            server.with_client_cert_verifier(verifier).with_single_cert(chain.clone(), key.clone_key()).unwrap();
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let peers = WebPkiServerVerifier::builder_with_provider(roots.clone(), Arc::new(ring::default_provider()));
        let client = client.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
        PeerTls::new(Arc::new(server), client, peers.build().unwrap())
    }

    /// What the dialer and the node that it reached think of each other.
    async fn meet(dialer: &PeerTls, reached: &PeerTls, meant: u64) -> (io::Result<()>, io::Result<Passport>) {
        let (ours, theirs) = tokio::io::duplex(16 << 10);
        let (connected, accepted) = tokio::join!(dialer.connect(ours, meant), reached.accept(theirs));
        (connected.map(drop), accepted.map(|stream| Passport::of(stream.get_ref().1)))
    }

    #[tokio::test]
    async fn the_dialer_sees_whom_it_reached_and_the_other_who_dialed() {
        let cluster = authority();
        let (two, three, stranger) = (node(&cluster, "node2"), node(&cluster, "node3"), node(&authority(), "node3"));
        let (connected, passport) = meet(&two, &three, 3).await;
        let passport = passport.unwrap();
        assert!(connected.is_ok() && passport.is_of(2) && !passport.is_of(3) && !passport.is_of(22));
        // Node 3's address leads to node 2, or to somebody else's node 3
        assert!(meet(&two, &two, 3).await.0.is_err_and(|e| e.kind() == io::ErrorKind::InvalidData));
        assert!(meet(&two, &stranger, 3).await.0.is_err_and(|e| e.kind() == io::ErrorKind::InvalidData));
        assert!(meet(&stranger, &three, 3).await.1.is_err());
        assert!(!Passport(None).is_of(2));
        // Of whom only the address is known: any node of the authority, and which one is seen
        let joins = |reached: PeerTls| {
            let two = two.clone();
            async move {
                let (ours, theirs) = tokio::io::duplex(16 << 10);
                let (connected, _) = tokio::join!(two.connect_any(ours), reached.accept(theirs));
                connected.map(|stream| Passport::of(stream.get_ref().1))
            }
        };
        assert!(joins(three.clone()).await.is_ok_and(|passport| passport.is_of(3) && !passport.is_of(1)));
        assert!(joins(stranger).await.is_err_and(|e| e.kind() == io::ErrorKind::InvalidData));
    }
}
