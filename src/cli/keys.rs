//! Secrets as arguments, and by ways that no list of processes shows.

use std::path::PathBuf;

use crate::config::nearest;
use crate::verify::{self, NamedSecret, Profile, SecretText, Settings};

/// Where the secrets are.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SecretArgs {
    /// A secret; whoever may list processes sees it, so better one of the next two
    // A private key in PEM begins with hyphens, and what is no argument would be shown.
    #[arg(long, value_name = "TEXT", value_parser = secret_text, allow_hyphen_values = true)]
    secret: Vec<SecretText>,
    #[command(flatten)]
    hidden: HiddenSecretArgs,
}

/// Where secrets are that no list of processes shows.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct HiddenSecretArgs {
    /// The environment variable that holds a secret
    #[arg(long, value_name = "VARIABLE")]
    secret_env: Vec<String>,
    /// The file that holds a secret; a line end at its end is ignored
    #[arg(long, value_name = "FILE")]
    secret_file: Vec<PathBuf>,
    /// The name that the sender gives the key, as LiveKit's API key
    #[arg(long, value_name = "ID")]
    key_id: Option<String>,
    /// What else the scheme has to know, such as `webhook_id=WH-1`
    #[arg(long = "param", value_name = "NAME=TEXT")]
    params: Vec<String>,
}

#[expect(clippy::unnecessary_wraps, reason = "the form that clap takes")]
fn secret_text(text: &str) -> Result<SecretText, std::convert::Infallible> {
    Ok(SecretText::new(text))
}

impl SecretArgs {
    /// As [`HiddenSecretArgs::settings`].
    pub(super) fn settings(&self, public_url: Option<String>) -> Result<Settings, String> {
        self.hidden.settings(public_url)
    }

    /// The secrets, in the order of the flags' kinds; the error is a lower-case fragment.
    pub(super) fn read(&self) -> Result<Vec<NamedSecret>, String> {
        let named = |(index, text): (usize, &SecretText)| {
            let name = if self.secret.len() == 1 {
                "secret".to_owned()
            } else {
                format!("secret {}", index + 1)
            };
            NamedSecret { name, value: text.clone(), key_id: self.hidden.key_id.clone() }
        };
        let mut secrets: Vec<NamedSecret> = self.secret.iter().enumerate().map(named).collect();
        secrets.extend(self.hidden.found()?);
        if secrets.is_empty() {
            return Err("no secret: give --secret-env, --secret-file or --secret".to_owned());
        }
        Ok(secrets)
    }
}

impl HiddenSecretArgs {
    /// Whether any of it was given.
    pub(super) fn given(&self) -> bool {
        let Self { secret_env, secret_file, key_id, params } = self;
        let lists = !(secret_env.is_empty() && secret_file.is_empty() && params.is_empty());
        lists || key_id.is_some()
    }

    /// What a source with these secrets would say of itself.
    pub(super) fn settings(&self, public_url: Option<String>) -> Result<Settings, String> {
        let pair = |text: &String| {
            let pair = text.split_once('=').map(|(name, text)| (name.to_owned(), text.to_owned()));
            pair.ok_or_else(|| format!("{text:?} is not NAME=TEXT"))
        };
        let params = self.params.iter().map(pair).collect::<Result<_, _>>()?;
        Ok(Settings { public_url, params, ..Settings::default() })
    }

    /// The secrets; the error is a lower-case fragment.
    #[cfg(feature = "sink-http")]
    pub(super) fn read(&self) -> Result<Vec<NamedSecret>, String> {
        let secrets = self.found()?;
        if secrets.is_empty() {
            return Err("no secret: give --secret-env or --secret-file".to_owned());
        }
        Ok(secrets)
    }

    fn found(&self) -> Result<Vec<NamedSecret>, String> {
        let of_env = self.secret_env.iter().map(|variable| {
            let text = std::env::var(variable);
            let text = text.map_err(|error| format!("the variable {variable}: {error}"))?;
            Ok((variable.clone(), SecretText::new(text)))
        });
        let of_files = self.secret_file.iter().map(|path| {
            let text = std::fs::read_to_string(path);
            let path = path.display();
            let text = text.map_err(|error| format!("{path}: {error}"))?;
            let line = text.strip_suffix('\n').unwrap_or(&text);
            let line = line.strip_suffix('\r').unwrap_or(line);
            Ok((path.to_string(), SecretText::new(line)))
        });
        let named = |(name, value)| NamedSecret { name, value, key_id: self.key_id.clone() };
        of_env.chain(of_files).map(|found: Result<_, String>| found.map(named)).collect()
    }
}

/// The preset of this name, or what to do about it.
pub(super) fn preset(name: &str) -> Result<&'static Profile, String> {
    verify::preset(name).ok_or_else(|| {
        let known = verify::presets().map(|profile| profile.name.as_str());
        let cure = match nearest(name, known) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => "`forebay providers` lists them".to_owned(),
        };
        format!("no preset is called {name:?}; {cure}")
    })
}
