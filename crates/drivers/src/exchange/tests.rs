//! Against a socket in the same runtime.

use super::*;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use tokio::net::UdpSocket;
use tokio::task::{LocalSet, spawn_local};

/// The first byte is the name.
struct FirstByte;

impl Naming for FirstByte {
    const AT_ONCE: usize = 2;

    fn next(last: u64) -> u64 {
        last.wrapping_add(1) % 256
    }

    fn of(datagram: &[u8]) -> Option<u64> {
        datagram.first().copied().map(u64::from)
    }
}

const QUICK: Patience = Patience { tries: 3, each: Duration::from_millis(40) };

fn local<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, future)
}

/// A server: `answer` gives what is sent back for a datagram.
async fn server(answer: impl Fn(usize, &[u8]) -> Vec<Vec<u8>> + 'static) -> (Arc<Peer>, Rc<RefCell<usize>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let count = Rc::new(RefCell::new(0));
    let counted = count.clone();
    spawn_local(async move {
        let mut buffer = [0; 100];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
            let number = *counted.borrow();
            *counted.borrow_mut() += 1;
            for text in answer(number, &buffer[..length]) {
                socket.send_to(&text, peer).await.unwrap();
            }
        }
    });
    (peer_at(port), count)
}

fn peer_at(port: u16) -> Arc<Peer> {
    let address = Address::Udp { host: "127.0.0.1".into(), port, family: Family::Any };
    Arc::new(Peer::new(address, None))
}

async fn ask(exchange: &Exchange<FirstByte>, peer: &Arc<Peer>) -> Result<Vec<u8>, Trouble<&'static str>> {
    let mut question = exchange.open(peer).await?;
    let packet = [question.name() as u8, b'?'];
    let read = |answer: Vec<u8>| if answer.ends_with(b"!") { Ok(answer) } else { Err("odd") };
    question.ask(&packet, &QUICK, read).await
}

#[test]
fn a_question_is_repeated_until_it_is_answered() {
    local(async {
        let answer = |number: usize, text: &[u8]| {
            if number < 2 { vec![] } else { vec![vec![text[0], b'!']] }
        };
        let (peer, count) = server(answer).await;
        assert!(ask(&Exchange::default(), &peer).await.is_ok());
        assert_eq!(*count.borrow(), 3);
    });
}

#[test]
fn what_does_not_count_ends_nothing() {
    local(async {
        let answer = |_: usize, text: &[u8]| {
            vec![vec![text[0].wrapping_add(1), b'!'], vec![text[0], b'-'], vec![text[0], b'!']]
        };
        let (peer, count) = server(answer).await;
        assert!(ask(&Exchange::default(), &peer).await.is_ok());
        assert_eq!(*count.borrow(), 1);
        let (peer, _) = server(|_, text| vec![vec![text[0], b'-']]).await;
        assert_eq!(ask(&Exchange::default(), &peer).await, Err(Trouble::Silent(Some("odd"))));
    });
}

#[test]
fn silence_is_told_after_all_tries_and_names_are_given_back() {
    local(async {
        let (peer, count) = server(|_, _| vec![]).await;
        let exchange = Exchange::default();
        for _ in 0..3 {
            assert_eq!(ask(&exchange, &peer).await, Err(Trouble::Silent(None)));
        }
        assert_eq!(*count.borrow(), 9);
        let held: Vec<_> = [
            exchange.open::<()>(&peer).await.unwrap().name(),
            exchange.open::<()>(&peer).await.unwrap().name(),
        ]
        .into();
        assert_ne!(held[0], held[1], "names are not used again at once");
    });
}

#[test]
fn a_full_socket_is_followed_by_another_up_to_a_bound() {
    local(async {
        let (peer, _) = server(|_, _| vec![]).await;
        let exchange = Exchange::<FirstByte>::default();
        let mut held = Vec::new();
        let refused = loop {
            match exchange.open::<()>(&peer).await {
                Ok(question) => held.push(question),
                Err(why) => break why,
            }
        };
        assert_eq!((refused, held.len()), (Trouble::Full, 32));
        held.pop();
        assert!(exchange.open::<()>(&peer).await.is_ok());
    });
}

#[test]
fn nobody_there_is_found_out_without_waiting_for_long() {
    local(async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let peer = peer_at(socket.local_addr().unwrap().port());
        drop(socket);
        let exchange = Exchange::<FirstByte>::default();
        let mut question = exchange.open::<()>(&peer).await.unwrap();
        let long = Patience { tries: 3, each: Duration::from_secs(3600) };
        let packet = [question.name() as u8];
        let asked = question.ask(&packet, &long, |_| Ok::<(), ()>(())).await;
        assert_eq!(asked, Err(Trouble::Silent(None)));
    });
}

#[test]
fn the_next_server_is_asked() {
    local(async {
        let mut servers = [1, 2, 3].into_iter();
        let mut asked = Vec::new();
        let found = first_of(
            || servers.next(),
            async |n| {
                asked.push(n);
                if n < 2 { Verdict::Next("no") } else { Verdict::Final(Ok(n)) }
            },
        );
        assert_eq!(found.await, Some(Ok(2)));
        assert_eq!(asked, [1, 2]);
        let nobody: Option<Result<(), &str>> = first_of(|| None::<u8>, async |_| Verdict::Next("no")).await;
        assert_eq!(nobody, None);
    });
}

#[test]
fn a_unix_socket_is_asked_once_and_read_to_the_end_of_the_answer() {
    local(async {
        let path = std::env::temp_dir().join(format!("fermata-exchange-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        spawn_local(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 10];
            let length = stream.read(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], b"V");
            stream.write_all(b"2004").await.unwrap();
            tokio::task::yield_now().await;
            stream.write_all(b"0107\n").await.unwrap();
            // The other end waits for no end of file.
            std::future::pending::<()>().await;
        });
        let answer = ask_unix(&path, b"V", &QUICK, |text| text.ends_with(b"\n")).await;
        assert_eq!(answer, Ok(b"20040107\n".to_vec()));
        let _ = std::fs::remove_file(&path);
        assert!(matches!(ask_unix(&path, b"V", &QUICK, |_| true).await, Err(Trouble::Io(_))));
    });
}
