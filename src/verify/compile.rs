//! From a [`SchemeSpec`] to the compiled scheme, with every mistake named by its key.

use http::HeaderName;

use super::compose::{Base, Composed};
use super::fields::Fields;
use super::head::{LABELS_MAX, Needed, OTHERS_MAX, Shape};
use super::json::Paths;
use super::jwt::Jwt;
use super::params::Params;
use super::sns::Sns;
use super::spec::{Algorithm, Format, SchemeSpec, Settings, SpecError, TimeSpec};
use super::template::{Part, Template, TimeFrom, TimeRule};
use super::time::Tolerance;
use super::token::Token;

/// A compiled scheme.
#[derive(Clone, Debug)]
pub(super) enum Scheme {
    /// A signature over a template of parts.
    Template(Box<Template>),
    /// A JSON Web Token with a digest of the body.
    Jwt(Box<Jwt>),
    /// A signature in the body, over some of its fields.
    Fields(Box<Fields>),
    /// A message of Amazon SNS.
    Sns(Box<Sns>),
    /// A signature among the parameters that it covers.
    Params(Box<Params>),
    /// A token, or a name with a password.
    Token(Box<Token>),
    /// Nothing is verified.
    Open,
}

pub(super) fn wrong<T>(key: &str, message: impl Into<String>) -> Result<T, SpecError> {
    Err(SpecError::new(format!("scheme.{key}"), message))
}

impl Scheme {
    /// Compiles the scheme as it stands, or the key pair's form of it.
    pub(super) fn new(
        spec: &SchemeSpec,
        key_pair: bool,
        settings: &Settings,
    ) -> Result<Self, SpecError> {
        let tolerance = settings.tolerance;
        let time = spec.time.clone().map(|mut time| {
            if let Some(tolerance) = tolerance {
                time.past = tolerance;
                time.future = time.future.min(tolerance);
            }
            time
        });
        if time.is_none() && tolerance.is_some() && spec.format != Format::Jwt {
            let message = "this scheme signs no time that could be checked; remove the key";
            return Err(SpecError::new("tolerance", message));
        }
        let mut algorithm = spec.algorithm;
        let mut label = spec.label.as_deref();
        if let (true, Some(pair)) = (key_pair, &spec.key_pair) {
            algorithm = pair.algorithm;
            label = Some(&pair.label);
        }
        let open = spec.algorithm == Algorithm::None;
        match (open, settings.unsafe_no_auth) {
            (true, true) => return Ok(Self::Open),
            (true, false) => {
                let message = "verifies nothing: anyone could send anything; choose another one, \
                               or say unsafe_no_auth = true in the source";
                return wrong("algorithm", message);
            }
            (false, true) => {
                let message = "stands beside a scheme that verifies; remove the key";
                return Err(SpecError::new("unsafe_no_auth", message));
            }
            (false, false) => {}
        }
        if let Algorithm::Token | Algorithm::Basic = algorithm {
            return Token::new(spec).map(|token| Self::Token(Box::new(token)));
        }
        match spec.format {
            Format::Sns => return Sns::new(spec, settings).map(|sns| Self::Sns(Box::new(sns))),
            Format::Params => {
                return Params::new(spec).map(|params| Self::Params(Box::new(params)));
            }
            _ => {}
        }
        if spec.signature.is_some() {
            let fields = Fields::new(spec, time.as_ref(), settings)?;
            return Ok(Self::Fields(Box::new(fields)));
        }
        if spec.each.is_some() {
            return wrong(
                "each",
                "belongs to a signature in the body; set `signature` or remove it",
            );
        }
        if spec.query.is_some() {
            return wrong("query", "belongs to algorithm = \"token\"; use `header` or remove it");
        }
        if spec.format == Format::Jwt {
            return Jwt::new(spec, settings).map(|jwt| Self::Jwt(Box::new(jwt)));
        }
        if spec.jwt.is_some() {
            return wrong("jwt", "belongs to format = \"jwt\"; set that or remove the table");
        }
        let mut builder = Builder { spec, settings, others: Vec::new(), labels: Vec::new() };
        let template = builder.template(algorithm, label, time.as_ref())?;
        Ok(Self::Template(Box::new(template)))
    }
}

/// Other algorithms are for formats in which a request names one, and all take the same keys.
pub(super) fn check_others(spec: &SchemeSpec) -> Result<(), SpecError> {
    if spec.other_algorithms.is_empty() {
        return Ok(());
    }
    let key = "other_algorithms";
    let names_one = matches!(spec.format, Format::Named | Format::Jwt | Format::Sns);
    if !names_one || spec.key_pair.is_some() {
        return wrong(key, "belongs to format = \"named\", \"jwt\" or \"sns\"; remove it");
    }
    let mut seen = vec![spec.algorithm];
    for algorithm in &spec.other_algorithms {
        if !algorithm.is_kin(spec.algorithm) {
            return wrong(key, "mixes kinds of keys, and a request could choose; keep one kind");
        }
        if seen.contains(algorithm) {
            return wrong(key, "names an algorithm twice; remove one of them");
        }
        seen.push(*algorithm);
    }
    Ok(())
}

/// What stands before the signature in format `named`, in the order of the keys of a secret.
fn names(spec: &SchemeSpec) -> Result<Vec<&'static [u8]>, SpecError> {
    let algorithms = std::iter::once(&spec.algorithm).chain(&spec.other_algorithms);
    let name = |algorithm: &Algorithm| match algorithm {
        Algorithm::HmacSha1 => Ok(&b"sha1="[..]),
        Algorithm::HmacSha256 => Ok(&b"sha256="[..]),
        Algorithm::HmacSha384 => Ok(&b"sha384="[..]),
        Algorithm::HmacSha512 => Ok(&b"sha512="[..]),
        _ => wrong("algorithm", "has no name in format = \"named\"; use an HMAC"),
    };
    algorithms.map(name).collect()
}

/// The public URL, for a scheme that signs it.
pub(super) fn base(settings: &Settings) -> Result<Base, SpecError> {
    let refused = |message| Err(SpecError::new("public_url", message));
    let Some(url) = &settings.public_url else {
        return refused(
            "is missing, and this sender signs the URL that it calls; write the address that it \
             was given, up to the path: \"https://hooks.example.com\"",
        );
    };
    let wrong = "is no base of a URL; write it as \"https://hooks.example.com\", without a query";
    Base::new(url).map_or_else(|| refused(wrong), Ok)
}

/// What the source says under this name.
pub(super) fn param<'s>(settings: &'s Settings, name: &str) -> Result<&'s [u8], SpecError> {
    let text = settings.params.get(name).filter(|text| !text.is_empty());
    text.map(String::as_bytes).ok_or_else(|| {
        let message = "is missing; copy it from the account at the sender";
        SpecError::new(format!("params.{name}"), message)
    })
}

/// Refuses every key that is set and that a family does not use.
pub(super) fn only(spec: &SchemeSpec, used: &[&str], message: &str) -> Result<(), SpecError> {
    let set = [
        ("other_algorithms", !spec.other_algorithms.is_empty()),
        ("header", !spec.header.is_empty()),
        ("query", spec.query.is_some()),
        ("signature", spec.signature.is_some()),
        ("each", spec.each.is_some()),
        ("prefix", spec.prefix.is_some()),
        ("separator", spec.separator.is_some()),
        ("label", spec.label.is_some()),
        ("aliases", !spec.aliases.is_empty()),
        ("signed", !spec.signed.is_empty()),
        ("signature_encoding", spec.signature_encoding.is_some()),
        ("key_id", spec.key_id.is_some()),
        ("time", spec.time.is_some()),
        ("key_pair", spec.key_pair.is_some()),
        ("jwt", spec.jwt.is_some()),
    ];
    match set.iter().find(|(key, set)| *set && !used.contains(key)) {
        Some((key, _)) => wrong(key, message),
        None => Ok(()),
    }
}

/// The header under its name and its aliases.
pub(super) fn needed(spec: &SchemeSpec, key: &str, name: &str) -> Result<Needed, SpecError> {
    let aliases = spec.aliases.iter().filter(|(of, _)| of.eq_ignore_ascii_case(name));
    let names = std::iter::once(name).chain(aliases.flat_map(|(_, to)| to).map(String::as_str));
    let names = names.map(|name| match name.parse::<HeaderName>() {
        Ok(name) => Ok(name),
        Err(_) => wrong(
            key,
            format!("{name:?} is not the name of a header; use letters, digits and hyphens"),
        ),
    });
    Ok(Needed::new(names.collect::<Result<_, _>>()?))
}

impl SchemeSpec {
    /// The headers whose values the signature covers, under all their names.
    pub(crate) fn signed_headers(&self) -> Vec<HeaderName> {
        let names = self.signed.iter().filter_map(|part| part.strip_prefix("header:"));
        let headers = names.filter_map(|name| needed(self, "signed", name).ok());
        headers.flat_map(|header| header.names).collect()
    }
}

struct Builder<'s> {
    spec: &'s SchemeSpec,
    settings: &'s Settings,
    others: Vec<Needed>,
    labels: Vec<Box<[u8]>>,
}

impl Builder<'_> {
    fn template(
        &mut self,
        algorithm: Algorithm,
        label: Option<&str>,
        time: Option<&TimeSpec>,
    ) -> Result<Template, SpecError> {
        let spec = self.spec;
        let Some(encoding) = spec.signature_encoding else {
            return wrong("signature_encoding", "is missing; say \"hex\" or \"base64\"");
        };
        let parts = self.parts()?;
        let time = time.map(|time| self.time(time)).transpose()?;
        let composed = parts.iter().any(|part| matches!(part, Part::Composed(_)));
        let key_id = self.key_id()?;
        let template = Template {
            algorithm,
            other_algorithms: spec.other_algorithms.clone(),
            encoding,
            header: needed(spec, "header", &spec.header)?,
            shape: self.shape(label)?,
            others: std::mem::take(&mut self.others),
            key_id,
            composed,
            whole: composed || algorithm.mac().is_none() || !spec.other_algorithms.is_empty(),
            base: self.base(&parts)?,
            parts,
            time,
        };
        self.check_aliases(&template)?;
        Ok(template)
    }

    fn parts(&mut self) -> Result<Vec<Part>, SpecError> {
        let mut parts = Vec::with_capacity(self.spec.signed.len());
        for (index, text) in self.spec.signed.iter().enumerate() {
            let key = format!("signed[{index}]");
            parts.push(match text.split_once(':') {
                None if text == "body" => Part::Body,
                Some(("literal", literal)) => Part::Literal(literal.as_bytes().into()),
                Some(("param", name)) => Part::Literal(param(self.settings, name)?.into()),
                Some(("header", name)) => Part::Header(self.other(&key, name)?),
                Some(("kv", label)) => Part::Label(self.label(&key, label)?),
                _ => {
                    let Some(composed) = Composed::named(text) else {
                        let message = format!(
                            "{text:?} is not a part; write \"literal:TEXT\", \"header:NAME\", \
                             \"kv:LABEL\", \"body\" or another one of the README"
                        );
                        return wrong(&key, message);
                    };
                    Part::Composed(composed)
                }
            });
        }
        let covers_body = |part: &Part| match part {
            Part::Composed(composed) => composed.covers_body(),
            part => *part == Part::Body,
        };
        if !parts.iter().any(covers_body) {
            let message = "has no \"body\": without it anyone could put another body under a \
                           valid signature; add it";
            return wrong("signed", message);
        }
        Ok(parts)
    }

    /// The header that names a key.
    fn key_id(&mut self) -> Result<Option<usize>, SpecError> {
        let Some(text) = &self.spec.key_id else { return Ok(None) };
        let Some(name) = text.strip_prefix("header:") else {
            return wrong("key_id", format!("{text:?} is no place; write \"header:NAME\""));
        };
        self.other("key_id", name).map(Some)
    }

    /// The public URL, where it is signed.
    fn base(&self, parts: &[Part]) -> Result<Option<Base>, SpecError> {
        let needs_url =
            |part: &Part| matches!(part, Part::Composed(composed) if composed.needs_url());
        if parts.iter().any(needs_url) { base(self.settings).map(Some) } else { Ok(None) }
    }

    fn time(&mut self, time: &TimeSpec) -> Result<TimeRule, SpecError> {
        let key = "time.from";
        let from = match time.from.split_once(':') {
            Some(("header", name)) => TimeFrom::Header(self.other(key, name)?),
            Some(("kv", label)) => TimeFrom::Label(self.label(key, label)?),
            Some(("json", path)) => {
                let mut paths = Paths::default();
                match paths.add(path) {
                    Ok(slot) => TimeFrom::Json(Box::new(paths), slot),
                    Err(message) => return wrong(key, message),
                }
            }
            _ => {
                let message = format!(
                    "{:?} is no place; write \"header:NAME\", \"kv:LABEL\" or \"json:PATH\"",
                    time.from
                );
                return wrong(key, message);
            }
        };
        Ok(TimeRule { from, unit: time.unit, tolerance: Tolerance::new(time.past, time.future) })
    }

    fn shape(&mut self, label: Option<&str>) -> Result<Shape, SpecError> {
        let spec = self.spec;
        if spec.format != Format::KvList && spec.separator.is_some() {
            return wrong("separator", "belongs to format = \"kvlist\"; remove it");
        }
        if spec.format != Format::Plain && spec.prefix.is_some() {
            return wrong("prefix", "belongs to format = \"plain\" or \"jwt\"; remove it");
        }
        let label = match (label, spec.format) {
            (Some(_), Format::Plain | Format::CommaList | Format::Named) => {
                return wrong("label", "belongs to a list format; use `prefix` or remove it");
            }
            (None | Some(""), Format::KvList | Format::SpaceList) => {
                return wrong("label", "is missing; name the entries that count, such as \"v1\"");
            }
            (label, _) => label.unwrap_or_default().as_bytes().into(),
        };
        match spec.format {
            Format::KvList => {
                let separator = spec.separator.unwrap_or(',');
                let Some(separator) = u8::try_from(separator).ok().filter(u8::is_ascii) else {
                    return wrong("separator", "is not one ASCII character, such as \",\"");
                };
                let labels = std::mem::take(&mut self.labels);
                Ok(Shape::KvList { separator, label, labels })
            }
            Format::SpaceList => Ok(Shape::SpaceList { label }),
            Format::CommaList => Ok(Shape::CommaList),
            Format::Named => Ok(Shape::Named { names: names(spec)? }),
            Format::Plain | Format::Jwt | Format::Sns | Format::Params => {
                let prefix = spec.prefix.as_deref().unwrap_or_default().as_bytes().into();
                Ok(Shape::Plain { prefix })
            }
        }
    }

    /// The index of a header that must be there.
    fn other(&mut self, key: &str, name: &str) -> Result<usize, SpecError> {
        let header = needed(self.spec, key, name)?;
        let known = self.others.iter().position(|other| other.names == header.names);
        if known.is_none() && self.others.len() == OTHERS_MAX {
            return wrong(key, format!("is one header too many; at most {OTHERS_MAX} are read"));
        }
        Ok(known.unwrap_or_else(|| {
            self.others.push(header);
            self.others.len() - 1
        }))
    }

    /// The index of a label whose value is needed.
    fn label(&mut self, key: &str, label: &str) -> Result<usize, SpecError> {
        if self.spec.format != Format::KvList {
            return wrong(key, "speaks of a label, which only lists have; set format = \"kvlist\"");
        }
        if self.spec.label.as_deref() == Some(label) {
            return wrong(key, "is the label of the signature itself; name another one");
        }
        let known = self.labels.iter().position(|known| **known == *label.as_bytes());
        if known.is_none() && self.labels.len() == LABELS_MAX {
            return wrong(key, format!("is one label too many; at most {LABELS_MAX} are read"));
        }
        Ok(known.unwrap_or_else(|| {
            self.labels.push(label.as_bytes().into());
            self.labels.len() - 1
        }))
    }

    /// An alias of a header that nothing asks for is a slip of the pen.
    fn check_aliases(&self, template: &Template) -> Result<(), SpecError> {
        let used = |name: &String| {
            let mut headers = std::iter::once(&template.header).chain(&template.others);
            headers.any(|header| {
                header.names.iter().any(|known| name.eq_ignore_ascii_case(known.as_str()))
            })
        };
        match self.spec.aliases.keys().find(|name| !used(name)) {
            Some(name) => {
                let message = "names a header that `header` and `signed` do not speak of; mend it";
                wrong(&format!("aliases.{name}"), message)
            }
            None => Ok(()),
        }
    }
}
