//! Join tokens: made, shown, used.

use std::collections::BTreeMap;

use leno_core::time::{Duration, UnixTime};
use leno_identity::token::{Grant, JoinToken, TokenRecord, TokenRefusal};

use super::{Effects, Refusal};
use crate::store::{Op, StoredToken, Table};

/// Every join token that was made and not yet forgotten.
#[derive(Debug, Default)]
pub(crate) struct Tokens(BTreeMap<String, StoredToken>);

impl Tokens {
    /// As they were kept.
    pub(crate) fn restore(tokens: Vec<StoredToken>) -> Self {
        Self(tokens.into_iter().map(|token| (token.record.id.clone(), token)).collect())
    }

    /// Adds a token; forgets some that ended long ago.
    pub(crate) fn add(
        &mut self,
        record: TokenRecord,
        now: UnixTime,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let old = |token: &StoredToken| now.since(token.record.expires) > REMEMBERED;
        let forgotten: Vec<String> =
            self.0.values().filter(|token| old(token)).map(|token| token.record.id.clone()).collect();
        for id in forgotten {
            self.0.remove(&id);
            effects.ops.push(Op::Delete(Table::Tokens, id));
        }
        if self.0.len() >= TOKENS_MAX {
            return Err(Refusal::TooMany { what: "tokens", most: TOKENS_MAX });
        }
        let token = StoredToken { record, recent: Vec::new() };
        effects.ops.push(Op::Put(Table::Tokens, token.record.id.clone(), token.encode()));
        self.0.insert(token.record.id.clone(), token);
        Ok(())
    }

    /// Forgets the token: nobody joins with it any more. Who has joined stays.
    pub(crate) fn remove(&mut self, id: &str, effects: &mut Effects) -> Result<(), Refusal> {
        if self.0.remove(id).is_none() {
            return Err(Refusal::NoSuchToken(id.to_owned()));
        }
        effects.ops.push(Op::Delete(Table::Tokens, id.to_owned()));
        Ok(())
    }

    /// What `token` grants to whoever asks with a certificate request of this digest; counts no use.
    pub(crate) fn check(
        &self,
        token: &JoinToken,
        request: &[u8; 32],
        now: UnixTime,
    ) -> Result<Grant, TokenRefusal> {
        let stored = self.0.get(&token.id);
        match TokenRecord::verify(stored.map(|stored| &stored.record), token, None, now) {
            Ok(grant) => Ok(grant.clone()),
            // The secret is right and the time is not over: it is the one who used it, asking again.
            Err(TokenRefusal::UsedUp) => match stored {
                Some(stored) if stored.recent.contains(request) => Ok(stored.record.grant.clone()),
                Some(_) | None => Err(TokenRefusal::UsedUp),
            },
            Err(refusal) => Err(refusal),
        }
    }

    /// The same, counting the use unless this very request was counted before.
    pub(crate) fn redeem(
        &mut self,
        token: &JoinToken,
        request: &[u8; 32],
        now: UnixTime,
        effects: &mut Effects,
    ) -> Result<Grant, TokenRefusal> {
        let grant = self.check(token, request, now)?;
        if let Some(stored) = self.0.get_mut(&token.id)
            && !stored.recent.contains(request)
        {
            stored.record.spend();
            if stored.recent.len() == RECENT_MAX {
                stored.recent.remove(0);
            }
            stored.recent.push(*request);
            effects.ops.push(Op::Put(Table::Tokens, token.id.clone(), stored.encode()));
        }
        Ok(grant)
    }

    /// Every token, by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &TokenRecord> {
        self.0.values().map(|token| &token.record)
    }
}

/// How long a token is kept after its end, so that whoever uses it too late is told so.
const REMEMBERED: Duration = Duration::from_secs(86_400);
/// Most tokens.
const TOKENS_MAX: usize = 10_000;
/// Most requests remembered per token: more proxies than join with one token in the same moment.
const RECENT_MAX: usize = 64;
