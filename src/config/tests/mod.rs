//! The configuration as its users meet it: what is read, what is refused and in which words.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod accepted;
mod refused;
mod refused_sinks;

use forebay_log::AckLevel;

use super::*;

/// Must never be seen in anything that is printed.
const CANARY: &str = "canary-canary-canary-canary";

/// The least that works; line 9 is the last.
const LEAST: &str = r#"data_dir = "data"
[[lane]]
name = "main"
[[source]]
name = "hub-eu"
path = "/hub"
preset = "github"
secrets = [{ name = "a", value = "canary-canary-canary-canary" }]
"#;

fn load_with(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    parse(Path::new("etc/forebay.toml"), text, &environment.iter().map(own).collect(), read)
}

fn good(text: &str, environment: &[(&str, &str)]) -> Config {
    load_with(text, environment).unwrap()
}
