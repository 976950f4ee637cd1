//! The data of events and answers, for reading: JSON, text, or bytes.

use maud::{Markup, html};

use super::words;

/// JSON is laid out up to this size and depth, and shown as it came beyond.
const PRETTY: usize = 256 << 10;
const DEPTH: usize = 64;
/// What is shown at first.
const FIRST: usize = 4 << 10;
/// What is shown at most.
const MOST: usize = 64 << 10;

/// How data is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Pretty,
    Raw,
    Hex,
}

impl Mode {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "pretty" => Some(Self::Pretty),
            "raw" => Some(Self::Raw),
            "hex" => Some(Self::Hex),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pretty => "pretty",
            Self::Raw => "raw",
            Self::Hex => "hex",
        }
    }

    /// What suits these bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        if pretty(bytes).is_some() {
            Self::Pretty
        } else if std::str::from_utf8(bytes).is_ok_and(|text| !text.contains('\0')) {
            Self::Raw
        } else {
            Self::Hex
        }
    }
}

/// The bytes in a mode, `all` of them or the beginning.
pub(super) fn show(bytes: &[u8], mode: Mode, all: bool) -> (Markup, Option<usize>) {
    let limit = if all { MOST } else { FIRST };
    let text = match mode {
        Mode::Pretty => pretty(bytes),
        Mode::Hex => None,
        Mode::Raw => Some(String::from_utf8_lossy(bytes).into_owned()),
    };
    match text {
        Some(text) => {
            let cut = boundary(&text, limit);
            let shown = html! { pre.data tabindex="0" { (words::lines(&text[..cut])) } };
            (shown, (cut < text.len()).then_some(cut))
        }
        None => {
            let cut = bytes.len().min(limit);
            let shown = html! { pre.data.hex tabindex="0" { (hex(&bytes[..cut])) } };
            (shown, (cut < bytes.len()).then_some(cut))
        }
    }
}

/// The last place at or before `limit` where the text can be cut.
fn boundary(text: &str, limit: usize) -> usize {
    let places = (0..=limit.min(text.len())).rev();
    let mut fitting = places.skip_while(|at| !text.is_char_boundary(*at));
    fitting.next().unwrap_or(0)
}

/// Offsets, bytes and letters.
fn hex(bytes: &[u8]) -> String {
    let mut lines = String::new();
    for (row, chunk) in bytes.chunks(16).enumerate() {
        let mut digits: String = chunk.iter().map(|byte| format!("{byte:02x} ")).collect();
        digits.push_str(&"   ".repeat(16 - chunk.len()));
        let letter = |byte: &u8| {
            if matches!(byte, 0x20..=0x7e) {
                char::from(*byte)
            } else {
                '.'
            }
        };
        let letters: String = chunk.iter().map(letter).collect();
        lines.push_str(&format!("{:06x}  {digits} {letters}\n", row * 16));
    }
    lines
}

/// JSON with a line for each member. Numbers and strings stay as they were written. `None` for
/// what is no JSON, too large or too deep.
pub(super) fn pretty(bytes: &[u8]) -> Option<String> {
    if bytes.len() > PRETTY || !matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'[')) {
        return None;
    }
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).ok()?;
    let text = std::str::from_utf8(bytes).ok()?;
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut inside, mut escaped) = (0_usize, false, false);
    let mut last = ' ';
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if inside {
            out.push(c);
            inside = escaped || c != '"';
            escaped = !escaped && c == '\\';
            last = c;
            continue;
        }
        match c {
            _ if c.is_whitespace() => continue,
            '"' => {
                inside = true;
                out.push(c);
            }
            '{' | '[' => {
                depth += 1;
                if depth > DEPTH {
                    return None;
                }
                out.push(c);
                while chars.next_if(|next| next.is_whitespace()).is_some() {}
                if !matches!(chars.peek(), Some('}' | ']')) {
                    newline(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if !matches!(last, '{' | '[') {
                    newline(&mut out, depth);
                }
                out.push(c);
            }
            ',' => {
                out.push(c);
                newline(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => out.push(c),
        }
        last = c;
    }
    Some(out)
}

fn newline(out: &mut String, depth: usize) {
    out.push('\n');
    out.push_str(&"  ".repeat(depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_laid_out_and_its_numbers_are_kept() {
        let json = br#"{"a":1.10000000000000000001,"b":[],"c":[1, {"d":"x\"}{ ,"}],"e":{ } }"#;
        let text = "{\n  \"a\": 1.10000000000000000001,\n  \"b\": [],\n  \"c\": [\n    1,\n    {\n      \"d\": \"x\\\"}{ ,\"\n    }\n  ],\n  \"e\": {}\n}";
        assert_eq!(pretty(json).unwrap(), text);
        for other in [&b"{"[..], b"", b"17", b"{\"a\":}", b"<a>"] {
            assert_eq!(pretty(other), None);
        }
        assert!(pretty("[".repeat(60).as_bytes()).is_none());
        let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
        assert!(pretty(deep.as_bytes()).is_none());
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_such() {
        assert_eq!(Mode::of(b"{\"a\":1}"), Mode::Pretty);
        assert_eq!(Mode::of(b"hello"), Mode::Raw);
        assert_eq!(Mode::of(b"\xff\x00"), Mode::Hex);
        assert_eq!(Mode::of(b"a\0b"), Mode::Hex);
        let (shown, cut) = show(b"AB\0\xff", Mode::Hex, false);
        assert!(shown.into_string().contains("000000  41 42 00 ff "));
        assert_eq!(cut, None);
        let (_, cut) = show(&[b'x'; 5000], Mode::Raw, false);
        assert_eq!(cut, Some(4096));
        let (_, cut) = show("ü".repeat(3000).as_bytes(), Mode::Raw, false);
        assert_eq!(cut, Some(4096));
        let shown = show(b"<script>\x1b", Mode::Raw, false).0.into_string();
        assert!(shown.contains("&lt;script&gt;<span class=\"esc\">\\u001b</span>"));
    }
}
