//! Reads a tree by the table of fields: what the table does not have is refused, and what it has is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use leno_core::name::{Label, ServiceId};
use leno_core::spec::Labels;

use super::fields::{Field, Kind, SHAPES, Shape, Without};
use super::lists::Shared;
use super::value::{self, Wrong};
use crate::diagnostic::{Problem, Problems};
use crate::source::Span;
use crate::suggest;
use crate::words::{self, WordsError};
use crate::yaml::{Entry, Node, Scalar, Value, short};

/// What is known of the file while it is read.
pub(crate) struct Reader<'a> {
    /// Where problems go.
    pub(crate) problems: &'a mut Problems,
    /// The namespace of names that are written without one.
    pub(crate) namespace: Label,
    /// The folder that relative files begin in.
    pub(crate) folder: &'a Path,
    /// Every service of the file, with the place of its key.
    pub(crate) services: BTreeMap<ServiceId, Span>,
    /// The versions that a service has; no entry: its instances register themselves, so nobody knows.
    pub(crate) versions: BTreeMap<ServiceId, BTreeSet<Label>>,
    /// The version and the labels of each of its instances; no entry: nobody knows.
    pub(crate) tagged: BTreeMap<ServiceId, Vec<(Option<Label>, Labels)>>,
    /// Bytes of instances that the file may still make, see [`INSTANCE_BYTES_MAX`].
    pub(crate) instance_bytes_left: usize,
    /// The lists of routes that may be used.
    pub(crate) lists: BTreeMap<String, Shared>,
    /// Those that are wrong, which is reported.
    pub(crate) broken_lists: BTreeSet<String>,
    /// Rules that lists may still make, see [`LISTED_RULES_MAX`].
    pub(crate) listed_rules_left: usize,
    /// Comparisons of routes that may still be made, see [`ROUTE_COMPARISONS_MAX`].
    pub(crate) route_comparisons_left: usize,
}

/// What all instances of a file may take, in bytes: with `replicas` and a large `env`, a small file could else make
/// gigabytes. Enough for 25,000 instances with a short command each.
pub(crate) const INSTANCE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Rules that the lists of a file make where they are used: some 100 MB of them.
pub(crate) const LISTED_RULES_MAX: usize = 200_000;

/// Comparisons made to find routes that never match; a file with more gets fewer warnings. Enough for every pair
/// of 1,000 ordinary routes, four times.
pub(crate) const ROUTE_COMPARISONS_MAX: usize = 2_000_000;

/// The fields of one map, each of them one that its shape has.
pub(crate) struct Fields<'n> {
    shape: &'static Shape,
    /// Where the map stands.
    pub(crate) span: Span,
    /// False when it has keys that are no fields or have no value: then something may be missing only because
    /// it is misspelt, and saying so would be a second report of one slip.
    pub(crate) complete: bool,
    found: BTreeMap<&'static str, &'n Entry>,
    /// What was asked for: at the end it is every field of the shape, or a field would be read and ignored.
    asked: BTreeSet<&'static str>,
}

impl<'n> Fields<'n> {
    /// The value of a field.
    pub(crate) fn get(&mut self, name: &'static str) -> Option<&'n Node> {
        self.entry(name).map(|entry| &entry.value)
    }

    /// A field with its key.
    pub(crate) fn entry(&mut self, name: &'static str) -> Option<&'n Entry> {
        self.asked.insert(name);
        self.found.get(name).copied()
    }

    /// The place of a field's key, when it is there.
    pub(crate) fn key(&self, name: &str) -> Option<Span> {
        self.found.get(name).map(|entry| entry.key_span)
    }

    /// To be called when every field was asked for.
    pub(crate) fn finish(self) {
        for field in self.shape.fields {
            debug_assert!(
                self.asked.contains(field.name),
                "{}.{} is never read",
                self.shape.name,
                field.name
            );
        }
    }
}

impl Reader<'_> {
    /// Reports an error.
    pub(crate) fn error(&mut self, problem: Problem) {
        self.problems.add(problem);
    }

    /// The fields of `node`; required ones that are missing are reported.
    pub(crate) fn fields<'n>(&mut self, node: &'n Node, shape: &'static Shape) -> Option<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            let message =
                format!("expected a map with the fields of {}, found {}", a(shape.name), node.found());
            self.error(Problem::error(node.span, message).hint(field_list(shape)));
            return None;
        };
        let (mut found, mut complete) = (BTreeMap::new(), true);
        for entry in entries {
            match shape.fields.iter().find(|field| field.name == entry.key) {
                Some(field) if matches!(entry.value.value, Value::Nothing) => self.no_value(entry, field),
                Some(field) => {
                    found.insert(field.name, entry);
                    continue;
                }
                None => self.unknown_field(entry, shape),
            }
            complete = false;
        }
        let required = shape.fields.iter().filter(|field| matches!(field.without, Without::Required));
        for field in required.filter(|field| complete && !found.contains_key(field.name)) {
            self.missing(node.span, shape, field.name);
        }
        Some(Fields { shape, span: node.span, complete, found, asked: BTreeSet::new() })
    }

    /// Reports that a field is missing.
    pub(crate) fn missing(&mut self, span: Span, shape: &'static Shape, name: &str) {
        let doc = shape.fields.iter().find(|field| field.name == name).map_or("", |field| field.doc);
        let problem = Problem::error(span, format!("missing field \"{name}\""));
        self.error(problem.hint(format!("{} needs it: {}", a(shape.name), lower_first(doc))));
    }

    fn no_value(&mut self, entry: &Entry, field: &Field) {
        self.error(
            Problem::error(entry.key_span, format!("\"{}\" has no value", field.name))
                .hint(format!("expected {}; or remove the field", field.kind.expected())),
        );
    }

    fn unknown_field(&mut self, entry: &Entry, shape: &'static Shape) {
        let problem = Problem::error(entry.key_span, format!("unknown field \"{}\"", short(&entry.key)));
        if !self.problems.want_hints() {
            return self.error(problem);
        }
        let near = suggest::did_you_mean(&entry.key, shape.fields.iter().map(|field| field.name));
        let elsewhere = || {
            let home = SHAPES.iter().find(|home| home.fields.iter().any(|field| field.name == entry.key))?;
            Some(format!("\"{}\" is a field of {}", entry.key, a(home.name)))
        };
        self.error(problem.hint(near.or_else(elsewhere).unwrap_or_else(|| field_list(shape))));
    }

    /// Reports a value of the wrong type.
    pub(crate) fn expected(&mut self, node: &Node, what: &str) {
        self.error(Problem::error(node.span, format!("expected {what}, found {}", node.found())));
    }

    /// A scalar.
    pub(crate) fn scalar<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n Scalar> {
        match &node.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => {
                self.expected(node, what);
                None
            }
        }
    }

    /// A text. A number or truth value is one only where that is what people mean by it, such as in a version:
    /// elsewhere it is more likely a slip, and an editor that knows the schema says so too.
    pub(crate) fn text<'n>(&mut self, node: &'n Node, kind: Kind) -> Option<&'n str> {
        let scalar = self.scalar(node, &kind.expected())?;
        let number = scalar.looks_like_number()
            && matches!(
                kind,
                Kind::Domain
                    | Kind::Host
                    | Kind::Method
                    | Kind::Command
                    | Kind::Folder
                    | Kind::File
                    | Kind::Range
                    | Kind::Regex
                    | Kind::Call
                    | Kind::Spiffe
            );
        let truth = scalar.looks_like_truth() && !matches!(kind, Kind::Text);
        if number || truth {
            let problem =
                Problem::error(node.span, format!("expected {}, found {}", kind.expected(), node.found()));
            self.error(problem.hint(format!("write \"{}\" if that is meant", short(&scalar.text))));
            return None;
        }
        Some(&scalar.text)
    }

    /// The items of a list that is not empty.
    pub(crate) fn list<'n>(&mut self, node: &'n Node, what: &str, items_max: usize) -> &'n [Node] {
        match &node.value {
            Value::List(list) if list.is_empty() => {
                self.error(
                    Problem::error(node.span, "the list is empty")
                        .hint(format!("expected {what}; or remove the field")),
                );
                &[]
            }
            Value::List(list) if list.len() > items_max => {
                let problem = Problem::error(node.span, format!("the list has {} items", list.len()));
                self.error(problem.hint(format!("at most {items_max} are supported")));
                &[]
            }
            Value::List(list) => list,
            Value::Map(_) => {
                let problem = Problem::error(node.span, format!("expected {what}, found a map"));
                self.error(problem.hint("begin each item of the list with `- `"));
                &[]
            }
            _ => {
                self.expected(node, what);
                &[]
            }
        }
    }

    /// The items of a list that is not empty, or a single one written without a list.
    pub(crate) fn one_or_more<'n>(&mut self, node: &'n Node, what: &str, items_max: usize) -> &'n [Node] {
        match &node.value {
            Value::Scalar(_) => std::slice::from_ref(node),
            _ => self.list(node, what, items_max),
        }
    }

    /// The entries of a map that is not empty.
    pub(crate) fn map<'n>(&mut self, node: &'n Node, what: &str) -> &'n [Entry] {
        match &node.value {
            Value::Map(entries) if entries.is_empty() => {
                self.error(
                    Problem::error(node.span, "the map is empty")
                        .hint(format!("expected {what}; or remove the field")),
                );
                &[]
            }
            Value::Map(entries) => entries,
            Value::List(_) => {
                let problem = Problem::error(node.span, format!("expected {what}, found a list"));
                self.error(problem.hint("write `key: value`, without `- ` in front"));
                &[]
            }
            _ => {
                self.expected(node, what);
                &[]
            }
        }
    }

    /// A scalar that `parse` understands.
    pub(crate) fn parsed<'n, T>(
        &mut self,
        node: &'n Node,
        kind: Kind,
        parse: impl FnOnce(&'n str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let text = self.text(node, kind)?;
        self.checked(node.span, parse(text))
    }

    /// The value, or a report of what is wrong with it.
    pub(crate) fn checked<T>(&mut self, span: Span, value: Result<T, Wrong>) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.error(Problem::error(span, wrong.message).maybe_hint(wrong.hint));
                None
            }
        }
    }

    /// A whole number, written without quotes.
    pub(crate) fn number<T>(
        &mut self,
        node: &Node,
        kind: Kind,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let scalar = self.scalar(node, &kind.expected())?;
        if !scalar.plain && !scalar.text.is_empty() && scalar.text.bytes().all(|b| b.is_ascii_digit()) {
            self.error(
                Problem::error(node.span, format!("expected {}, found {}", kind.expected(), node.found()))
                    .hint(format!("write {} without quotes", scalar.text)),
            );
            return None;
        }
        self.checked(node.span, parse(&scalar.text))
    }

    /// `true` or `false`, written without quotes.
    pub(crate) fn flag(&mut self, node: &Node) -> Option<bool> {
        let scalar = self.scalar(node, &Kind::Flag.expected())?;
        match (scalar.plain, scalar.text.as_str()) {
            (true, "true") => Some(true),
            (true, "false") => Some(false),
            _ => {
                let problem =
                    Problem::error(node.span, format!("expected true or false, found {}", node.found()));
                self.error(problem.hint("write true or false, without quotes"));
                None
            }
        }
    }

    /// One of a few words.
    pub(crate) fn choice(
        &mut self,
        node: &Node,
        choices: &'static [(&'static str, &'static str)],
    ) -> Option<&'static str> {
        let scalar = self.scalar(node, &Kind::Choice(choices).expected())?;
        if let Some((word, _)) = choices.iter().find(|(word, _)| *word == scalar.text) {
            return Some(word);
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let typed = scalar.text.replace('_', "-");
        let hint = suggest::did_you_mean(&typed, words.iter().copied()).unwrap_or_else(|| match &words[..] {
            [only] => format!("only {only} is supported so far"),
            _ => format!("one of: {}", words.join(", ")),
        });
        self.error(
            Problem::error(node.span, format!("unknown value \"{}\"", short(&scalar.text))).hint(hint),
        );
        None
    }

    /// A service of this file.
    pub(crate) fn service(&mut self, node: &Node) -> Option<ServiceId> {
        let text = self.text(node, Kind::Service)?;
        self.service_named(text, node.span)
    }

    /// A service of this file, by the text at `span`.
    pub(crate) fn service_named(&mut self, text: &str, span: Span) -> Option<ServiceId> {
        let id = self.checked(span, service_id(text, &self.namespace))?;
        if self.services.contains_key(&id) {
            return Some(id);
        }
        let problem = Problem::error(span, format!("unknown service \"{}\"", short(text)));
        if !self.problems.want_hints() {
            self.error(problem);
            return None;
        }
        let names: Vec<String> =
            self.services.keys().take(SERVICES_COMPARED_MAX).map(|id| self.shown(id)).collect();
        let near = suggest::did_you_mean(text, names.iter().map(String::as_str));
        let elsewhere = || {
            let namesake = self.services.keys().find(|known| known.name == id.name)?;
            Some(format!("did you mean \"{}\"?", self.shown(namesake)))
        };
        let hint =
            near.or_else(elsewhere).unwrap_or_else(|| "a service has to stand under `services`".into());
        self.error(problem.hint(hint));
        None
    }

    /// A version that `service` has.
    pub(crate) fn version_of(&mut self, service: &ServiceId, text: &str, span: Span) -> Option<Label> {
        let version = self.checked(span, value::label(text, "a version"))?;
        let Some(versions) = self.versions.get(service) else { return Some(version) };
        if versions.contains(&version) {
            return Some(version);
        }
        let list = || {
            let versions: Vec<&str> = versions.iter().map(Label::as_str).collect();
            format!("its versions are: {}", versions.join(", "))
        };
        let hint = match suggest::did_you_mean(text, versions.iter().map(Label::as_str)) {
            Some(hint) if versions.len() > 5 => hint,
            _ if versions.is_empty() => "give its instances a `version`".into(),
            _ => list(),
        };
        let service = self.shown(service);
        self.error(
            Problem::error(span, format!("no instance of \"{service}\" has the version \"{version}\""))
                .hint(hint),
        );
        None
    }

    /// A service as it is written in this file.
    pub(crate) fn shown(&self, id: &ServiceId) -> String {
        if id.namespace == self.namespace {
            id.name.to_string()
        } else {
            format!("{}/{}", id.namespace, id.name)
        }
    }

    /// The words of a command.
    pub(crate) fn command(&mut self, node: &Node) -> Option<Vec<String>> {
        match &node.value {
            Value::Scalar(_) => match words::split(self.text(node, Kind::Command)?) {
                Ok(words) => Some(words),
                Err(error) => {
                    self.error(command_problem(node, error));
                    None
                }
            },
            Value::List(_) => {
                let items = self.list(node, &Kind::Command.expected(), COMMAND_WORDS_MAX);
                let words: Option<Vec<String>> = items
                    .iter()
                    .map(|item| self.scalar(item, "a word").map(|word| word.text.clone()))
                    .collect();
                let words = words.filter(|words| !words.is_empty())?;
                if words.first().is_some_and(String::is_empty) {
                    self.error(command_problem(node, WordsError::Empty));
                    return None;
                }
                Some(words)
            }
            _ => {
                self.expected(node, &Kind::Command.expected());
                None
            }
        }
    }
}

/// `name` in `namespace`, or `namespace/name`.
pub(crate) fn service_id(text: &str, namespace: &Label) -> Result<ServiceId, Wrong> {
    match text.split_once('/') {
        None => Ok(ServiceId::new(namespace.clone(), value::label(text, "a service name")?)),
        Some((_, name)) if name.contains('/') => Err(Wrong {
            message: format!("\"{}\" is not a service name: it has two slashes", short(text)),
            hint: Some("a service is written `name` or `namespace/name`".into()),
        }),
        Some((namespace, name)) => {
            let namespace = value::label(namespace, "a namespace")?;
            Ok(ServiceId::new(namespace, value::label(name, "a service name")?))
        }
    }
}

fn command_problem(node: &Node, error: WordsError) -> Problem {
    match error {
        WordsError::Empty => Problem::error(node.span, "the command is empty")
            .hint("such as `run: python3 -m http.server {port}`"),
        WordsError::Quote(at, quote) => {
            Problem::error(node.part(at, 1), format!("this {quote} is never closed"))
                .hint("close the quote, or write the command as a list of words")
        }
        WordsError::Backslash(at) => Problem::error(node.part(at, 1), "a backslash with nothing after it")
            .hint("write \\\\ for a backslash"),
        WordsError::Shell(at, c) => {
            Problem::error(node.part(at, 1), format!("`{c}` needs a shell, and commands run without one"))
                .hint("put it into single quotes if it is meant as it is; else write sh -c '…'")
        }
    }
}

impl Kind {
    /// What to write, for "expected …".
    pub(crate) fn expected(&self) -> String {
        match self {
            Self::Name => "a name".into(),
            Self::Version => "a version such as v1".into(),
            Self::Service => "the name of a service".into(),
            Self::Domain => "a domain such as shop.mesh".into(),
            Self::Text => "a text".into(),
            Self::Duration => "a duration such as 5s".into(),
            Self::Limit => "a duration such as 5s, or 0 for no limit".into(),
            Self::Condition => "a condition such as 5xx, or a status".into(),
            Self::Quantile => "a percentile such as p95".into(),
            Self::Size => "a size such as 64KiB".into(),
            Self::Port => "a port".into(),
            Self::Address => "an address such as 127.0.0.1:8080, or a port".into(),
            Self::Place => "a place such as api.example.com:443 or 10.0.0.5:8080".into(),
            Self::Caller => "a service, or `NAMESPACE/*`".into(),
            Self::Zone => "a zone such as eu-west/a".into(),
            Self::Range => "a range of addresses such as 10.0.0.0/8".into(),
            Self::Moment => "a time such as 2026-12-24T18:00:00Z".into(),
            Self::Origin => "an origin such as https://shop.example".into(),
            Self::Spiffe => "a SPIFFE id such as spiffe://shop.mesh/ns/default/sa/cart".into(),
            Self::File => "a file".into(),
            Self::Path => "a path such as /users/".into(),
            Self::Regex => "a regular expression such as /v[0-9]+/.*".into(),
            Self::Template => "a path such as /users/{id}".into(),
            Self::Call => "a service of gRPC such as shop.Cart, or shop.Cart/Add".into(),
            Self::Host => "a host such as shop.example.com".into(),
            Self::Method => "a method such as GET".into(),
            Self::Weight => "a weight".into(),
            Self::Flag => "true or false".into(),
            Self::Count(max) => format!("a number from 1 to {max}"),
            Self::Percent => "a share in percent, such as 5 or 0.1".into(),
            Self::Between(min, max) => format!("a number from {min} to {max}"),
            Self::Number(max) => format!("a number from 0 to {max}"),
            Self::Command => "a command".into(),
            Self::Folder => "a folder".into(),
            Self::Choice(choices) => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                words.join(" or ")
            }
            Self::List(kind) => format!("a list; each item is {}", kind.expected()),
            Self::OneOrMore(kind) => format!("{}, or a list", kind.expected()),
            Self::Map(key, kind) => format!("a map from {key} to {}", kind.expected()),
            Self::Object(shape) => format!("a map with the fields of {}", a(shape.name)),
            Self::Either(kinds) => {
                let forms: Vec<String> = kinds.iter().map(Self::expected).collect();
                forms.join(", or ")
            }
        }
    }
}

/// "a service", "an instance".
pub(crate) fn a(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

fn field_list(shape: &Shape) -> String {
    let names: Vec<&str> = shape.fields.iter().map(|field| field.name).collect();
    format!("{} has: {}", a(shape.name), names.join(", "))
}

/// A sentence as the second half of another one.
fn lower_first(sentence: &str) -> String {
    let mut letters = sentence.trim_end_matches('.').chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// Services that "did you mean" looks at.
const SERVICES_COMPARED_MAX: usize = 1000;

/// Most words of a command.
const COMMAND_WORDS_MAX: usize = 1000;
