//! HTTP servers on loopback, in threads of their own.

use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Answers by path, see `answer`. Lives as long as the test's process.
pub struct Server {
    pub addr: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Server {
    pub fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = Server { addr: listener.local_addr().expect("bound"), connections: Arc::default() };
        let connections = server.connections.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || serve(stream));
            }
        });
        server
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

fn serve(stream: TcpStream) -> Option<()> {
    let mut input = BufReader::new(stream.try_clone().ok()?);
    let mut output = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if input.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let length = head.lines().filter_map(|l| l.split_once(':'));
        let length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length = length.filter_map(|(_, v)| v.trim().parse::<usize>().ok()).next().unwrap_or(0);
        let mut body = vec![0; length];
        input.read_exact(&mut body).ok()?;
        answer(&mut output, &head, &body)?;
    }
}

/// `None`: the connection is to be closed.
fn answer(out: &mut TcpStream, head: &str, body: &[u8]) -> Option<()> {
    let path = head.split(' ').nth(1)?;
    let plain = |status: &str, headers: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    let text = match path {
        "/hello" => plain("200 OK", "Content-Type: text/plain\r\n", "\nhi \n"),
        "/missing" => plain("404 Not Found", "Content-Type: text/html\r\n", "no"),
        "/empty" => "HTTP/1.1 204 No Content\r\n\r\n".to_string(),
        "/redirect" => plain("302 Found", "Location: /hello\r\n", ""),
        "/echo" => {
            let all = format!("{}{}", head.replace('\r', ""), String::from_utf8_lossy(body));
            plain("200 OK", "", &all)
        }
        "/short" => {
            out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789").ok()?;
            return None;
        }
        "/garbage" => {
            out.write_all(b"this is not HTTP\r\n\r\n").ok()?;
            return None;
        }
        "/stalls" => {
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nsome".to_string()
        }
        "/big" => {
            out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").ok()?;
            for _ in 0..160 {
                out.write_all(b"10000\r\n").ok()?;
                out.write_all(&[b'x'; 65536]).ok()?;
                out.write_all(b"\r\n").ok()?;
            }
            "0\r\n\r\n".to_string()
        }
        // "/silent": the next request never comes, so neither does this answer.
        _ => return Some(()),
    };
    out.write_all(text.as_bytes()).ok()
}

/// A port whose connection attempts are dropped: nobody accepts, and the queue is full.
pub fn full_backlog() -> (Vec<socket2::Socket>, SocketAddr) {
    use socket2::{Domain, Socket, Type};
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    listener.bind(&any.into()).expect("a port");
    listener.listen(0).expect("listening");
    let addr = listener.local_addr().expect("bound").as_socket().expect("an IP address");
    let mut held = vec![listener];
    loop {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let full = client.connect_timeout(&addr.into(), Duration::from_millis(200)).is_err();
        held.push(client);
        if full {
            return (held, addr);
        }
    }
}

/// Speaks TLS with HTTP/2 and 1.1, and tells which it was and whether the client showed a certificate.
/// Writes `ca.pem`, `client.pem` and `client.key` into the folder.
pub struct TlsServer {
    pub addr: SocketAddr,
}

impl TlsServer {
    pub fn start(folder: &Path) -> TlsServer {
        let acceptor = acceptor(folder);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let addr = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve_tls(acceptor.clone(), stream));
                }
            });
        });
        TlsServer { addr }
    }
}

async fn serve_tls(acceptor: tokio_rustls::TlsAcceptor, stream: tokio::net::TcpStream) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let who = if stream.get_ref().1.peer_certificates().is_some() { "client" } else { "nobody" };
    let two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| async move {
        let text = format!("{:?} {who}", request.version());
        Ok::<_, std::convert::Infallible>(hyper::Response::new(Full::<bytes::Bytes>::from(text)))
    });
    let io = TokioIo::new(stream);
    if two {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, service)
            .await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
    }
}

fn acceptor(folder: &Path) -> tokio_rustls::TlsAcceptor {
    let key = || KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, key()).expect("an authority");
    let signed = |name: &str| {
        let key = key();
        let params = CertificateParams::new(vec![name.to_string()]).expect("parameters");
        (params.signed_by(&key, &authority).expect("a certificate").pem(), key.serialize_pem())
    };
    let (server, client) = (signed("elsewhere.example"), signed("client.example"));
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("a file");
    write("ca.pem", &authority.pem());
    write("client.pem", &client.0);
    write("client.key", &client.1);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let clients = clients.allow_unauthenticated().build().expect("a verifier");
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let chain = vec![CertificateDer::from_pem_slice(server.0.as_bytes()).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(server.1.as_bytes()).expect("a key");
    let mut config = config
        .expect("versions")
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .expect("a server");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}
