use super::super::console::captured;
use super::*;

const ANY_PORTS: Ports = Ports {
    listen: 0,
    admin: 0,
    subscriber: 0,
};

/// Ids with what became of them, in the order it was told.
fn told_of<'a>(text: &'a str, id: &str) -> Vec<&'a str> {
    text.lines()
        .filter(|line| {
            line.contains(&format!("{id} "))
                || line.contains(&format!("{id}:"))
                || line.contains(&format!("{id};"))
        })
        .filter_map(|line| line.split_once(" s  "))
        .map(|(_, told)| told)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_tells_what_becomes_of_each_event() {
    let dir = Dir::open(None).unwrap();
    let path = dir.path.clone();
    let (console, text) = captured();
    let advice_is_there = async {
        while !text().contains("It goes on until Ctrl-C.") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let limit = Duration::from_secs(60);
    let played = play(&dir.path, ANY_PORTS, &console, advice_is_there);
    let played = tokio::time::timeout(limit, played).await;
    let said = text();
    played
        .expect("it ends when it is told to")
        .unwrap_or_else(|error| panic!("{error}\n{said}"));
    assert_eq!(
        told_of(&said, "order-1"),
        [
            "sent order-1 (order.created): 202, it is on disk",
            "delivered order-1: 200"
        ],
        "{said}"
    );
    let flaky = told_of(&said, "order-3");
    assert_eq!(flaky.len(), 4, "{said}");
    assert_eq!(flaky[3], "delivered order-3 at attempt 3: 200");
    let broken = told_of(&said, "order-4");
    assert_eq!(broken.len(), 6, "{said}");
    assert!(
        broken[4].ends_with("attempt 4 of order-4; no retries left"),
        "{said}"
    );
    assert!(broken[5].ends_with("with the last answer: 500"), "{said}");
    assert!(
        said.contains("levada get subscriptions --admin http://127.0.0.1:"),
        "{said}"
    );
    drop(dir);
    assert!(!path.exists());
}

#[test]
fn the_manifest_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9000));
    let path = manifest(dir.path(), address, address).unwrap();
    let content = std::fs::read(&path).unwrap();
    let name = path.display().to_string();
    let source = crate::manifest::Source { name, content };
    let report = crate::manifest::check(&[source], &[]);
    assert!(
        report.is_valid() && report.warnings.is_empty(),
        "{report:?}"
    );
    assert_eq!(report.deliveries()[0].1.retry, 3);
}

#[tokio::test]
async fn a_taken_port_is_passed_over() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    assert_eq!(free(port).await.port(), 0);
    drop(taken);
    assert_eq!(free(port).await.port(), port);
}
