use super::*;

#[test]
fn what_others_wrote_is_shown_as_it_is() {
    let shown = |value: &str| text(value).into_string();
    assert_eq!(
        shown("a<b>\"&'"),
        "<bdi class=\"v\">a&lt;b&gt;&quot;&amp;'</bdi>"
    );
    assert_eq!(
        shown("x\u{202e}y\0"),
        "<bdi class=\"v\">x<span class=\"esc\">\\u202e</span>y<span class=\"esc\">\\u0000</span></bdi>"
    );
    for hidden in [
        '\u{200b}',
        '\u{feff}',
        '\u{2066}',
        '\n',
        '\u{7f}',
        '\u{e0041}',
    ] {
        assert!(shown(&hidden.to_string()).contains("\\u"), "{hidden:?}");
    }
    assert!(lines("a\nb").into_string().contains("a\nb"));
    let long = "x".repeat(100_000);
    assert!(id(&long).into_string().len() < 250);
}

#[test]
fn durations_read_well() {
    for (micros, read) in [
        (400, "0.4 ms"),
        (9_940, "9.9 ms"),
        (41_000, "41 ms"),
        (5_900_000, "5.9 s"),
        (59_999_000, "59.9 s"),
        (250_000_000, "4 min 10 s"),
        (120_000_000, "2 min"),
        (7_500_000_000, "2 h 5 min"),
        (200_000_000_000, "2 d 7 h"),
    ] {
        assert_eq!(lasting(Duration::from_micros(micros)), read);
    }
}

#[test]
fn a_countdown_ends_at_now() {
    let of = |left: i64| countdown(UnixMillis(10_000 + left), UnixMillis(10_000));
    assert_eq!(of(-5000), "due now");
    assert_eq!(of(0), "due now");
    assert_eq!(of(1), "in 1 s");
    assert_eq!(of(5000), "in 5 s");
    assert_eq!(of(61_000), "in 1 min");
}

#[test]
fn numbers_are_exact_or_say_so() {
    let shown = |value| number(value).into_string();
    assert_eq!(shown(0), "0");
    assert_eq!(shown(99_999), "99,999");
    assert_eq!(shown(1_239_999), "<span title=\"1,239,999\">1.23 M</span>");
    assert_eq!(shown(123_456), "<span title=\"123,456\">123 k</span>");
    for (part, all, read) in [
        (0, 0, "–"),
        (0, 5, "0 %"),
        (1, 1, "100 %"),
        (99_999, 100_000, "99.99 %"),
        (1, 100_000, "< 0.01 %"),
        (31, 1000, "3.1 %"),
        (1, 2, "50 %"),
    ] {
        assert_eq!(percent(part, all), read, "{part}/{all}");
    }
    for (value, read) in [
        (0.0, "0/s"),
        (0.001, "< 0.01/s"),
        (0.05, "0.05/s"),
        (2.0, "2/s"),
        (212.4, "212/s"),
        (1204.9, "1,204/s"),
    ] {
        assert_eq!(rate(value), read);
    }
}

#[test]
fn times_name_the_day_when_it_is_another() {
    let now = UnixMillis(1_763_129_521_112);
    assert_eq!(clock(now, now, false), "14:12:01");
    assert_eq!(clock(now, now, true), "14:12:01.112");
    let before = UnixMillis(now.0 - 86_400_000);
    assert_eq!(clock(before, now, false), "13 Nov 14:12:01");
}

#[test]
fn statuses_have_words() {
    let word = |status, is_final, attempts| look(status, is_final, attempts).icon;
    assert_eq!(word(Status::Queued, false, 0), "ring");
    assert_eq!(word(Status::Queued, false, 1), "retry");
    assert_eq!(word(Status::Undelivered, false, 1), "hatch");
    assert_eq!(word(Status::Undelivered, true, 1), "cross");
    assert_eq!(reason("http_503"), "HTTP 503");
    assert_eq!(reason("connect_refused"), "connection refused");
    assert_eq!(reason("new_one"), "new_one");
}
