//! The least that could deliver events: one consumer, a pooled client, 64 in flight. It commits
//! nothing and retries nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::Semaphore;

use crate::common;

const IN_FLIGHT: usize = 64;

/// Delivers what is in the topic from `offsets` on, until it is killed.
pub(crate) fn run(servers: &str, topic: &str, url: &str, offsets: &str) {
    let mut config = common::client(servers);
    config.set("group.id", "levada-bench-bare");
    config.set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false");
    config.set("fetch.wait.max.ms", "100");
    config.set("fetch.queue.backoff.ms", "2");
    let consumer: BaseConsumer = config.create().expect("a consumer can be made");
    let mut list = TopicPartitionList::new();
    for (partition, offset) in (0..).zip(offsets.split(',')) {
        let offset = Offset::Offset(offset.parse().expect("an offset is a number"));
        list.add_partition_offset(topic, partition, offset)
            .expect("the offset is legal");
    }
    consumer.assign(&list).expect("the partitions are there");

    let url: Uri = url.parse().expect("the address is a URL");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime can be built");
    let client = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(IN_FLIGHT)
        .build_http::<Full<Bytes>>();
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    loop {
        let Some(record) = consumer.poll(Duration::from_secs(1)) else {
            continue;
        };
        let request = request(&url, &record.expect("Kafka answers"));
        let place = runtime
            .block_on(room.clone().acquire_owned())
            .expect("it is never closed");
        let client = client.clone();
        runtime.spawn(async move {
            let answer = client.request(request).await.expect("the sink answers");
            assert!(answer.status().is_success());
            answer
                .into_body()
                .collect()
                .await
                .expect("the sink answers");
            drop(place);
        });
    }
}

fn request(url: &Uri, record: &BorrowedMessage<'_>) -> Request<Full<Bytes>> {
    let data = Bytes::copy_from_slice(record.payload().unwrap_or_default());
    let mut request = Request::new(Full::new(data));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.clone();
    for header in record
        .headers()
        .into_iter()
        .flat_map(|headers| headers.iter())
    {
        let name = header.key.replacen('_', "-", 1);
        let value = HeaderValue::from_bytes(header.value.unwrap_or_default());
        request.headers_mut().insert(
            HeaderName::try_from(name).expect("an attribute's name is a header's"),
            value.expect("the bench's values are plain"),
        );
    }
    request
}
