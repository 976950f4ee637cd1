//! The least that could take events over HTTP: copies `ce-` headers to a record and answers 202
//! when the delivery report is there. It checks nothing.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rdkafka::ClientContext;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::common;

struct Reports;

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<oneshot::Sender<bool>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        // An error means that the request's connection is gone.
        waiting.send(result.is_ok()).ok();
    }
}

struct Bare {
    producer: ThreadedProducer<Reports>,
    topic: String,
}

/// Serves on a port that it prints, until it is killed.
pub(crate) fn run(servers: &str, topic: &str) {
    let producer: ThreadedProducer<Reports> = common::producer(servers)
        .create_with_context(Reports)
        .expect("a producer can be made");
    // The first record need not wait for metadata.
    let patience = std::time::Duration::from_secs(10);
    producer
        .client()
        .fetch_metadata(Some(topic), patience)
        .expect("Kafka answers");
    let bare = Arc::new(Bare {
        producer,
        topic: topic.to_owned(),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime
        .expect("a runtime can be built")
        .block_on(serve(bare));
}

async fn serve(bare: Arc<Bare>) {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = TcpListener::bind(address).await.expect("a port is free");
    println!("{}", listener.local_addr().expect("it is bound"));
    loop {
        let (stream, _) = listener.accept().await.expect("connections come");
        stream
            .set_nodelay(true)
            .expect("a socket takes this option");
        let bare = bare.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| take(bare.clone(), request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // An error is the producer going away.
            connection.await.ok();
        });
    }
}

async fn take(
    bare: Arc<Bare>,
    request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let mut answer = Response::new(Empty::new());
    *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    let Ok(body) = body.collect().await else {
        return Ok(answer);
    };
    let mut headers = OwnedHeaders::new_with_capacity(parts.headers.len());
    for (name, value) in &parts.headers {
        let value = Some(value.as_bytes());
        match name.as_str().strip_prefix("ce-") {
            Some(name) => {
                let key = &format!("ce_{name}");
                headers = headers.insert(Header { key, value });
            }
            None if name == http::header::CONTENT_TYPE => {
                let key = "content-type";
                headers = headers.insert(Header { key, value });
            }
            None => {}
        }
    }
    let (waiting, report) = oneshot::channel();
    let data = body.to_bytes();
    let record: BaseRecord<'_, [u8], [u8], _> =
        BaseRecord::with_opaque_to(&bare.topic, Box::new(waiting));
    let sent = bare.producer.send(record.payload(&data).headers(headers));
    if sent.is_ok() && report.await == Ok(true) {
        *answer.status_mut() = StatusCode::ACCEPTED;
    }
    Ok(answer)
}
