//! A request as a command that sends it again.

use std::fmt::Write as _;

use super::words;
use crate::journal::StoredLog;

/// Headers that the command sets by itself.
const OWN: [&str; 5] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "accept",
];

/// The command. `body` is what the request carried; `None`: it carried nothing, or the event is
/// gone. What cannot stand on a command line is read from the file `event.bin`.
pub(super) fn command(log: &StoredLog, body: Option<&[u8]>) -> String {
    let mut command = format!("curl -i -g -X {} {}", log.method, quoted(&log.url));
    for (name, value) in &log.request_headers {
        if OWN.contains(&name.to_ascii_lowercase().as_str()) {
            continue;
        }
        let argument = if is_masked(value) {
            let variable: String = name
                .chars()
                .map(|c| {
                    if c.is_ascii_alphanumeric() {
                        c.to_ascii_uppercase()
                    } else {
                        '_'
                    }
                })
                .collect();
            format!("{}\"${variable}\"", quoted(&format!("{name}: ")))
        } else if value.is_empty() {
            quoted(&format!("{name};"))
        } else {
            quoted(&format!("{name}: {value}"))
        };
        // Writing to a string does not fail.
        let _ = write!(command, " \\\n  -H {argument}");
    }
    let Some(body) = body.filter(|body| !body.is_empty()) else {
        return command;
    };
    match std::str::from_utf8(body) {
        Ok(text) if !text.contains('\0') && text.len() <= 64 << 10 => {
            let _ = write!(command, " \\\n  --data-raw {}", quoted(text));
        }
        _ => command.push_str(" \\\n  --data-binary @event.bin"),
    }
    command
}

/// Whether the command reads the body from a file.
pub(super) fn needs_file(command: &str) -> bool {
    command.ends_with(" @event.bin")
}

fn is_masked(value: &str) -> bool {
    let rest = value.rsplit(' ').next().unwrap_or(value);
    !rest.is_empty()
        && (rest.chars().all(|c| c == '*')
            || rest.chars().all(|c| c == '•')
            || rest.contains("[masked]"))
}

/// One word of a POSIX shell, whatever is in it. What steers a terminal is written as its number.
pub(super) fn quoted(text: &str) -> String {
    let mut word = String::from("'");
    for c in text.chars() {
        match c {
            '\'' => word.push_str("'\\''"),
            '\n' | '\t' => word.push(c),
            c if words::is_treacherous(c) => {
                let mut bytes = [0; 4];
                word.push_str("'\"$(printf '");
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(word, "\\{byte:03o}");
                }
                word.push_str("')\"'");
            }
            c => word.push(c),
        }
    }
    word.push('\'');
    word
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::clock::UnixMillis;
    use crate::journal::{LogKind, Trigger};

    fn log(headers: &[(&str, &str)]) -> StoredLog {
        StoredLog {
            number: 1,
            kind: LogKind::Attempt,
            phase: "subscriber".into(),
            trigger: Trigger::First,
            round: 1,
            attempt: 1,
            started: UnixMillis(0),
            duration_us: 0,
            reason: None,
            node: "a".into(),
            method: "POST".into(),
            url: "http://127.0.0.1:1/a?b='c'&d=$(id)`id`".into(),
            request_headers: headers
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            code: None,
            response_headers: Vec::new(),
            body: Vec::new(),
            truncated: false,
            error: None,
            wait: None,
        }
    }

    /// The arguments that a shell hands to `curl`.
    fn arguments(command: &str) -> Vec<String> {
        let script = format!("curl() {{ printf '%s\\0' \"$@\"; }}\n{command}\n");
        let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn a_shell_reads_back_what_was_sent() {
        let nasty = "it's \"$(touch x)\" `x` \\ \u{202e} \u{1b}[31m\x07\ttab\nline\n é !";
        let command = command(
            &log(&[("ce-id", nasty), ("Host", "h"), ("x-empty", "")]),
            Some(nasty.as_bytes()),
        );
        let url = "http://127.0.0.1:1/a?b='c'&d=$(id)`id`";
        assert_eq!(
            arguments(&command),
            [
                "-i",
                "-g",
                "-X",
                "POST",
                url,
                "-H",
                &format!("ce-id: {nasty}"),
                "-H",
                "x-empty;",
                "--data-raw",
                nasty
            ]
        );
        assert!(!command.contains('\u{1b}') && !command.contains('\u{202e}'));
    }

    #[test]
    fn secrets_are_variables_and_bytes_come_from_a_file() {
        let command = command(&log(&[("authorization", "Bearer ***")]), Some(b"\xff\0"));
        assert!(
            command.contains("'authorization: '\"$AUTHORIZATION\""),
            "{command}"
        );
        assert!(needs_file(&command));
        assert_eq!(arguments(&command).last().unwrap(), "@event.bin");
    }
}
