//! Manifests looked at together, as `levada check` does.

use std::collections::BTreeMap;

use super::Problem;
use super::delivery::{DeliveryOptions, effective};
use super::destination::{Destination, RefKind, Target};
use super::document::{Document, ResourceKey, ResourceType, Spec, immutable_change};
use super::graph::{Loops, show};
use super::read::parse;
use super::secrets::{NoSecrets, ProcessSecrets};
use crate::channel::{DeliverySpec, ResourceName};

/// A file to check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name, for messages.
    pub name: String,
    /// What is in it.
    pub content: Vec<u8>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The valid documents, each resource once, in order.
    pub documents: Vec<Document>,
    /// What has to be corrected.
    pub problems: Vec<Problem>,
    /// What may be meant so: references to what is not in these files, secrets that are not here.
    pub warnings: Vec<Problem>,
}

impl Report {
    /// Whether nothing has to be corrected.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.problems.is_empty()
    }

    /// Each subscription with how it delivers, its channel's options included.
    #[must_use]
    pub fn deliveries(&self) -> Vec<(ResourceName, DeliverySpec)> {
        let channel = |name: &ResourceName| {
            self.documents
                .iter()
                .find_map(|document| match &document.spec {
                    Spec::Channel(spec) if document.key.name == *name => Some(&spec.delivery),
                    _ => None,
                })
        };
        self.documents
            .iter()
            .filter_map(|document| match &document.spec {
                Spec::Subscription(spec) => Some((
                    document.key.name.clone(),
                    effective(
                        &spec.delivery,
                        channel(&spec.channel.name),
                        &DeliveryOptions::default(),
                    ),
                )),
                Spec::Channel(_) | Spec::Sink(_) => None,
            })
            .collect()
    }
}

/// Checks `files` together, and against `previous`: what is in force, whose immutable fields must
/// not change. Secrets need not be there; one that is missing is a warning.
#[must_use]
pub fn check(files: &[Source], previous: &[Source]) -> Report {
    let mut report = Report::default();
    for file in files {
        let parsed = parse(&file.name, &file.content, &NoSecrets);
        let here = parse(&file.name, &file.content, &ProcessSecrets);
        let missing = here.problems.into_iter();
        let missing = missing.filter(|problem| !parsed.problems.contains(problem));
        report.warnings.extend(missing);
        report.problems.extend(parsed.problems);
        for document in parsed.documents {
            match report
                .documents
                .iter()
                .find(|other| other.key == document.key)
            {
                Some(first) => {
                    let problem = duplicate(&document, &first.file, first.line);
                    report.problems.push(problem);
                }
                None => report.documents.push(document),
            }
        }
    }
    let previous: BTreeMap<ResourceKey, Document> = previous
        .iter()
        .flat_map(|file| parse(&file.name, &file.content, &NoSecrets).documents)
        .map(|document| (document.key.clone(), document))
        .collect();
    for document in &report.documents {
        let old = previous.get(&document.key);
        if let Some((field, message)) = old.and_then(|old| immutable_change(old, document)) {
            report
                .problems
                .push(problem(document, document.line, field, message));
        }
    }
    check_references(&mut report);
    check_circles(&mut report);
    report
}

/// The problem of a resource that is declared a second time.
pub(crate) fn duplicate(document: &Document, file: &str, line: usize) -> Problem {
    let message = format!(
        "{} is already declared in {file}:{line}, which stays in force",
        document.key
    );
    problem(document, document.line, "metadata.name", message)
}

pub(crate) fn problem(document: &Document, line: usize, field: &str, message: String) -> Problem {
    Problem {
        file: document.file.clone(),
        line,
        field: field.to_owned(),
        message,
    }
}

/// The destinations a document names, with their fields.
fn destinations(spec: &Spec) -> Vec<(&'static str, &Destination)> {
    let dead_letter = "spec.delivery.deadLetterSink";
    match spec {
        Spec::Channel(spec) => {
            let dead = spec.delivery.dead_letter.iter();
            dead.map(|to| (dead_letter, to)).collect()
        }
        Spec::Subscription(spec) => {
            let dead = spec.delivery.dead_letter.iter().map(|to| (dead_letter, to));
            let reply = spec.reply.iter().map(|to| ("spec.reply", to));
            let subscriber = [("spec.subscriber", &spec.subscriber)];
            subscriber.into_iter().chain(reply).chain(dead).collect()
        }
        Spec::Sink(_) => Vec::new(),
    }
}

fn check_references(report: &mut Report) {
    let there = |resource, name: &ResourceName| {
        report
            .documents
            .iter()
            .any(|document| document.key.resource == resource && document.key.name == *name)
    };
    let mut warnings = Vec::new();
    for document in &report.documents {
        let mut warn = |line, field: &str, what: &str, name: &ResourceName| {
            let message = format!("there is no {what} {name} in these files");
            warnings.push(problem(document, line, field, message));
        };
        if let Spec::Subscription(spec) = &document.spec
            && !there(ResourceType::Channel, &spec.channel.name)
        {
            warn(
                spec.channel.line,
                "spec.channel",
                "channel",
                &spec.channel.name,
            );
        }
        for (field, destination) in destinations(&document.spec) {
            let Target::Ref { reference, .. } = &destination.target else {
                continue;
            };
            let (resource, what) = match reference.kind {
                RefKind::Service => continue,
                RefKind::Channel => (ResourceType::Channel, "channel"),
                RefKind::Sink => (ResourceType::Sink, "sink"),
            };
            if !there(resource, &reference.name) {
                warn(
                    destination.line,
                    &format!("{field}.ref"),
                    what,
                    &reference.name,
                );
            }
        }
    }
    report.warnings.extend(warnings);
}

/// Events that would go round for ever are an error: to the channel they came from, at once or
/// by way of others, as subscriber or as dead letters.
fn check_circles(report: &mut Report) {
    let mut loops = Loops::default();
    let mut problems = Vec::new();
    for document in &report.documents {
        let Spec::Subscription(spec) = &document.spec else {
            continue;
        };
        let inherited = report.documents.iter().find_map(|other| match &other.spec {
            Spec::Channel(channel) if other.key.name == spec.channel.name => {
                channel.delivery.dead_letter.as_ref()
            }
            _ => None,
        });
        let dead_letter = spec.delivery.dead_letter.as_ref();
        let ways = [
            ("spec.subscriber", Some(&spec.subscriber)),
            ("spec.delivery.deadLetterSink", dead_letter.or(inherited)),
        ];
        for (field, destination) in ways {
            let Some(channel) = destination.and_then(Destination::channel) else {
                continue;
            };
            if let Some(circle) = loops.add(&spec.channel.name, channel) {
                let own = field == "spec.subscriber" || dead_letter.is_some();
                let line = destination
                    .filter(|_| own)
                    .map_or(document.line, |to| to.line);
                problems.push(problem(document, line, field, circle_message(&circle)));
            }
        }
    }
    report.problems.extend(problems);
}

/// What to say of a circle of channels.
pub(crate) fn circle_message(circle: &[ResourceName]) -> String {
    format!("events would go round for ever: {}", show(circle))
}

impl Destination {
    /// The channel it refers to, if it is one.
    #[must_use]
    pub fn channel(&self) -> Option<&ResourceName> {
        match &self.target {
            Target::Ref { reference, .. } if reference.kind == RefKind::Channel => {
                Some(&reference.name)
            }
            Target::Ref { .. } | Target::Url(_) => None,
        }
    }
}
