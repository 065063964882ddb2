//! The proxy forwards, cuts, delays and swallows bytes as requested.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tidings_testbed::{Cut, Framing, Proxy};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

const DEADLINE: Duration = Duration::from_secs(60);
const SILENCE: Duration = Duration::from_millis(200);
const FETCH: i16 = 1;
const PRODUCE: i16 = 0;

/// Answers each frame with its correlation id.
async fn broker() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback works");
    let address = listener.local_addr().expect("loopback works");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 12];
                while client.read_exact(&mut request).await.is_ok() {
                    let mut answer = 4_i32.to_be_bytes().to_vec();
                    answer.extend(&request[8..]);
                    client.write_all(&answer).await.expect("loopback works");
                }
            });
        }
    });
    address
}

async fn proxied() -> (Proxy, TcpStream) {
    let proxy = Proxy::start(broker().await.to_string(), Framing::Kafka).expect("loopback works");
    let client = TcpStream::connect(proxy.addr()).await.expect("loopback works");
    (proxy, client)
}

/// Sends a request; returns false if the connection was cut before the answer.
async fn ask(client: &mut TcpStream, api: i16, correlation: i32) -> bool {
    let mut request = 8_i32.to_be_bytes().to_vec();
    request.extend(api.to_be_bytes());
    request.extend(0_i16.to_be_bytes());
    request.extend(correlation.to_be_bytes());
    if client.write_all(&request).await.is_err() {
        return false;
    }
    let mut answer = [0; 8];
    match timeout(DEADLINE, client.read_exact(&mut answer)).await.expect("loopback works") {
        Ok(_) => {
            assert_eq!(answer[4..], correlation.to_be_bytes());
            true
        }
        Err(_) => false,
    }
}

#[tokio::test]
async fn forwards_and_counts() {
    let (proxy, mut client) = proxied().await;
    for correlation in 0..10 {
        assert!(ask(&mut client, PRODUCE, correlation).await);
    }
    let counts = proxy.counts();
    assert_eq!((counts.connections, counts.open, counts.requests, counts.answers, counts.cuts), (1, 1, 10, 10, 0));
}

#[tokio::test]
async fn cuts_before_the_chosen_answer_of_the_chosen_kind() {
    let (proxy, mut client) = proxied().await;
    proxy.cut_at(Cut::before_answer(2).to_api(FETCH));
    assert!(ask(&mut client, FETCH, 1).await);
    assert!(ask(&mut client, PRODUCE, 2).await);
    assert!(!ask(&mut client, FETCH, 3).await);
    proxy.wait_for_cuts(1, DEADLINE).await.unwrap();
    assert_eq!((proxy.counts().requests, proxy.counts().answers), (3, 2), "the request went through, the answer not");
    let mut again = TcpStream::connect(proxy.addr()).await.unwrap();
    assert!(ask(&mut again, FETCH, 4).await, "a cut happens once");
}

#[tokio::test]
async fn cuts_after_an_answer() {
    let (proxy, mut client) = proxied().await;
    proxy.cut_at(Cut::after_answer(1));
    assert!(ask(&mut client, PRODUCE, 1).await);
    assert!(!ask(&mut client, PRODUCE, 2).await);
    assert_eq!(proxy.counts().cuts, 1);
}

#[tokio::test]
async fn cuts_all_connections_at_once() {
    let (proxy, mut first) = proxied().await;
    let mut second = TcpStream::connect(proxy.addr()).await.unwrap();
    assert!(ask(&mut first, PRODUCE, 1).await && ask(&mut second, PRODUCE, 2).await);
    proxy.cut_all();
    assert!(!ask(&mut first, PRODUCE, 3).await && !ask(&mut second, PRODUCE, 4).await);
    proxy.wait_for_cuts(2, DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_black_hole_keeps_what_it_swallows_until_it_ends() {
    let (proxy, mut client) = proxied().await;
    assert!(ask(&mut client, PRODUCE, 1).await);
    proxy.black_hole();
    let mut late = TcpStream::connect(proxy.addr()).await.unwrap();
    let (asked, asked_late) = (ask(&mut client, PRODUCE, 2), ask(&mut late, PRODUCE, 3));
    tokio::pin!(asked, asked_late);
    assert!(timeout(SILENCE, &mut asked).await.is_err() && timeout(SILENCE, &mut asked_late).await.is_err());
    proxy.resume();
    assert!(asked.await && asked_late.await);
}

#[tokio::test]
async fn refuses_until_it_resumes() {
    let (proxy, mut client) = proxied().await;
    assert!(ask(&mut client, PRODUCE, 1).await);
    proxy.refuse();
    assert!(!ask(&mut client, PRODUCE, 2).await);
    let mut again = TcpStream::connect(proxy.addr()).await.unwrap();
    assert!(!ask(&mut again, PRODUCE, 3).await);
    proxy.resume();
    let mut again = TcpStream::connect(proxy.addr()).await.unwrap();
    assert!(ask(&mut again, PRODUCE, 4).await);
}

#[tokio::test]
async fn refuses_new_connections_alone() {
    let (proxy, mut client) = proxied().await;
    assert!(ask(&mut client, PRODUCE, 1).await);
    proxy.refuse_new();
    let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
    assert!(!ask(&mut new, PRODUCE, 2).await);
    assert!(ask(&mut client, PRODUCE, 3).await);
    proxy.resume();
    let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
    assert!(ask(&mut new, PRODUCE, 4).await);
}

#[tokio::test]
async fn delays_each_answer() {
    let (proxy, mut client) = proxied().await;
    proxy.delay(SILENCE);
    let start = Instant::now();
    assert!(ask(&mut client, PRODUCE, 1).await);
    assert!(start.elapsed() >= SILENCE);
}

#[test]
fn it_outlives_the_runtime_that_started_it_and_ends_when_dropped() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let first = runtime();
    let proxy = first.block_on(async { Proxy::start("127.0.0.1:1", Framing::Chunks).unwrap() });
    drop(first);
    let address = proxy.addr();
    runtime().block_on(async { TcpStream::connect(address).await.unwrap() });
    drop(proxy);
    let gone = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    runtime().block_on(async { timeout(DEADLINE, gone).await.unwrap() });
}
