use leno_core::health::default_spec;
use tokio::net::TcpListener;

use super::*;

fn spec(probe: Probe) -> HealthSpec {
    HealthSpec {
        probe,
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(200),
        unhealthy_after: 1,
        ..default_spec()
    }
}

/// An application that gives every connection this answer, in the order of the list and then the last one again.
async fn app(answers: &'static [&'static str]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for n in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _read = stream.read(&mut request).await;
            let _written = stream.write_all(answers[n.min(answers.len() - 1)].as_bytes()).await;
        }
    });
    address
}

/// No namespace but ours.
fn here() -> Dialer {
    Dialer::default()
}

async fn until(told: &mut watch::Receiver<Health>, wanted: &Health) {
    let found = timeout(Duration::from_secs(5), told.wait_for(|health| health == wanted)).await.is_ok();
    assert!(found, "expected {wanted:?}, it is {:?}", *told.borrow());
}

#[tokio::test]
async fn a_status_decides() {
    let ok = app(&["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]).await;
    let redirect = app(&["HTTP/1.0 302 Found\r\n\r\n"]).await;
    let sick = app(&["HTTP/1.1 503 Service Unavailable\r\n\r\n"]).await;
    let garbage = app(&["SSH-2.0-OpenSSH\r\n"]).await;
    let silent = app(&[""]).await;
    let http = spec(Probe::Http("/healthz".into()));
    assert_eq!(probe(ok, &here(), &http).await, Outcome::Good);
    assert_eq!(probe(redirect, &here(), &http).await, Outcome::Good);
    assert_eq!(probe(sick, &here(), &http).await, Outcome::Bad("status 503 for /healthz".into()));
    assert_eq!(
        probe(garbage, &here(), &http).await,
        Outcome::Bad("the answer is not HTTP for /healthz".into())
    );
    let outcome = probe(silent, &here(), &http).await;
    assert_eq!(outcome, Outcome::Bad("the connection ended before an answer for /healthz".into()));
    assert_eq!(probe(sick, &here(), &spec(Probe::Tcp)).await, Outcome::Good);
    let split = spec(Probe::Http("/x HTTP/1.1\r\nEvil: yes".into()));
    assert!(matches!(probe(ok, &here(), &split).await, Outcome::Bad(why) if why.starts_with("not a path")));
}

#[tokio::test]
async fn nobody_there_and_no_answer_are_told_apart() {
    // Bound and not listening: nobody else can take the port meanwhile.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let gone = held.local_addr().unwrap();
    assert_eq!(probe(gone, &here(), &spec(Probe::Tcp)).await, Outcome::Refused);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let deaf = listener.local_addr().unwrap();
    let outcome = probe(deaf, &here(), &spec(Probe::Http("/".into()))).await;
    assert_eq!(outcome, Outcome::Bad("no answer within 200ms".into()));
}

#[tokio::test]
async fn an_application_is_followed_through_its_life() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (configure, configured) = watch::channel(None);
    let mut told = check(address, here(), configured);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(*told.borrow(), Health::Unknown, "it is not known yet what to ask");

    configure.send(Some(Arc::new(spec(Probe::Tcp)))).unwrap();
    until(&mut told, &Health::Healthy).await;
    drop(listener);
    until(&mut told, &Health::Unhealthy("connection refused".into())).await;
    let again = TcpListener::bind(address).await.unwrap();
    until(&mut told, &Health::Healthy).await;

    // What is asked changes: it accepts connections and never answers.
    configure.send(Some(Arc::new(spec(Probe::Http("/".into()))))).unwrap();
    until(&mut told, &Health::Unhealthy("no answer within 200ms".into())).await;
    drop(again);
}
