//! `leno.v1.Mesh/Quota`: shares of limits that hold mesh-wide. See `leno_core::quota`.

/// Limits of one question at most.
pub const ASKS_MAX: usize = 1_000;

/// What a proxy needs.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct QuotaRequest {
    /// Its instance, as in [`super::mesh::Hello`]; the service comes from the certificate.
    #[prost(string, tag = "1")]
    pub instance: String,
    /// Grows with each question.
    #[prost(uint64, tag = "2")]
    pub number: u64,
    /// Of each limit, at most [`ASKS_MAX`].
    #[prost(message, repeated, tag = "3")]
    pub asks: Vec<QuotaAsk>,
}

/// `Ask`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct QuotaAsk {
    /// Whose limit, `NAMESPACE/NAME`.
    #[prost(string, tag = "1")]
    pub owner: String,
    /// Its name there; of a gateway's rule, `RULE/NAME`.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Demand, in billionths of the limit.
    #[prost(uint64, tag = "3")]
    pub demand: u64,
    /// The lease that is applied; 0: none.
    #[prost(uint64, tag = "4")]
    pub lease: u64,
    /// The share that is applied, in billionths.
    #[prost(uint32, tag = "5")]
    pub held: u32,
    /// How long that lease lasts yet.
    #[prost(uint64, tag = "6")]
    pub left_ms: u64,
}

/// What it gets. A limit that is not among it is not known, or not its to ask for.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct QuotaResponse {
    /// Of each limit.
    #[prost(message, repeated, tag = "1")]
    pub grants: Vec<QuotaGrant>,
}

/// `Grant`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct QuotaGrant {
    /// As it was asked.
    #[prost(string, tag = "1")]
    pub owner: String,
    /// As it was asked.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Said back with the next question.
    #[prost(uint64, tag = "3")]
    pub lease: u64,
    /// In billionths of the limit.
    #[prost(uint32, tag = "4")]
    pub share: u32,
    /// From when the question was asked.
    #[prost(uint64, tag = "5")]
    pub lasts_ms: u64,
    /// How many proxies share the limit.
    #[prost(uint32, tag = "6")]
    pub holders: u32,
}
