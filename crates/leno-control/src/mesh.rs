//! The registry with what it lacks to act: a lock, a clock, the store, and streams to wake.
//!
//! The lock is held for single calls of pure code, never across an await. Within it changes are handed to the store,
//! so that the order on disk is the order in memory, and subscribers are woken before it is let go.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leno_core::index::SubscriberId;
use leno_core::name::{ServiceId, TrustDomain};
use leno_core::quota::{self, Ask, HolderId, LimitId, Office};
use leno_core::time::{Duration, Instant, UnixTime};
use leno_identity::authority::{Authority, IssueError, LEAF_LIFETIME, Pin};
use leno_identity::credential::{Credential, CredentialError};
use leno_identity::token::{Grant, JoinToken, TokenRefusal};
use leno_identity::{CertificateDer, EntropyError};
use leno_wire::api;
use tokio::sync::{Notify, futures::Notified};

use crate::clock::Clock;
use crate::registry::{Effects, MemberKey, Refusal, Registry, Tokens};
use crate::store::{NotKept, Receipt, Store};

/// The control plane's state, shared by everything that serves.
#[derive(Debug)]
pub(crate) struct Mesh {
    /// Whose time it is.
    pub(crate) clock: Clock,
    /// Issues certificates.
    authority: Authority,
    /// Keeps changes.
    store: Store,
    /// All that changes.
    state: Mutex<State>,
    /// Who has which share of limits that hold mesh-wide. Beside the state: it is asked often, and nothing of it is kept.
    office: Mutex<Office>,
    /// Told when the registry's next deadline may have moved.
    moved: Notify,
}

/// What is behind the lock.
#[derive(Debug)]
struct State {
    /// Services, instances, what proxies are told.
    registry: Registry,
    /// Join tokens.
    tokens: Tokens,
    /// One per open control stream, told when something changed for it.
    wakers: BTreeMap<SubscriberId, Arc<Notify>>,
    /// The mesh file, when one is watched.
    file: Option<api::FileView>,
    /// For `/metrics`.
    tally: Tally,
}

/// What happened since the start, for `/metrics`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Certificates issued for tokens.
    pub(crate) joins: u64,
    /// Joins refused.
    pub(crate) joins_refused: u64,
    /// Certificates renewed.
    pub(crate) renewals: u64,
    /// Leases that ended.
    pub(crate) leases_ended: u64,
    /// Resources refused by proxies.
    pub(crate) rejected: u64,
    /// TLS handshakes that failed.
    pub(crate) handshakes_failed: u64,
}

/// Why a certificate was not issued.
#[derive(Debug)]
pub(crate) enum JoinRefusal {
    /// The token.
    Token(TokenRefusal),
    /// What it grants may be granted to nobody.
    Grant(Grant),
    /// The request.
    Issue(IssueError),
    /// The use of the token could not be kept.
    NotKept,
}

/// A certificate and what goes with it.
#[derive(Debug)]
pub(crate) struct Issued {
    /// Leaf first, no root.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// What to trust.
    pub(crate) roots: Vec<CertificateDer<'static>>,
    /// The name in it.
    pub(crate) id: leno_core::peer::SpiffeId,
    /// Its end.
    pub(crate) expires: UnixTime,
}

impl Mesh {
    /// Puts the parts together.
    pub(crate) fn new(
        clock: Clock,
        authority: Authority,
        store: Store,
        registry: Registry,
        tokens: Tokens,
    ) -> Self {
        let state = State { registry, tokens, wakers: BTreeMap::new(), file: None, tally: Tally::default() };
        let office = Mutex::new(Office::new(clock.now()));
        Self { clock, authority, store, state: Mutex::new(state), office, moved: Notify::new() }
    }

    /// Makes one change of the registry. The receipt says when it is on disk; only then may it be acknowledged.
    pub(crate) fn change<R>(
        &self,
        change: impl FnOnce(&mut Registry, Instant, &mut Effects) -> R,
    ) -> (R, Receipt) {
        let mut state = self.lock();
        let mut effects = Effects::default();
        let result = change(&mut state.registry, self.clock.now(), &mut effects);
        let receipt = self.carry_out(&state, effects);
        drop(state);
        self.moved.notify_one();
        (result, receipt)
    }

    /// A change that may be refused: waits until it is on disk.
    pub(crate) async fn change_and_keep<R>(
        &self,
        change: impl FnOnce(&mut Registry, Instant, &mut Effects) -> Result<R, Refusal>,
    ) -> Result<Result<R, Refusal>, NotKept> {
        let (result, receipt) = self.change(change);
        receipt.kept().await?;
        Ok(result)
    }

    /// Reads the registry.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&Registry, Instant) -> R) -> R {
        read(&self.lock().registry, self.clock.now())
    }

    /// What a control stream does with the registry: subscriptions and what is shown of it, nothing to keep.
    pub(crate) fn stream<R>(&self, act: impl FnOnce(&mut Registry, Instant) -> R) -> R {
        act(&mut self.lock().registry, self.clock.now())
    }

    /// Opens a control stream; the second value is told when something changed for it.
    pub(crate) fn open_stream(&self, service: ServiceId) -> (SubscriberId, Arc<Notify>) {
        let mut state = self.lock();
        let id = state.registry.open_stream(service);
        let waker = Arc::new(Notify::new());
        state.wakers.insert(id, waker.clone());
        (id, waker)
    }

    /// Ends a control stream.
    pub(crate) fn close_stream(&self, id: SubscriberId) {
        let mut state = self.lock();
        state.wakers.remove(&id);
        state.registry.close_stream(id);
    }

    /// Does what is due, forever.
    pub(crate) async fn keep_time(&self) {
        loop {
            let moved = self.moved.notified();
            let next = self.read(|registry, now| {
                registry.poll_timeout().map_or(now.after(TICK_MAX), |at| at.min(now.after(TICK_MAX)))
            });
            self.sleep_or(next, moved).await;
            let (ended, _) = self.change_quietly(|registry, now, effects| registry.tick(now, effects));
            for MemberKey { service, name } in &ended {
                tracing::warn!(%service, instance = %name, "lease ended: no heartbeat; the instance is removed");
            }
            self.office().sweep(self.clock.now());
            if !ended.is_empty() {
                self.tally(|tally| tally.leases_ended += ended.len() as u64);
            }
        }
    }

    /// Trades a join token for a certificate.
    pub(crate) async fn join(&self, token: &JoinToken, csr_der: &[u8]) -> Result<Issued, JoinRefusal> {
        let request = digest(csr_der);
        let now = self.clock.unix();
        let grant = self.lock().tokens.check(token, &request, now).map_err(JoinRefusal::Token)?;
        let Some(service) = grant.identity().cloned() else { return Err(JoinRefusal::Grant(grant)) };
        // Signed before the use is counted: a broken request costs no use.
        let issued = self.issue(csr_der, service, now).map_err(JoinRefusal::Issue)?;
        let receipt = {
            let mut state = self.lock();
            let mut effects = Effects::default();
            // Checked again: another applicant may have been faster.
            let redeemed = state.tokens.redeem(token, &request, now, &mut effects);
            redeemed.map_err(JoinRefusal::Token)?;
            self.carry_out(&state, effects)
        };
        receipt.kept().await.map_err(|NotKept| JoinRefusal::NotKept)?;
        Ok(issued)
    }

    /// Issues a certificate to a member that has one already.
    pub(crate) fn issue(
        &self,
        csr_der: &[u8],
        service: ServiceId,
        now: UnixTime,
    ) -> Result<Issued, IssueError> {
        let id = leno_core::peer::SpiffeId { trust_domain: self.authority.trust_domain().clone(), service };
        let chain = self.authority.issue(csr_der, &id, now, LEAF_LIFETIME)?;
        let expires = now.after(LEAF_LIFETIME).min(self.authority.not_after());
        Ok(Issued { chain, roots: self.authority.roots(), id, expires })
    }

    /// A certificate for this process.
    pub(crate) fn own_credential(&self) -> Result<Credential, CredentialError> {
        let id = leno_identity::authority::control_id(self.authority.trust_domain());
        self.authority.credential(&id, self.clock.unix(), LEAF_LIFETIME)
    }

    /// Makes a join token.
    pub(crate) async fn mint(
        &self,
        grant: Grant,
        uses: Option<u32>,
        lifetime: Duration,
    ) -> Result<Result<(JoinToken, UnixTime), MintRefusal>, NotKept> {
        let now = self.clock.unix();
        let expires = now.after(lifetime);
        let (token, record) = match JoinToken::new(self.authority.pin(), grant, uses, expires) {
            Ok(made) => made,
            Err(error) => return Ok(Err(MintRefusal::Entropy(error))),
        };
        let receipt = {
            let mut state = self.lock();
            let mut effects = Effects::default();
            if let Err(refusal) = state.tokens.add(record, now, &mut effects) {
                return Ok(Err(MintRefusal::Refused(refusal)));
            }
            self.carry_out(&state, effects)
        };
        receipt.kept().await?;
        Ok(Ok((token, expires)))
    }

    /// Makes a join token useless.
    pub(crate) async fn revoke(&self, id: &str) -> Result<Result<(), Refusal>, NotKept> {
        let receipt = {
            let mut state = self.lock();
            let mut effects = Effects::default();
            if let Err(refusal) = state.tokens.remove(id, &mut effects) {
                return Ok(Err(refusal));
            }
            self.carry_out(&state, effects)
        };
        receipt.kept().await?;
        Ok(Ok(()))
    }

    /// Reads the tokens.
    pub(crate) fn tokens<R>(&self, read: impl FnOnce(&Tokens) -> R) -> R {
        read(&self.lock().tokens)
    }

    /// The mesh file's state.
    pub(crate) fn file(&self) -> Option<api::FileView> {
        self.lock().file.clone()
    }

    /// Sets the mesh file's state.
    pub(crate) fn set_file_view(&self, file: api::FileView) {
        self.lock().file = Some(file);
    }

    /// Counts something.
    pub(crate) fn tally(&self, count: impl FnOnce(&mut Tally)) {
        count(&mut self.lock().tally);
    }

    /// What was counted.
    pub(crate) fn tallied(&self) -> Tally {
        self.lock().tally
    }

    /// The name of the mesh.
    pub(crate) fn trust_domain(&self) -> &TrustDomain {
        self.authority.trust_domain()
    }

    /// How proxies recognise this control plane.
    pub(crate) fn pin(&self) -> Pin {
        self.authority.pin()
    }

    /// Like [`Mesh::change`], for the timer itself.
    fn change_quietly<R>(
        &self,
        change: impl FnOnce(&mut Registry, Instant, &mut Effects) -> R,
    ) -> (R, Receipt) {
        let mut state = self.lock();
        let mut effects = Effects::default();
        let result = change(&mut state.registry, self.clock.now(), &mut effects);
        let receipt = self.carry_out(&state, effects);
        (result, receipt)
    }

    /// Wakes who was touched and hands over what must be kept.
    fn carry_out(&self, state: &State, effects: Effects) -> Receipt {
        for id in &effects.touched {
            if let Some(waker) = state.wakers.get(id) {
                waker.notify_one();
            }
        }
        self.store.keep(effects.ops)
    }

    /// Sleeps until `at`, or until told.
    async fn sleep_or(&self, at: Instant, moved: Notified<'_>) {
        tokio::select! {
            () = tokio::time::sleep_until(self.clock.timer(at)) => {}
            () = moved => {}
        }
    }

    /// Shares of limits that hold mesh-wide, for a proxy that asks; `None` when it is not attached. What it may not ask for is
    /// left out.
    pub(crate) fn share_out(
        &self,
        holder: &HolderId,
        mut asks: Vec<(LimitId, Ask)>,
    ) -> Option<Vec<(LimitId, quota::Grant)>> {
        {
            let state = self.lock();
            if !state.registry.has_proxy(holder) {
                return None;
            }
            asks.retain(|(limit, _)| state.registry.shares(limit, &holder.service));
        }
        let (mut office, now) = (self.office(), self.clock.now());
        let grant = |(limit, ask): (LimitId, Ask)| {
            let grant = office.ask(&limit, holder, ask, now)?;
            Some((limit, grant))
        };
        Some(asks.into_iter().filter_map(grant).collect())
    }

    /// A proxy has ended in order: its shares are free at once.
    pub(crate) fn take_shares_back(&self, key: &MemberKey) {
        let holder = HolderId { service: key.service.clone(), instance: key.name.clone() };
        self.office().forget(&holder);
    }

    fn office(&self) -> MutexGuard<'_, Office> {
        self.office.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state. Nobody panics while holding it; if somebody did, the state is still whole enough to go on with.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a token was not made.
#[derive(Debug)]
pub(crate) enum MintRefusal {
    /// No random bytes.
    Entropy(EntropyError),
    /// Too many.
    Refused(Refusal),
}

/// SHA-256 of a certificate request.
fn digest(csr_der: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, csr_der).as_ref());
    bytes
}

/// Leases are looked at this often at least: how a stall of this process is told from a stall of everybody else.
const TICK_MAX: Duration = Duration::from_millis(250);
