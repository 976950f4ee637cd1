use super::*;
use crate::dashboard::tests::fake::{NOW, log, story};
use crate::journal::{FinalReason, Wait};

fn shown(story: &Story) -> String {
    let html = ladder(story, None, NOW).into_string();
    // Only what is read.
    let mut text = String::new();
    for piece in html.split('<') {
        text.push_str(piece.split_once('>').map_or(piece, |(_, text)| text));
    }
    text
}

fn at(seconds: i64) -> UnixMillis {
    UnixMillis(NOW.0 - 100_000 + seconds * 1000)
}

#[test]
fn waits_are_told_in_words() {
    let mut story = story(1, "e");
    story.message.accepted = at(0);
    story.logs = vec![log(1, at(0)), log(2, at(6))];
    story.message.attempts = 2;
    let text = shown(&story);
    for part in [
        "0.0 ms until the first attempt",
        "waited 5.9 s (planned 7.0 s × jitter 0.84), parked in the retry topic",
        "attempt 2 503 Service Unavailable",
        "attempt 3 in 5 s",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn retry_after_rounds_and_holes_are_named() {
    let mut story = story(1, "e");
    let mut first = log(1, at(0));
    first.wait = first.wait.map(|wait| Wait {
        retry_after: true,
        ..wait
    });
    let mut redriven = log(5, at(60));
    redriven.round = 2;
    redriven.trigger = Trigger::Redrive;
    let repeated = redriven.clone();
    story.logs = vec![first, log(2, at(6)), log(4, at(20)), redriven, repeated];
    let text = shown(&story);
    for part in [
        "Retry-After made it 5.9 s",
        "attempt 3 not recorded",
        "Round 2, redriven",
        "repeated after restart",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn long_stories_are_folded_and_ends_are_told() {
    let mut story = story(1, "e");
    story.logs = (1..=49).map(|n| log(n, at(i64::from(n)))).collect();
    story.message.is_final = true;
    story.message.status = Status::Undelivered;
    story.message.failure = Some(FinalReason::RetriesExhausted);
    let text = shown(&story);
    assert!(text.contains("… 40 more"), "{text}");
    assert!(text.contains("attempt 3 ") && !text.contains("attempt 4 "));
    assert!(text.contains("attempt 44 ") && text.contains("attempt 49 "));
    assert!(text.ends_with("Undelivered: retries exhausted"), "{text}");
}
