//! What bounds an expression: fuel for its steps and for what they make, and the stack it may use.
//!
//! The interpreter knows no bounds, so the expression is rewritten before it is compiled, together
//! with the definitions of the language's own library: wherever values can multiply, repeat or
//! grow, a native filter stands that spends fuel ([`TICK`], [`WEIGH`]). Spent are
//!
//! - one for each call of a definition, each comma, each output of a generator (`.[]`, `..`,
//!   `reduce`, `foreach`, native filters), more if that output is a long text or list;
//! - one for each value within what is built or computed (`[..]`, `{..}`, `+`, `|=`), so that
//!   neither the size of values nor their depth can grow beyond the fuel;
//! - one for each 64 words of work in a product of long integers, which jaq keeps exact;
//! - a thousand for each regular expression, which is compiled each time.
//!
//! When nothing is left, the stack of the interpreter is unwound. That is no error of the language,
//! so that `try` cannot catch it. The same events spend the same on every machine: no clock is
//! asked. What a native filter does between two steps is not counted; it is bounded by the sizes
//! of its inputs, by their product at the worst (`contains`).

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use jaq_core::box_iter::box_once;
use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Def, Pattern, Term};
use jaq_core::native::Fun;
use jaq_core::ops::Math;
use jaq_core::path::{Part, Path};
use jaq_core::{Native, native};
use jaq_json::{Num, Val};

use super::{Data, NATIVES_DEAR};

/// Steps of one expression over one event.
pub(super) const FUEL: u64 = 1_000_000;
/// Bytes of stack that an expression may use, of the 2 MiB that threads have by default.
const STACK_BYTES_MAX: usize = 512 * 1024;
/// What a regular expression costs beside its steps.
const DEAR: u64 = 1_000;
/// The longest text that a multiplication makes.
const TEXT_BYTES_MAX: f64 = 8.0 * 1024.0 * 1024.0;
/// The longest integer that a multiplication makes; squared again and again it would double.
const INTEGER_BITS_MAX: u64 = 16 * 1024;

const TICK: &str = "forebay_tick";
const WEIGH: &str = "forebay_weigh";
const SPEND_DEAR: &str = "forebay_dear";
const TIMES: &str = "forebay_times";
const OPERAND: &str = "$forebay_operand";

/// Why an expression was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// It took too many steps or made too much.
    Fuel,
    /// It called itself too deeply.
    Stack,
    /// The interpreter failed.
    Broken,
}

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(0) };
    static STACK_BASE: Cell<usize> = const { Cell::new(0) };
}

/// Runs with full fuel.
pub(super) fn bounded<T>(run: impl FnOnce() -> T) -> Result<T, Stopped> {
    LEFT.set(FUEL);
    STACK_BASE.set(stack_address());
    // What was being computed is dropped, and nothing outlives it that could have been torn.
    catch_unwind(AssertUnwindSafe(run))
        .map_err(|cause| cause.downcast_ref().copied().unwrap_or(Stopped::Broken))
}

/// Roughly where the stack of this thread stands.
#[inline(never)]
fn stack_address() -> usize {
    let here = 0_u8;
    std::ptr::from_ref(std::hint::black_box(&here)).addr()
}

fn spend(cost: u64) {
    let left = LEFT.get();
    if left < cost {
        LEFT.set(0);
        resume_unwind(Box::new(Stopped::Fuel));
    }
    LEFT.set(left - cost);
    if STACK_BASE.get().abs_diff(stack_address()) > STACK_BYTES_MAX {
        resume_unwind(Box::new(Stopped::Stack));
    }
}

/// One, and something for what is long.
fn spend_for(value: &Val) {
    let length = match value {
        Val::TStr(text) | Val::BStr(text) => text.len() as u64,
        Val::Arr(list) => list.len() as u64,
        Val::Obj(object) => object.len() as u64,
        Val::Num(Num::BigInt(number)) => number.bits() / 8,
        _ => 0,
    };
    spend(1 + length / 64);
}

/// One for each value in it; a value that stands there twice counts twice, as it would when
/// written out.
fn spend_for_all_of(value: &Val) {
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        spend_for(value);
        match value {
            Val::Arr(list) => open.extend(list.iter()),
            Val::Obj(object) => open.extend(object.values()),
            _ => {}
        }
    }
}

/// The native filters that the rewritten expression calls.
pub(super) fn funs() -> [Fun<Data>; 4] {
    let tick = Native::<Data>::new(|cv| {
        spend_for(&cv.1);
        box_once(Ok(cv.1))
    });
    let weigh = Native::<Data>::new(|cv| {
        spend_for_all_of(&cv.1);
        box_once(Ok(cv.1))
    });
    let dear = Native::<Data>::new(|cv| {
        spend(DEAR);
        box_once(Ok(cv.1))
    });
    let along = |native: Native<Data>| {
        native
            .with_paths(|cv| {
                spend(1);
                box_once(Ok(cv.1))
            })
            .with_update(|cv, update| {
                spend(1);
                update(cv.1)
            })
    };
    let times = Native::<Data>::new(|mut cv| {
        let right = cv.0.pop_var();
        let left = cv.0.pop_var();
        native::bome(times(left, right))
    });
    [
        (TICK, native::v(0), along(tick)),
        (WEIGH, native::v(0), along(weigh)),
        (SPEND_DEAR, native::v(0), along(dear)),
        (TIMES, native::v(2), times),
    ]
}

/// The bits of an integer; of anything else none.
fn bits(value: &Val) -> u64 {
    match value {
        Val::Num(Num::Int(_)) => u64::from(isize::BITS),
        Val::Num(Num::BigInt(number)) => number.bits(),
        _ => 0,
    }
}

/// `left * right`; of a text and a number the one operation whose result no input bounds, and of
/// two integers the one whose work is the product of their lengths.
fn times(left: Val, right: Val) -> jaq_json::ValR {
    use jaq_std::ValT as _;
    let repeated = |text: &Val, count: &Val| {
        let bytes = text.as_bytes()?.len();
        // A text that long has been paid for.
        #[expect(clippy::cast_precision_loss, reason = "a bound need not be exact")]
        Some(bytes as f64 * count.as_f64()?)
    };
    let bytes = repeated(&left, &right).or_else(|| repeated(&right, &left));
    if bytes.is_some_and(|bytes| bytes > TEXT_BYTES_MAX) {
        return Err(jaq_json::Error::str("a text was repeated too often"));
    }
    let (left_bits, right_bits) = (bits(&left), bits(&right));
    if left_bits + right_bits > INTEGER_BITS_MAX {
        return Err(jaq_json::Error::str("an integer became too long"));
    }
    spend(left_bits / 64 * (right_bits / 64) / 64);
    left * right
}

type Code<'s> = Term<&'s str>;

fn call<'s>(name: &'static str) -> Code<'s> {
    Term::Call(name, Vec::new())
}

fn pipe<'s>(left: Code<'s>, right: Code<'s>) -> Code<'s> {
    Term::BinOp(Box::new(left), BinaryOp::Pipe(None), Box::new(right))
}

/// Rewrites expressions; knows the names of the native filters.
pub(super) struct Meter<'n> {
    natives: &'n [&'static str],
    /// How deep the term is that is being rewritten, and how deep any was.
    depth: Cell<usize>,
    deepest: Cell<usize>,
}

impl<'n> Meter<'n> {
    pub(super) fn new(natives: &'n [&'static str]) -> Self {
        Self { natives, depth: Cell::new(0), deepest: Cell::new(0) }
    }

    /// How deeply terms were nested in what was rewritten so far.
    pub(super) fn deepest(&self) -> usize {
        self.deepest.get()
    }

    /// A definition that pays for each of its calls.
    pub(super) fn def<'s>(&self, def: Def<&'s str>) -> Def<&'s str> {
        Def { body: pipe(call(TICK), self.term(def.body)), ..def }
    }

    fn term<'s>(&self, term: Code<'s>) -> Code<'s> {
        let depth = self.depth.get() + 1;
        self.depth.set(depth);
        self.deepest.set(self.deepest.get().max(depth));
        let rewritten = self.rewritten(term);
        self.depth.set(depth - 1);
        rewritten
    }

    /// What stands last stays last: a call there takes no stack.
    fn rewritten<'s>(&self, term: Code<'s>) -> Code<'s> {
        match term {
            Term::Recurse => pipe(Term::Recurse, call(TICK)),
            Term::Str(format, parts) => self.text(format, parts),
            Term::Arr(Some(inner)) => pipe(Term::Arr(Some(self.boxed(inner))), call(WEIGH)),
            Term::Obj(entries) => pipe(Term::Obj(self.entries(entries)), call(WEIGH)),
            Term::Neg(inner) => Term::Neg(self.boxed(inner)),
            Term::BinOp(left, op, right) => self.operation(self.boxed(left), op, self.boxed(right)),
            Term::Label(name, inner) => Term::Label(name, self.boxed(inner)),
            Term::Fold(name, over, pattern, steps) => {
                let steps = steps.into_iter().map(|step| pipe(self.term(step), call(TICK)));
                let fold =
                    Term::Fold(name, self.boxed(over), self.pattern(pattern), steps.collect());
                pipe(fold, call(TICK))
            }
            Term::TryCatch(inner, catch) => {
                Term::TryCatch(self.boxed(inner), catch.map(|catch| self.boxed(catch)))
            }
            Term::IfThenElse(cases, otherwise) => Term::IfThenElse(
                cases.into_iter().map(|(case, then)| (self.term(case), self.term(then))).collect(),
                otherwise.map(|otherwise| self.boxed(otherwise)),
            ),
            Term::Def(defs, inner) => {
                let defs = defs.into_iter().map(|def| self.def(def)).collect();
                Term::Def(defs, self.boxed(inner))
            }
            Term::Call(name, arguments) => self.call(name, arguments),
            Term::Path(inner, path) => self.path(*inner, path),
            same @ (Term::Id | Term::Num(_) | Term::Arr(None) | Term::Break(_) | Term::Var(_)) => {
                same
            }
        }
    }

    #[expect(clippy::boxed_local, reason = "terms hold their parts in boxes")]
    fn boxed<'s>(&self, term: Box<Code<'s>>) -> Box<Code<'s>> {
        Box::new(self.term(*term))
    }

    fn text<'s>(
        &self,
        format: Option<&'s str>,
        parts: Vec<StrPart<&'s str, Code<'s>>>,
    ) -> Code<'s> {
        let plain = !parts.iter().any(|part| matches!(part, StrPart::Term(_)));
        let parts = parts.into_iter().map(|part| match part {
            StrPart::Term(term) => StrPart::Term(self.term(term)),
            other => other,
        });
        let text = Term::Str(format, parts.collect());
        if plain { text } else { pipe(text, call(TICK)) }
    }

    fn entries<'s>(
        &self,
        entries: Vec<(Code<'s>, Option<Code<'s>>)>,
    ) -> Vec<(Code<'s>, Option<Code<'s>>)> {
        let entry = |(key, value)| match value {
            Some(value) => (self.term(key), Some(self.term(value))),
            // The key alone says what the value is, and must stay what it is.
            None => (key, None),
        };
        entries.into_iter().map(entry).collect()
    }

    fn operation<'s>(
        &self,
        left: Box<Code<'s>>,
        op: BinaryOp<&'s str>,
        right: Box<Code<'s>>,
    ) -> Code<'s> {
        match op {
            BinaryOp::Pipe(pattern) => {
                let pattern = pattern.map(|pattern| self.pattern(pattern));
                Term::BinOp(left, BinaryOp::Pipe(pattern), right)
            }
            BinaryOp::Comma => pipe(call(TICK), Term::BinOp(left, BinaryOp::Comma, right)),
            BinaryOp::Math(Math::Mul) => pipe(Term::Call(TIMES, vec![*left, *right]), call(WEIGH)),
            // `l *= r` is `r as $x | l |= . * $x`.
            BinaryOp::UpdateMath(Math::Mul) => {
                let product = Term::Call(TIMES, vec![Term::Id, Term::Var(OPERAND)]);
                let update = Term::BinOp(left, BinaryOp::Update, Box::new(product));
                let bind = BinaryOp::Pipe(Some(Pattern::Var(OPERAND)));
                pipe(Term::BinOp(right, bind, Box::new(update)), call(WEIGH))
            }
            op @ (BinaryOp::Alt | BinaryOp::Or | BinaryOp::And | BinaryOp::Cmp(_)) => {
                Term::BinOp(left, op, right)
            }
            op => pipe(Term::BinOp(left, op, right), call(WEIGH)),
        }
    }

    fn pattern<'s>(&self, pattern: Pattern<&'s str>) -> Pattern<&'s str> {
        match pattern {
            Pattern::Var(name) => Pattern::Var(name),
            Pattern::Arr(parts) => {
                Pattern::Arr(parts.into_iter().map(|part| self.pattern(part)).collect())
            }
            Pattern::Obj(entries) => Pattern::Obj(
                entries
                    .into_iter()
                    .map(|(key, part)| (self.term(key), self.pattern(part)))
                    .collect(),
            ),
        }
    }

    fn call<'s>(&self, name: &'s str, arguments: Vec<Code<'s>>) -> Code<'s> {
        let arguments = arguments.into_iter().map(|argument| self.term(argument)).collect();
        let called = Term::Call(name, arguments);
        if NATIVES_DEAR.contains(&name) {
            return pipe(pipe(call(SPEND_DEAR), called), call(TICK));
        }
        // A definition pays at its own start.
        if self.natives.contains(&name) { pipe(called, call(TICK)) } else { called }
    }

    fn path<'s>(&self, inner: Code<'s>, path: Path<Code<'s>>) -> Code<'s> {
        let over_all = path.0.iter().any(|(part, _)| matches!(part, Part::Range(None, None)));
        let part = |part| match part {
            Part::Index(index) => Part::Index(self.term(index)),
            Part::Range(from, to) => {
                Part::Range(from.map(|from| self.term(from)), to.map(|to| self.term(to)))
            }
        };
        let parts = path.0.into_iter().map(|(place, optional)| (part(place), optional)).collect();
        let path = Term::Path(Box::new(self.term(inner)), Path(parts));
        if over_all { pipe(path, call(TICK)) } else { path }
    }
}
