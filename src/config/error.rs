//! What is wrong with a configuration, shown where it stands.
//!
//! Problems are gathered, not thrown: one run names them all. Each names the key, shows the file
//! and the line with the place underlined, and says the cure. A value that came from the
//! environment is shown as the variable that held it. Secrets are masked before anything is
//! shown, see [`super::document`].

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use annotate_snippets::{
    AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str,
};

use super::document::Shown;

/// The most problems that one report shows; the rest is counted.
const SHOWN_MAX: usize = 20;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Names the key and what is wrong with it.
    pub(super) title: String,
    /// The place, in the joint text of file and environment.
    pub(super) span: Option<Range<usize>>,
    /// Stands under the place.
    pub(super) label: String,
    /// How to cure it.
    pub(super) cure: String,
    /// Another place that has to do with it.
    pub(super) other: Option<Box<(Range<usize>, String)>>,
}

impl Problem {
    pub(super) fn new(title: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            span: None,
            label: String::new(),
            cure: cure.into(),
            other: None,
        }
    }

    pub(super) fn at(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.span = Some(span);
        self.label = label.into();
        self
    }

    pub(super) fn with_other(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.other = Some(Box::new((span, label.into())));
        self
    }
}

/// Where problems are gathered while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub(super) fn push(&self, problem: Problem) {
        self.0.borrow_mut().push(problem);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    pub(super) fn into_vec(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}

/// A configuration that cannot be used, and everything that is wrong with it.
#[derive(Clone)]
pub struct ConfigError(Box<Inner>);

/// One problem in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldProblem<'e> {
    /// Names the key and what is wrong with it.
    pub title: &'e str,
    /// How to cure it.
    pub cure: &'e str,
    /// The file, or the variable that holds the value.
    pub origin: &'e str,
    /// The line in the file, from 1.
    pub line: Option<usize>,
    /// The character in that line, from 1.
    pub column: Option<usize>,
}

#[derive(Clone)]
struct Inner {
    shown: Shown,
    problems: Vec<Problem>,
}

impl ConfigError {
    /// The exit code of a process that stops because of this (`EX_CONFIG`).
    pub const EXIT_CODE: u8 = 78;

    pub(super) fn new(shown: Shown, mut problems: Vec<Problem>) -> Self {
        // Top to bottom, as the file is read; what has no place comes first.
        problems.sort_by_key(|problem| problem.span.as_ref().map(|span| span.start));
        Self(Box::new(Inner { shown, problems }))
    }

    /// How many problems there are; never none.
    pub fn count(&self) -> usize {
        self.0.problems.len()
    }

    /// The problems one by one, for logs and for programs.
    pub fn problems(&self) -> impl Iterator<Item = ToldProblem<'_>> {
        let Inner { shown, problems } = &*self.0;
        problems.iter().map(|problem| {
            let place = problem.span.as_ref().and_then(|span| shown.line_and_column(span.start));
            ToldProblem {
                title: &problem.title,
                cure: &problem.cure,
                origin: problem
                    .span
                    .as_ref()
                    .map_or(shown.path(), |span| shown.variable_of(span.start)),
                line: place.map(|(line, _)| line),
                column: place.map(|(_, column)| column),
            }
        })
    }

    /// The report for people; colours only if asked for.
    pub fn render(&self, coloured: bool) -> String {
        let renderer = if coloured { Renderer::styled() } else { Renderer::plain() };
        let Inner { shown, problems } = &*self.0;
        let mut report: Vec<String> = problems
            .iter()
            .take(SHOWN_MAX)
            .map(|problem| renderer.render(&[group(shown, problem)]))
            .collect();
        if problems.len() > SHOWN_MAX {
            report.push(format!("and {} more problems", problems.len() - SHOWN_MAX));
        }
        report.join("\n\n")
    }
}

/// One problem as annotate-snippets wants it.
fn group<'a>(shown: &'a Shown, problem: &'a Problem) -> Group<'a> {
    let mut group = Group::with_title(Level::ERROR.primary_title(problem.title.as_str()));
    match &problem.span {
        Some(span) => {
            let (snippet, base) = snippet(shown, span.start);
            let mut snippet = snippet.annotation(
                AnnotationKind::Primary
                    .span(shown.within(base.clone(), span))
                    .label(normalize_untrusted_str(&problem.label)),
            );
            if let Some((other, label)) = problem.other.as_deref()
                && base.contains(&other.start)
            {
                snippet = snippet.annotation(
                    AnnotationKind::Context
                        .span(shown.within(base, other))
                        .label(normalize_untrusted_str(label)),
                );
            }
            group = group.element(snippet);
        }
        None => group = group.element(Origin::path(shown.path())),
    }
    group.element(Level::HELP.message(normalize_untrusted_str(&problem.cure)))
}

/// The source that holds this place, and where that source lies in the joint text.
fn snippet(
    shown: &Shown,
    place: usize,
) -> (Snippet<'_, annotate_snippets::Annotation<'_>>, Range<usize>) {
    let base = shown.source_of(place);
    let snippet = Snippet::source(shown.text(base.clone())).path(shown.name_of(place));
    (snippet, base)
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// As told to people: the derived form would repeat the whole file.
impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ConfigError {}
