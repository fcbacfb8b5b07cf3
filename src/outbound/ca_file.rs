//! Certificate authorities that the operator trusts beside the public ones.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

/// How the error of a certificate that is refused begins, as rustls writes it.
const REFUSED_CERTIFICATE: &str = "invalid peer certificate: ";

/// The certificates of a file in PEM form.
#[derive(Clone, Debug)]
pub struct CaFile {
    /// The file.
    pub path: PathBuf,
    certificates: Vec<Certificate<'static>>,
}

/// Why a file of certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaFileError {
    /// The file cannot be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// It has no certificate in PEM form.
    #[error("it has no certificate in PEM form (BEGIN CERTIFICATE)")]
    Empty,
    /// A certificate is damaged.
    #[error("certificate {number} is damaged")]
    Damaged {
        /// Counted from 1.
        number: usize,
    },
}

impl CaFile {
    /// Reads the certificates of a file. Keys in it are ignored.
    ///
    /// # Errors
    /// If the file cannot be read, has no certificate, or has a damaged one.
    pub fn read(path: &Path) -> Result<Self, CaFileError> {
        let bytes = fs::read(path)?;
        let mut certificates = Vec::new();
        for item in parse_pem(&bytes) {
            let number = certificates.len() + 1;
            match item {
                Ok(PemItem::Certificate(it)) if is_whole_sequence(it.der()) => certificates.push(it),
                Ok(PemItem::Certificate(_)) | Err(_) => return Err(CaFileError::Damaged { number }),
                Ok(_) => {}
            }
        }
        // The parser ignores a certificate without its last line.
        let begun = String::from_utf8_lossy(&bytes)
            .matches("BEGIN CERTIFICATE")
            .count();
        match certificates.len() {
            number if number < begun => Err(CaFileError::Damaged { number: number + 1 }),
            0 => Err(CaFileError::Empty),
            _ => Ok(Self {
                path: path.to_owned(),
                certificates,
            }),
        }
    }

    /// The number of certificates.
    pub fn len(&self) -> usize {
        self.certificates.len()
    }

    /// Whether it has no certificate, which [`CaFile::read`] refuses.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }
}

/// TLS that trusts the public authorities, and those of `file`.
pub fn tls_config(file: Option<&CaFile>) -> TlsConfig {
    let Some(file) = file else {
        return TlsConfig::default();
    };
    let public = TLS_SERVER_ROOT_CERTS.iter();
    let public = public.map(|it| Certificate::from_der(it.as_ref()));
    let roots: Vec<_> = public.chain(file.certificates.iter().cloned()).collect();
    TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .build()
}

/// Why a peer's certificate was refused, and what to do; `None` if `error` is another one. `setting` names the
/// configuration's key that adds authorities.
pub fn certificate_problem(error: &str, setting: &str) -> Option<String> {
    let (_, reason) = error.split_once(REFUSED_CERTIFICATE)?;
    Some(match reason {
        "UnknownIssuer" => format!(
            "its certificate is refused: UnknownIssuer. If a private authority issued it, name the file of that \
             authority's certificate in {setting} and restart; if not, its server must send the certificates in between"
        ),
        _ => format!("its certificate is refused: {reason}. It must be replaced there"),
    })
}

/// Whether DER is one sequence of the length that it gives. This finds truncated certificates.
fn is_whole_sequence(der: &[u8]) -> bool {
    match der {
        [0x30, 0x82, high, low, rest @ ..] => usize::from(u16::from_be_bytes([*high, *low])) == rest.len(),
        [0x30, 0x81, length, rest @ ..] => usize::from(*length) == rest.len(),
        _ => false,
    }
}
