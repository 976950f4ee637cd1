//! YAML text to a tree that remembers its lines.
//!
//! The tree is built from the parser's events, without recursion, so that depth, size and what
//! aliases expand to are bounded however the text is made. A mapping keeps repeated keys: who
//! reads it reports them where they stand.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr::Scalar;
use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

/// The largest text that is read, in bytes.
pub const MAX_BYTES: usize = 8 << 20;
/// How deep collections may be nested.
const MAX_DEPTH: usize = 64;
/// How many values one text may hold, aliases expanded.
const MAX_NODES: usize = 1 << 20;

/// A value and the line it begins at.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key, the line it stands on, and its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) value: Node,
}

/// Where the text stops being YAML that is taken, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) message: String,
}

impl Node {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    pub(super) fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// The same as JSON; of a repeated key the last value stays.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            // Infinity and NaN have no place in JSON and become null.
            Value::Float(value) => (*value).into(),
            Value::Text(value) => value.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => entries
                .iter()
                .map(|entry| (entry.key.clone(), entry.value.to_json()))
                .collect(),
        }
    }
}

/// The documents of `text`, in order; empty ones are null.
pub(super) fn load(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => builder.take(event, span)?,
            Err(error) => {
                // What is missing at the end is reported behind it: name the last line there is.
                let lines = text.lines().count().max(1);
                return Err(SyntaxError {
                    line: error.marker().line().clamp(1, lines),
                    message: error.info().to_owned(),
                });
            }
        }
    }
    Ok(builder.documents)
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    /// The collections that are open, outermost first.
    open: Vec<Open>,
    /// The document's value, once it is complete.
    root: Option<Node>,
    /// Complete values that an alias may name, with their sizes.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

struct Open {
    line: usize,
    anchor: usize,
    /// How many nodes there were when it began: its size is what was added since.
    nodes_before: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        /// A key that waits for its value.
        key: Option<(String, usize)>,
    },
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), SyntaxError> {
        let line = span.start.line();
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::DocumentEnd => {
                let value = Value::Null;
                let root = self.root.take().unwrap_or(Node { line, value });
                self.documents.push(root);
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => self.scalar(text, style, anchor, tag, line),
            Event::SequenceStart(anchor, _) => self.begin(line, anchor, Content::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                let (entries, key) = (Vec::new(), None);
                self.begin(line, anchor, Content::Map { entries, key })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => self.alias(anchor, line),
        }
    }

    fn count(&mut self, nodes: usize, line: usize) -> Result<(), SyntaxError> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(refuse(
                line,
                format!("more than {MAX_NODES} values, aliases expanded"),
            ));
        }
        Ok(())
    }

    fn begin(&mut self, line: usize, anchor: usize, content: Content) -> Result<(), SyntaxError> {
        if self.open.len() == MAX_DEPTH {
            return Err(refuse(
                line,
                format!("nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        if self.awaits_key() {
            return Err(refuse(line, "a key must be a plain value"));
        }
        let nodes_before = self.nodes;
        self.count(1, line)?;
        self.open.push(Open {
            line,
            anchor,
            nodes_before,
            content,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), SyntaxError> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let value = match open.content {
            Content::List(items) => Value::List(items),
            Content::Map { entries, .. } => Value::Map(entries),
        };
        let node = Node {
            line: open.line,
            value,
        };
        let size = self.nodes - open.nodes_before;
        self.complete(node, open.anchor, size)
    }

    fn scalar(
        &mut self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<Cow<'_, Tag>>,
        line: usize,
    ) -> Result<(), SyntaxError> {
        self.count(1, line)?;
        if let Some(Open {
            content: Content::Map {
                key: key @ None, ..
            },
            ..
        }) = self.open.last_mut()
        {
            // Whatever a key looks like, it is the name of a field.
            *key = Some((text.into_owned(), line));
            return Ok(());
        }
        let shown = tag.as_ref().map(ToString::to_string).unwrap_or_default();
        let scalar = Scalar::parse_from_cow_and_metadata(text, style, tag.as_ref())
            .ok_or_else(|| refuse(line, format!("the value does not fit its tag {shown}")))?;
        let value = match scalar {
            Scalar::Null => Value::Null,
            Scalar::Boolean(value) => Value::Bool(value),
            Scalar::Integer(value) => Value::Int(value),
            Scalar::FloatingPoint(value) => Value::Float(*value),
            Scalar::String(value) => Value::Text(value.into_owned()),
        };
        self.complete(Node { line, value }, anchor, 1)
    }

    fn alias(&mut self, anchor: usize, line: usize) -> Result<(), SyntaxError> {
        if self.awaits_key() {
            return Err(refuse(line, "an alias cannot be a key"));
        }
        // Counted before it is copied, so that nothing too large is ever made.
        let size = self.anchors.get(&anchor).map_or(0, |(_, size)| *size);
        self.count(size, line)?;
        match self.anchors.get(&anchor) {
            Some((node, _)) => self.complete(node.clone(), 0, size),
            None => Err(refuse(line, "an alias inside of what it names")),
        }
    }

    fn awaits_key(&self) -> bool {
        matches!(
            self.open.last(),
            Some(Open {
                content: Content::Map { key: None, .. },
                ..
            })
        )
    }

    /// Puts a complete value where it belongs.
    fn complete(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), SyntaxError> {
        if anchor > 0 {
            self.count(size, node.line)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { entries, key }) => {
                if let Some((key, line)) = key.take() {
                    entries.push(Entry {
                        key,
                        line,
                        value: node,
                    });
                }
            }
        }
        Ok(())
    }
}

fn refuse(line: usize, message: impl Into<String>) -> SyntaxError {
    SyntaxError {
        line,
        message: message.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Vec<serde_json::Value> {
        load(text).unwrap().iter().map(Node::to_json).collect()
    }

    #[test]
    fn types_are_those_of_the_core_schema() {
        let text = "a: 3\nb: '3'\nc: 1.5\nd: true\ne: ~\nf:\ng: yes\nh: 2026-01-01T00:00:00Z\n";
        assert_eq!(
            json(text),
            [serde_json::json!({
                "a": 3, "b": "3", "c": 1.5, "d": true, "e": null, "f": null, "g": "yes",
                "h": "2026-01-01T00:00:00Z",
            })]
        );
    }

    #[test]
    fn documents_are_kept_apart_and_empty_ones_are_null() {
        assert_eq!(
            json("a: 1\n---\n---\n# only a comment\n---\nb: 2\n").len(),
            4
        );
        assert_eq!(json(""), [] as [serde_json::Value; 0]);
        assert_eq!(json("# nothing\n"), [] as [serde_json::Value; 0]);
        assert_eq!(
            json("\u{feff}a: 1\r\nb: 2\r\n"),
            [serde_json::json!({"a": 1, "b": 2})]
        );
        assert_eq!(
            json("{\n\t\"a\":\t[1,\n\t2]\n}\n"),
            [serde_json::json!({"a": [1, 2]})]
        );
    }

    #[test]
    fn lines_count_from_one() {
        let node = load("# c\na: 1\nb:\n  c: [x,\n    y]\n").unwrap().remove(0);
        let Value::Map(entries) = node.value else {
            panic!()
        };
        assert_eq!((entries[0].line, entries[1].line), (2, 3));
        let Value::Map(inner) = &entries[1].value.value else {
            panic!()
        };
        assert_eq!(inner[0].line, 4);
        let Value::List(items) = &inner[0].value.value else {
            panic!()
        };
        assert_eq!((items[0].line, items[1].line), (4, 5));
    }

    #[test]
    fn aliases_are_expanded() {
        assert_eq!(
            json("a: &x {k: [1]}\nb: *x\n"),
            [serde_json::json!({"a": {"k": [1]}, "b": {"k": [1]}})]
        );
    }

    #[test]
    fn what_cannot_be_taken_is_refused_with_its_line() {
        let bomb = (1..12).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, i| {
            let refs = vec![format!("*a{}", i - 1); 9].join(",");
            format!("{text}a{i}: &a{i} [{refs}]\n")
        });
        let deep = format!("a: {}", "[".repeat(100_000));
        for (text, line) in [
            ("a: 1\nkind: [Subscription\n", 2),
            ("a: 1\nb: \"open\n\n", 2),
            ("a: 1\n b: 2\n", 2),
            ("a: *nothing\n", 1),
            ("a: !!int x\n", 1),
            ("? [a, b]\n: c\n", 1),
            ("a: &x [*x]\n", 1),
            (bomb.as_str(), 6),
            (deep.as_str(), 1),
        ] {
            let error = load(text).unwrap_err();
            let shown = text.chars().take(40).collect::<String>();
            assert_eq!(error.line, line, "{shown:?}: {}", error.message);
        }
    }
}
