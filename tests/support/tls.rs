//! A private CA, and servers behind its certificates that pass every request on to a plain server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use batchkeeper::base::thread_group;
use crossbeam_channel::{Receiver, Sender, unbounded};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A certificate authority that no list of public ones has.
pub struct PrivateCa {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl PrivateCa {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// The certificate that a `ca_file` holds.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub fn write(&self, path: &Path) {
        std::fs::write(path, &self.pem).unwrap();
    }

    /// Serves TLS for `name` on a port of 127.0.0.1, and passes each request on to `upstream`. Its thread ends
    /// with the test process.
    pub fn serve(&self, name: &str, upstream: &str) -> TlsFront {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let upstream: SocketAddr = upstream.trim_start_matches("http://").parse().unwrap();
        let (told, asked) = unbounded();
        let config = Arc::new(config);
        thread_group::spawn_ungrouped("tls", move || {
            for stream in listener.incoming() {
                let connection = ServerConnection::new(config.clone()).unwrap();
                let stream = StreamOwned::new(connection, stream.unwrap());
                let told = told.clone();
                thread_group::spawn_ungrouped("relay", move || relay(stream, upstream, &told)).unwrap();
            }
        })
        .unwrap();
        TlsFront {
            url: format!("https://{name}:{port}"),
            asked,
        }
    }
}

/// A server behind TLS.
pub struct TlsFront {
    pub url: String,
    /// The request line of each request that arrived.
    pub asked: Receiver<String>,
}

/// Passes one request on. Does nothing if the peer ends the handshake.
fn relay(mut stream: StreamOwned<ServerConnection, TcpStream>, upstream: SocketAddr, told: &Sender<String>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_exact(&mut byte).is_err() {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    let (line, fields) = head.split_once("\r\n").unwrap();
    told.send(line.to_owned()).ok();
    let mut plain = TcpStream::connect(upstream).unwrap();
    plain
        .write_all(format!("{line}\r\nConnection: close\r\n{fields}").as_bytes())
        .unwrap();
    plain.write_all(&body).unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).unwrap();
    // The daemon reads the start of an answer only, and may have closed the connection.
    drop(stream.write_all(&answer));
    stream.conn.send_close_notify();
    drop(stream.flush());
}
