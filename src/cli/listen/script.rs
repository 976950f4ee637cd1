//! Which answer an attempt gets.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use http::StatusCode;

/// Answers to the attempts of one event, in order; at least one, and the last one goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answers(Vec<StatusCode>);

impl Answers {
    fn at(&self, attempt: usize) -> StatusCode {
        let index = attempt.saturating_sub(1).min(self.0.len() - 1);
        self.0[index]
    }
}

/// Reads `503,503,200`.
pub(super) fn parse_answers(text: &str) -> Result<Answers, String> {
    text.split(',')
        .map(|code| {
            let status = code
                .trim()
                .parse()
                .ok()
                .filter(|code| (200..600).contains(code));
            status
                .and_then(|code| StatusCode::from_u16(code).ok())
                .ok_or_else(|| format!("{code:?} is not a status code from 200 to 599"))
        })
        .collect::<Result<_, _>>()
        .map(Answers)
}

/// Reads `order.broken=500`.
pub(super) fn parse_by_type(text: &str) -> Result<(String, Answers), String> {
    let (kind, answers) = text
        .rsplit_once('=')
        .ok_or_else(|| format!("{text:?} is not TYPE=CODE,..."))?;
    Ok((kind.to_owned(), parse_answers(answers)?))
}

/// How a subscriber answers.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    answers: Answers,
    by_type: Vec<(String, Answers)>,
    pub(super) delay: Duration,
    pub(super) reply: Option<String>,
}

impl Script {
    pub(super) fn new(
        answers: Answers,
        by_type: Vec<(String, Answers)>,
        delay: Duration,
        reply: Option<String>,
    ) -> Self {
        Self {
            answers,
            by_type,
            delay,
            reply,
        }
    }

    /// A script that answers 200, and the events of some types as listed.
    ///
    /// # Errors
    /// What is wrong with a list of codes.
    pub(crate) fn by_type(listed: &[(&str, &str)]) -> Result<Self, String> {
        let by_type = listed
            .iter()
            .map(|(kind, codes)| Ok(((*kind).to_owned(), parse_answers(codes)?)))
            .collect::<Result<_, String>>()?;
        Ok(Self::new(
            Answers(vec![StatusCode::OK]),
            by_type,
            Duration::ZERO,
            None,
        ))
    }

    /// The answer to attempt `attempt`, counted from 1, of an event of type `kind`.
    pub(super) fn answer(&self, kind: &str, attempt: usize) -> StatusCode {
        let special = self.by_type.iter().find(|(wanted, _)| wanted == kind);
        special
            .map_or(&self.answers, |(_, answers)| answers)
            .at(attempt)
    }
}

/// Counts the attempts of each event, for the last events seen.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    counts: HashMap<String, usize>,
    order: VecDeque<String>,
}

impl Attempts {
    /// Events remembered; one that is forgotten begins at 1 again.
    const REMEMBERED: usize = 100_000;

    /// Counts one more attempt of `event`, and says which one it is.
    pub(super) fn next(&mut self, event: &str) -> usize {
        if let Some(count) = self.counts.get_mut(event) {
            *count += 1;
            return *count;
        }
        if self.order.len() >= Self::REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.counts.remove(&oldest);
        }
        self.order.push_back(event.to_owned());
        self.counts.insert(event.to_owned(), 1);
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_goes_on() {
        let script = Script::by_type(&[("flaky", "503, 429,200"), ("broken", "500")]).unwrap();
        let codes = |kind: &str| {
            (1..=4)
                .map(|n| script.answer(kind, n).as_u16())
                .collect::<Vec<_>>()
        };
        assert_eq!(codes("flaky"), [503, 429, 200, 200]);
        assert_eq!(codes("broken"), [500; 4]);
        assert_eq!(codes("other"), [200; 4]);
        for bad in ["", "99", "600", "199", "x", "200,"] {
            assert!(parse_answers(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_by_type("a=b=500").unwrap().0, "a=b");
        assert!(parse_by_type("500").is_err());
    }

    #[test]
    fn attempts_are_counted_by_event_and_memory_is_bounded() {
        let mut attempts = Attempts::default();
        assert_eq!(
            [attempts.next("a"), attempts.next("b"), attempts.next("a")],
            [1, 1, 2]
        );
        for n in 0..Attempts::REMEMBERED {
            attempts.next(&n.to_string());
        }
        assert_eq!(attempts.counts.len(), Attempts::REMEMBERED);
        assert_eq!(attempts.next("a"), 1);
    }
}
