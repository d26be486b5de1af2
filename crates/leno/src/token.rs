//! `leno token`: what lets a proxy join the mesh.

use std::process::ExitCode;
use std::time::Duration;

use leno_wire::api::{ProxyKind, TokenRequest, TokenView};
use serde_json::Value;

use crate::client::{self, ApiArgs};
use crate::failure::Failure;
use crate::output::{self, Output};

/// What was typed.
#[derive(clap::Args, Debug)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a token and show it, once.
    #[command(after_help = "Example:
  LENO_TOKEN=$(leno token create --service product --uses 3 --ttl 1h)")]
    Create(CreateArgs),
    /// List the tokens that can still be used; never their secrets.
    #[command(after_help = "Example:
  leno token list -o json")]
    List(ListArgs),
    /// Make a token useless.
    #[command(after_help = "Example:
  leno token revoke 4f2a91c07d3e")]
    Revoke(RevokeArgs),
}

#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("subject").required(true).args(["service", "gateway"])))]
struct CreateArgs {
    /// What a proxy that joins with it becomes: an instance of this service.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Or this gateway.
    #[arg(long, value_name = "NAME")]
    gateway: Option<String>,
    /// How many proxies may join with it.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    uses: u32,
    /// How long it can be used: 90s, 15m, 1h, 7d.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
    ttl: Duration,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(clap::Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(clap::Args, Debug)]
struct RevokeArgs {
    /// The token's id: what stands between its first two dots.
    #[arg(allow_hyphen_values = true)]
    id: String,
    #[command(flatten)]
    api: ApiArgs,
}

impl TokenArgs {
    /// Asks and shows.
    pub(crate) fn run(&self, output: Output) -> Result<ExitCode, Failure> {
        match &self.command {
            Command::Create(args) => args.run(output)?,
            Command::List(args) => args.run(output)?,
            Command::Revoke(args) => args.run(output)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl CreateArgs {
    fn run(&self, output: Output) -> Result<(), Failure> {
        let api = self.api.resolve()?;
        let request = TokenRequest {
            service: self.service.clone(),
            gateway: self.gateway.clone(),
            uses: Some(self.uses),
            expires_in_seconds: Some(self.ttl.as_secs()),
        };
        let answer: Value = client::block_on(api.post("/v1/tokens", &request))?;
        match output {
            Output::Json => output::json(&answer),
            Output::Text => {
                let made: TokenView = client::known(answer)?;
                let token = made
                    .token
                    .ok_or_else(|| Failure::failed("the control plane answered without a token"))?;
                output::line(&token)
            }
        }
    }
}

impl ListArgs {
    fn run(&self, output: Output) -> Result<(), Failure> {
        let answer = client::block_on(self.api.resolve()?.list("tokens"))?;
        match output {
            Output::Json => output::json(&answer),
            Output::Text => {
                let tokens: Vec<TokenView> = client::known(Value::Array(answer))?;
                let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
                let rows: Vec<Vec<String>> = tokens.iter().map(|token| row(token, now)).collect();
                output::line(&output::table(&["id", "kind", "becomes", "uses left", "ends in"], &rows))
            }
        }
    }
}

impl RevokeArgs {
    fn run(&self, output: Output) -> Result<(), Failure> {
        let plain = self.id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if self.id.is_empty() || !plain {
            return Err(Failure::invalid(format!(
                "`{}` is not a token's id; `leno token list` shows them",
                self.id
            )));
        }
        client::block_on(self.api.resolve()?.delete(&format!("/v1/tokens/{}", self.id)))?;
        match output {
            Output::Json => output::json(&serde_json::json!({ "revoked": self.id })),
            Output::Text => output::line(&format!("revoked {}", self.id)),
        }
    }
}

fn row(token: &TokenView, now_unix: u64) -> Vec<String> {
    let kind = match token.kind {
        ProxyKind::Sidecar => "service",
        ProxyKind::Gateway => "gateway",
    };
    vec![
        token.id.clone(),
        kind.to_owned(),
        token.subject.clone(),
        token.uses_left.to_string(),
        format!("{}s", token.expires_unix.saturating_sub(now_unix)),
    ]
}

/// A whole number and a unit, `s`, `m`, `h` or `d`; at least a second.
fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];
    let wrong = || "a number and a unit, such as 90s, 15m, 1h or 7d".to_owned();
    let (_, seconds) = UNITS.iter().find(|(unit, _)| text.ends_with(*unit)).ok_or_else(wrong)?;
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    match number.checked_mul(*seconds) {
        Some(0) | None => Err(wrong()),
        Some(seconds) => Ok(Duration::from_secs(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for wrong in
            ["", "1", "h", "0s", "-1s", "1.5h", "1y", "99999999999999999999s", "18446744073709551615d", "1é"]
        {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
