//! Media types: the grammar of RFC 9110 8.3.1, and the few questions that are asked of one.

/// Whether `text` is `type/subtype` with well-formed parameters.
pub(super) fn is_media_type(text: &str) -> bool {
    if text == "application/json" {
        return true;
    }
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let essence_is_good = essence
        .trim_end_matches([' ', '\t'])
        .split_once('/')
        .is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    essence_is_good && parameters_are_good(parameters.as_bytes())
}

/// `OWS [ parameter ] *( OWS ";" OWS [ parameter ] )`
fn parameters_are_good(mut rest: &[u8]) -> bool {
    loop {
        rest = rest.trim_ascii_start();
        if rest.first().is_some_and(|byte| *byte != b';') {
            match parameter(rest) {
                Some(after) => rest = after.trim_ascii_start(),
                None => return false,
            }
        }
        match rest.split_first() {
            None => return true,
            Some((b';', after)) => rest = after,
            Some(_) => return false,
        }
    }
}

/// What follows `name=value` at the start of `text`.
fn parameter(text: &[u8]) -> Option<&[u8]> {
    let (name, rest) = token(text)?;
    let rest = rest.strip_prefix(b"=").filter(|_| !name.is_empty())?;
    match rest.strip_prefix(b"\"") {
        Some(quoted) => after_quote(quoted),
        None => token(rest).map(|(_, after)| after),
    }
}

fn after_quote(quoted: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    loop {
        match quoted.get(at)? {
            b'"' => return Some(&quoted[at + 1..]),
            b'\\' => at += 2,
            b'\t' | 0x20..=0x7e => at += 1,
            _ => return None,
        }
    }
}

/// A token at the start of `text`, and the rest.
fn token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text
        .iter()
        .position(|byte| !is_token_byte(*byte))
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The media type without its parameters.
pub(super) fn essence(text: &str) -> &str {
    text.split(';')
        .next()
        .unwrap_or_default()
        .trim_matches([' ', '\t'])
}

/// Whether the data is JSON: subtype `json`, or one that ends with `+json`.
pub(super) fn is_json(text: &str) -> bool {
    let essence = essence(text);
    ends_with(essence, "/json") || ends_with(essence, "+json")
}

/// Whether the data is text in UTF-8 (or in a part of it), so that it can be a JSON string.
pub(super) fn is_utf8_text(text: &str) -> bool {
    let essence = essence(text);
    let is_text =
        starts_with(essence, "text/") || ends_with(essence, "/xml") || ends_with(essence, "+xml");
    let charset = text.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("charset")
            .then(|| value.trim().trim_matches('"'))
    });
    is_text
        && charset.is_none_or(|charset| {
            ["utf-8", "us-ascii"]
                .iter()
                .any(|known| charset.eq_ignore_ascii_case(known))
        })
}

/// Whether `text` begins with `start`, which is in lower case, in any case.
pub(super) fn starts_with(text: &str, start: &str) -> bool {
    text.as_bytes()
        .get(..start.len())
        .is_some_and(|head| head.eq_ignore_ascii_case(start.as_bytes()))
}

fn ends_with(text: &str, end: &str) -> bool {
    text.len()
        .checked_sub(end.len())
        .is_some_and(|at| text.as_bytes()[at..].eq_ignore_ascii_case(end.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar() {
        for good in [
            "application/json",
            "TEXT/Plain; CharSet=utf-8",
            "text/plain;charset=\"utf-8\" ; x=\"a\\\"b;c\"",
            "application/vnd.acme+json",
            "text/plain;",
            "text/plain; ;a=b",
        ] {
            assert!(is_media_type(good), "{good}");
        }
        for bad in [
            "",
            "json",
            "/json",
            "text/",
            "bogus ;=========",
            "text/plain;a",
            "text/plain;a=",
            "text/plain;=a",
            "text/plain;a=\"b",
            "text/plain;a=b c",
            "text/pl ain",
            "a/b/c",
            "text/plain, text/html",
            "text/plain;a=\"\u{1}\"",
            "téxt/plain",
        ] {
            assert!(!is_media_type(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_json_and_what_is_text() {
        assert!(is_json("application/json; charset=utf-8"));
        assert!(is_json("Application/Vnd.acme+JSON"));
        assert!(!is_json("application/jsonl"));
        assert!(!is_json("text/plain; a=/json"));
        assert!(is_utf8_text("text/plain"));
        assert!(is_utf8_text("application/soap+xml; charset=\"UTF-8\""));
        assert!(!is_utf8_text("text/plain; charset=iso-8859-1"));
        assert!(!is_utf8_text("application/octet-stream"));
    }
}
