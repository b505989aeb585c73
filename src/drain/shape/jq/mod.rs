//! Expressions of jq, compiled once and run under bounds (see [`meter`]).
//!
//! The language is jq's as jaq speaks it. Left out is what an expression over an event has no
//! business with, or what would give another result for the same event another time: `env`,
//! `$ENV`, `input`, `inputs`, `import`, `now`, `localtime`, `halt`, `debug`, `stderr`.

mod meter;

#[cfg(test)]
mod tests;

use std::{fmt, thread};

use jaq_core::data::JustLut;
use jaq_core::load::{self, Arena, File, Loader, parse};
use jaq_core::native::{self, Fun};
use jaq_core::{Compiler, Ctx, Filter, Native, Vars, unwrap_valr};
use jaq_json::{Val, read};

use self::meter::{Meter, Stopped};

type Data = JustLut<Val>;

/// The longest expression.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// The deepest nesting of an expression; what runs it goes as deep between two looks at the stack.
const TERMS_DEEP_MAX: usize = 256;
/// Enough for whatever can be written in so many bytes.
const COMPILE_STACK_BYTES: usize = 128 << 20;
/// The deepest nesting of JSON that is read for an expression.
pub(super) const DEPTH_MAX: usize = 128;
/// The longest number in it: the time to read one grows with the square of its digits.
const DIGITS_MAX: usize = 4096;

/// Left out of the library.
const OMITTED: [&str; 11] = [
    "env",
    "now",
    // They ask the machine for its time zone.
    "localtime",
    "strflocaltime",
    "halt",
    "halt_error",
    "debug",
    "debug_empty",
    "stderr",
    "stderr_empty",
    // Replaced by one that knows how deep JSON may be.
    "fromjson",
];
/// What compiles a regular expression.
const NATIVES_DEAR: [&str; 3] = ["matches", "split_matches", "split_"];
/// What the expression is called inside the library.
const MAIN: &str = "forebay_main";

/// A compiled expression.
pub(super) struct Program {
    filter: Filter<Data>,
    text: Box<str>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Program").field(&self.text).finish()
    }
}

impl Program {
    /// Compiles an expression; the error says what is wrong with it and where.
    pub(super) fn compile(text: &str) -> Result<Self, String> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(format!("is longer than {TEXT_BYTES_MAX} bytes"));
        }
        // The parser goes deeper with each operator and bracket, and knows no end to that.
        thread::scope(|scope| {
            let thread = thread::Builder::new().stack_size(COMPILE_STACK_BYTES);
            let compiled = thread.spawn_scoped(scope, || Self::compile_deep(text));
            let compiled = compiled.map_err(|error| format!("cannot be compiled: {error}"))?;
            compiled.join().unwrap_or_else(|_| Err("breaks the compiler".to_owned()))
        })
    }

    /// The same where there is stack for it.
    fn compile_deep(text: &str) -> Result<Self, String> {
        // As written first: the messages then speak of the text that the operator knows.
        link(text, library(), text)?;
        let term = parse(text, |parser| parser.term())
            .ok_or("holds directives, of which there are none here")?;
        let natives: Vec<&'static str> = funs().map(|(name, ..)| name).collect();
        let meter = Meter::new(&natives);
        let main = parse::Def { name: MAIN, args: Vec::new(), body: term };
        let defs: Vec<_> = library().chain([main]).map(|def| meter.def(def)).collect();
        if meter.deepest() > TERMS_DEEP_MAX {
            return Err(format!(
                "is nested deeper than {TERMS_DEEP_MAX}, where each operator in a row counts"
            ));
        }
        Ok(Self { filter: link(MAIN, defs.into_iter(), text)?, text: text.into() })
    }

    /// What it yields for an input, up to `count` values.
    pub(super) fn run(&self, input: Val, count: usize) -> Result<Vec<Val>, RunError> {
        let run = || {
            let context = Ctx::<Data>::new(&self.filter.lut, Vars::new([]));
            let outputs = self.filter.id.run((context, input)).map(unwrap_valr);
            // The error may show parts of the event, so its text goes nowhere.
            outputs.take(count).collect::<Result<Vec<Val>, _>>().map_err(|_| RunError::Failed)
        };
        meter::bounded(run).map_err(RunError::from).flatten()
    }
}

/// Why an expression has no result for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RunError {
    #[error("fails for this event")]
    Failed,
    #[error("takes too many steps, or makes too much, for this event")]
    Fuel,
    #[error("calls itself too deeply for this event")]
    Stack,
    #[error("broke the interpreter")]
    Broken,
}

impl From<Stopped> for RunError {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Fuel => Self::Fuel,
            Stopped::Stack => Self::Stack,
            Stopped::Broken => Self::Broken,
        }
    }
}

/// Reads one value of JSON.
pub(super) fn value_of(json: &[u8]) -> Result<Val, &'static str> {
    let (mut depth, mut digits) = (0_usize, 0_usize);
    for byte in outside_strings(json) {
        digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err("is nested too deeply to be read");
        }
        if digits > DIGITS_MAX {
            return Err("holds a number that is too long to be read");
        }
    }
    read::parse_single(json).map_err(|_| "is not JSON")
}

/// The bytes of JSON that do not stand in its texts.
fn outside_strings(json: &[u8]) -> impl Iterator<Item = u8> {
    let (mut in_string, mut escaped) = (false, false);
    json.iter().copied().filter(move |byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ => return !in_string,
        }
        false
    })
}

/// The definitions of the language, without what is omitted.
#[expect(clippy::map_identity, reason = "the item's lifetime is shortened")]
fn library<'s>() -> impl Iterator<Item = parse::Def<&'s str>> {
    let all = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    all.filter(|def| !OMITTED.contains(&def.name)).map(|def| -> parse::Def<&'s str> { def })
}

/// The native filters of the language, and those of the meter.
fn funs() -> impl Iterator<Item = Fun<Data>> {
    let all =
        jaq_core::funs::<Data>().chain(jaq_std::funs::<Data>()).chain(jaq_json::funs::<Data>());
    let kept = all.filter(|(name, ..)| !OMITTED.contains(name));
    let fromjson = Native::<Data>::new(|cv| {
        use jaq_std::ValT as _;
        let text = cv.1.as_utf8_bytes().ok_or("is no text");
        let value = text.and_then(value_of);
        native::bome(value.map_err(jaq_json::Error::str))
    });
    kept.chain([("fromjson", native::v(0), fromjson)]).chain(meter::funs())
}

fn link<'s>(
    code: &'s str,
    defs: impl Iterator<Item = parse::Def<&'s str>>,
    shown: &str,
) -> Result<Filter<Data>, String> {
    let arena = Arena::default();
    let modules = Loader::new(defs).load(&arena, File { code, path: () }).map_err(|errors| {
        errors.iter().map(|(_, error)| told(error, shown)).next().unwrap_or_default()
    })?;
    Compiler::default().with_funs(funs()).compile(modules).map_err(|errors| {
        let undefined = errors.into_iter().flat_map(|(_, errors)| errors).next();
        undefined.map_or_else(String::new, |(name, what)| {
            let what = what.as_str();
            format!("knows no {what} `{name}` with these arguments")
        })
    })
}

/// The first thing that is wrong with the text.
fn told(error: &load::Error<&str>, text: &str) -> String {
    let place = |found: &str| {
        let bytes = found.as_ptr().addr().checked_sub(text.as_ptr().addr());
        let before = bytes.and_then(|bytes| text.get(..bytes)).unwrap_or(text);
        let found = found.lines().next().unwrap_or_default();
        let found: String = found.chars().take(16).collect();
        let found = if found.is_empty() { "the end".to_owned() } else { format!("`{found}`") };
        format!("{found} (character {})", before.chars().count() + 1)
    };
    match error {
        load::Error::Io(_) => "imports, which nothing may here".to_owned(),
        load::Error::Lex(errors) => errors.first().map_or_else(String::new, |(expected, found)| {
            format!("needs a {} at {}", expected.as_str(), place(found))
        }),
        load::Error::Parse(errors) => {
            errors.first().map_or_else(String::new, |(expected, found)| {
                format!("needs {} at {}", expected.as_str(), place(found))
            })
        }
    }
}
