//! Where the join tokens of a run come from.

use leno_wire::api::{TokenRequest, TokenView};

use crate::client::Api;
use crate::failure::Failure;

/// Gives a token for each start of a sidecar.
pub(super) enum Tokens {
    /// This one, for as many starts as whoever made it allowed.
    Given(String),
    /// New ones, made by the control plane for a service.
    Made {
        /// Where it is asked.
        api: Box<Api>,
        /// For which service.
        service: String,
    },
}

impl Tokens {
    /// The next one.
    pub(super) async fn next(&self) -> Result<String, Failure> {
        let (api, service) = match self {
            Self::Given(token) => return Ok(token.clone()),
            Self::Made { api, service } => (api, service),
        };
        let request = TokenRequest {
            service: Some(service.clone()),
            gateway: None,
            uses: Some(1),
            expires_in_seconds: Some(TOKEN_SECONDS),
        };
        let made: TokenView = api.post("/v1/tokens", &request).await?;
        made.token.ok_or_else(|| Failure::failed("the control plane answered without a token"))
    }
}

/// A token is used at once.
const TOKEN_SECONDS: u64 = 60;
