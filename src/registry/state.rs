//! Which document of each resource is in force: the last good one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::resolve::Declared;
use crate::clock::UnixMillis;
use crate::manifest::{
    Document, Parsed, Problem, ResourceKey, duplicate, immutable_change, problem,
};

/// What reading a path came to, in the order in which resources are looked for.
#[derive(Debug)]
pub(super) enum Read {
    /// A file that could be read.
    File(Arc<str>, Parsed),
    /// A file that was asked for by name and is not there.
    MissingFile(Arc<str>),
    /// A file that could not be read.
    UnreadableFile(Arc<str>, String),
    /// A directory that could not be listed: nothing is known about its files.
    UnreadableDirectory(PathBuf, String),
}

/// The resources in force.
#[derive(Debug, Default)]
pub(super) struct State {
    in_force: BTreeMap<ResourceKey, InForce>,
    /// How often something changed, to know what is older.
    changes: u64,
}

#[derive(Clone, Debug)]
struct InForce {
    document: Arc<Document>,
    /// The file that declares it now; `document` may be from another one, or an older state of it.
    file: Arc<str>,
    /// 1, and one more for every change seen.
    generation: i64,
    created: UnixMillis,
    /// When it changed last.
    changed: u64,
}

/// The document that speaks for a resource in one reading of the files.
enum Choice {
    /// This one.
    Fresh(Arc<Document>),
    /// The one in force: what this file says now cannot be used.
    Kept(Arc<str>),
}

impl State {
    /// Takes over what was read; whatever is not declared any more is forgotten. Returns the
    /// problems found.
    pub(super) fn apply(&mut self, reads: Vec<Read>, now: UnixMillis) -> Vec<Problem> {
        let mut problems = Vec::new();
        let choices = self.choose(reads, &mut problems);
        let mut before = std::mem::take(&mut self.in_force);
        for (key, choice) in choices {
            let old = before.remove(&key);
            let next = match (choice, old) {
                (Choice::Kept(file), Some(old)) => InForce { file, ..old },
                (Choice::Kept(_), None) => continue,
                (Choice::Fresh(document), Some(old)) => self.change(document, old, &mut problems),
                (Choice::Fresh(document), None) => {
                    self.changes += 1;
                    InForce {
                        file: Arc::clone(&document.file),
                        generation: 1,
                        created: document.created.unwrap_or(now),
                        changed: self.changes,
                        document,
                    }
                }
            };
            self.in_force.insert(key, next);
        }
        problems
    }

    /// What is in force, what changed last at the end: where two cannot both be had, the older
    /// one is to win.
    pub(super) fn declared(&self) -> Vec<Declared> {
        let mut all: Vec<_> = self.in_force.values().collect();
        all.sort_by_key(|resource| resource.changed);
        all.into_iter()
            .map(|resource| Declared {
                document: Arc::clone(&resource.document),
                generation: resource.document.generation.unwrap_or(resource.generation),
                created: resource.created,
            })
            .collect()
    }

    fn choose(&self, reads: Vec<Read>, problems: &mut Vec<Problem>) -> Vec<(ResourceKey, Choice)> {
        let mut chosen = Choices::default();
        for read in reads {
            match read {
                Read::File(file, mut parsed) => {
                    if parsed.broken {
                        let kept = self.keep(&mut chosen, &file, |other| **other == *file);
                        for problem in &mut parsed.problems {
                            problem.message.push_str(&kept);
                        }
                    }
                    problems.append(&mut parsed.problems);
                    for key in parsed.invalid {
                        chosen.keep(key, &file);
                    }
                    for document in parsed.documents {
                        chosen.offer(document, problems);
                    }
                }
                Read::MissingFile(file) => {
                    let message = "the file does not exist (it is read as soon as it does)";
                    problems.push(unreadable(file, message.to_owned()));
                }
                Read::UnreadableFile(file, message) => {
                    let kept = self.keep(&mut chosen, &file, |other| **other == *file);
                    problems.push(unreadable(file, message + &kept));
                }
                Read::UnreadableDirectory(path, message) => {
                    let name: Arc<str> = path.display().to_string().into();
                    let inside = |file: &Arc<str>| Path::new(&**file).parent() == Some(&*path);
                    let kept = self.keep(&mut chosen, &name, inside);
                    problems.push(unreadable(name, message + &kept));
                }
            }
        }
        chosen.order
    }

    /// Keeps what the files meant by `of` declared last; says so for the message.
    fn keep(
        &self,
        chosen: &mut Choices,
        reader: &Arc<str>,
        of: impl Fn(&Arc<str>) -> bool,
    ) -> String {
        let mut count = 0;
        for (key, resource) in &self.in_force {
            if of(&resource.file) {
                count += 1;
                let file = if of(reader) { reader } else { &resource.file };
                chosen.keep(key.clone(), file);
            }
        }
        match count {
            0 => String::new(),
            1 => "; the resource it declared stays in force".to_owned(),
            _ => format!("; the {count} resources it declared stay in force"),
        }
    }

    fn change(
        &mut self,
        document: Arc<Document>,
        old: InForce,
        problems: &mut Vec<Problem>,
    ) -> InForce {
        let file = Arc::clone(&document.file);
        if let Some((field, message)) = immutable_change(&old.document, &document) {
            problems.push(problem(&document, document.line, field, message));
            return InForce { file, ..old };
        }
        let same = old.document.says_the_same(&document);
        if !same {
            self.changes += 1;
        }
        InForce {
            file,
            generation: old.generation + i64::from(!same),
            created: document.created.unwrap_or(old.created),
            changed: if same { old.changed } else { self.changes },
            document,
        }
    }
}

fn unreadable(file: Arc<str>, message: String) -> Problem {
    Problem {
        file,
        line: 0,
        field: String::new(),
        message,
    }
}

/// The first document of each resource, in order.
#[derive(Default)]
struct Choices {
    order: Vec<(ResourceKey, Choice)>,
    /// Where each was declared: file and line, 0 when it is kept.
    places: BTreeMap<ResourceKey, (Arc<str>, usize)>,
}

impl Choices {
    fn offer(&mut self, document: Document, problems: &mut Vec<Problem>) {
        let key = document.key.clone();
        if let Some((file, line)) = self.places.get(&key) {
            problems.push(duplicate(&document, file, *line));
            return;
        }
        let place = (Arc::clone(&document.file), document.line);
        self.places.insert(key.clone(), place);
        self.order.push((key, Choice::Fresh(Arc::new(document))));
    }

    fn keep(&mut self, key: ResourceKey, file: &Arc<str>) {
        if !self.places.contains_key(&key) {
            self.places.insert(key.clone(), (Arc::clone(file), 0));
            self.order.push((key, Choice::Kept(Arc::clone(file))));
        }
    }
}
