//! `Join` and `Renew`: certificates.

use leno_identity::authority::IssueError;
use leno_identity::token::{JoinToken, TokenRefusal};
use leno_wire::proto::mesh::{JoinRequest, JoinResponse, RenewRequest};
use tonic::Status;

use super::{Peer, Serving};
use crate::mesh::{Issued, JoinRefusal};

/// Trades a token for a certificate.
pub(super) async fn join(
    request: JoinRequest,
    serving: &Serving,
    peer: &Peer,
) -> Result<JoinResponse, Status> {
    let mesh = &serving.mesh;
    let instance: String = request.instance.chars().take(NAME_SHOWN_MAX).collect();
    let refused = |reason: &dyn std::fmt::Display| {
        mesh.tally(|tally| tally.joins_refused += 1);
        tracing::warn!(address = %peer.address, %instance, %reason, "join refused");
    };
    let token = JoinToken::parse(&request.token).map_err(|error| {
        refused(&error);
        Status::unauthenticated(error.to_string())
    })?;
    match mesh.join(&token, &request.csr_der).await {
        Ok(issued) => {
            mesh.tally(|tally| tally.joins += 1);
            tracing::info!(address = %peer.address, id = %issued.id, %instance, token = %token.id, "joined");
            Ok(answer(issued))
        }
        Err(JoinRefusal::Token(refusal)) => {
            refused(&refusal);
            Err(Status::unauthenticated(match refusal {
                // Who does not know the secret learns nothing, not even whether the token exists.
                TokenRefusal::Unknown | TokenRefusal::WrongSecret => "the join token was refused".to_owned(),
                TokenRefusal::Expired { .. } | TokenRefusal::UsedUp | TokenRefusal::WrongGrant { .. } => {
                    refusal.to_string()
                }
            }))
        }
        Err(JoinRefusal::Grant(grant)) => {
            refused(&format!("{grant} belongs to Leno itself"));
            Err(Status::permission_denied(format!("{grant} belongs to Leno itself")))
        }
        Err(JoinRefusal::Issue(error)) => {
            refused(&error);
            Err(not_issued(&error))
        }
        Err(JoinRefusal::NotKept) => Err(not_kept()),
    }
}

/// Trades a certificate request for a new certificate of the same identity.
pub(super) fn renew(request: RenewRequest, serving: &Serving, peer: &Peer) -> Result<JoinResponse, Status> {
    let mesh = &serving.mesh;
    let id = peer.authenticated()?;
    match mesh.issue(&request.csr_der, id.service.clone(), mesh.clock.unix()) {
        Ok(issued) => {
            mesh.tally(|tally| tally.renewals += 1);
            tracing::info!(address = %peer.address, %id, "certificate renewed");
            Ok(answer(issued))
        }
        Err(error) => {
            tracing::warn!(address = %peer.address, %id, reason = %error, "renewal refused");
            Err(not_issued(&error))
        }
    }
}

/// What could not be written cannot be promised.
pub(super) fn not_kept() -> Status {
    Status::unavailable("the control plane cannot write to its store; ask again")
}

/// Packs a certificate.
fn answer(issued: Issued) -> JoinResponse {
    JoinResponse {
        chain: issued.chain.iter().map(|certificate| certificate.to_vec()).collect(),
        roots: issued.roots.iter().map(|certificate| certificate.to_vec()).collect(),
        id: issued.id.to_uri(),
        expires_unix: issued.expires.0,
    }
}

/// Whose fault it is that no certificate was issued.
fn not_issued(error: &IssueError) -> Status {
    match error {
        IssueError::Authority(_) | IssueError::RootExpired | IssueError::TrustDomain { .. } => {
            tracing::error!(%error, "the authority cannot issue");
            Status::internal(error.to_string())
        }
        IssueError::RequestTooLong(_)
        | IssueError::Unreadable
        | IssueError::KeyType
        | IssueError::Signature => Status::invalid_argument(error.to_string()),
    }
}

/// Most characters of what a stranger calls itself that are logged.
const NAME_SHOWN_MAX: usize = 64;
