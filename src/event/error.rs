//! Why something is not a valid event.

use std::borrow::Cow;
use std::fmt;

/// Why a request, record or JSON object is not a valid CloudEvent: where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{place}: {problem}", Element(*.element))]
pub struct EventError {
    kind: EventErrorKind,
    place: Place,
    problem: Cow<'static, str>,
    element: Option<usize>,
}

/// What a caller can do about an [`EventError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventErrorKind {
    /// An attribute, a header or the body breaks a rule of CloudEvents.
    Invalid,
    /// An event format other than JSON.
    UnsupportedFormat,
}

/// Where the fault lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An attribute, by its CloudEvents name.
    Attribute(String),
    /// A header, by the name it has where the event came from.
    Header(String),
    /// The body or the record's value.
    Body,
}

impl EventError {
    pub(super) fn attribute(name: &str, problem: impl Into<Cow<'static, str>>) -> Self {
        Self::invalid(Place::Attribute(shown(name)), problem)
    }

    pub(super) fn header(name: &str, problem: impl Into<Cow<'static, str>>) -> Self {
        Self::invalid(Place::Header(shown(name)), problem)
    }

    pub(super) fn body(problem: impl Into<Cow<'static, str>>) -> Self {
        Self::invalid(Place::Body, problem)
    }

    pub(super) fn unsupported(header: &str, media_type: &str) -> Self {
        Self {
            kind: EventErrorKind::UnsupportedFormat,
            place: Place::Header(header.to_owned()),
            problem: format!(
                "the event format {:?} is not supported; send application/cloudevents+json, \
                 application/cloudevents-batch+json, or binary mode",
                shown(media_type)
            )
            .into(),
            element: None,
        }
    }

    fn invalid(place: Place, problem: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind: EventErrorKind::Invalid,
            place,
            problem: problem.into(),
            element: None,
        }
    }

    pub(super) fn in_element(mut self, index: usize) -> Self {
        self.element = Some(index);
        self
    }

    /// What sort of fault it is.
    #[must_use]
    pub fn kind(&self) -> EventErrorKind {
        self.kind
    }

    /// Where the fault lies.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Which event of a batch is at fault, from 0.
    #[must_use]
    pub fn element(&self) -> Option<usize> {
        self.element
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attribute(name) => write!(f, "attribute {name:?}"),
            Self::Header(name) => write!(f, "header {name:?}"),
            Self::Body => f.write_str("body"),
        }
    }
}

struct Element(Option<usize>);

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(index) => write!(f, "event {index} of the batch: "),
            None => Ok(()),
        }
    }
}

/// A sender's text, cut so that an error never repeats a whole request.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
