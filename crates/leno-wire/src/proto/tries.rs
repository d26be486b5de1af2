//! `leno.v1`: time limits and retries, `leno_core::spec::TriesSpec` field for field. Durations in nanoseconds; 0 is no limit,
//! unset is inherited.

/// `TriesSpec`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Tries {
    /// For one attempt, up to the head of its answer.
    #[prost(uint64, optional, tag = "1")]
    pub try_nanos: Option<u64>,
    /// For a connection.
    #[prost(uint64, optional, tag = "2")]
    pub connect_nanos: Option<u64>,
    /// Without progress.
    #[prost(uint64, optional, tag = "3")]
    pub idle_nanos: Option<u64>,
    /// When a request is sent again.
    #[prost(message, optional, tag = "4")]
    pub retry: Option<Retry>,
    /// A service's alone.
    #[prost(message, optional, tag = "5")]
    pub budget: Option<Budget>,
    /// Second attempts beside slow ones.
    #[prost(message, optional, tag = "80")]
    pub hedge: Option<Hedge>,
}

/// `RetrySpec`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Retry {
    /// At least 1.
    #[prost(uint32, tag = "1")]
    pub attempts: u32,
    /// What has no answer is tried again.
    #[prost(bool, tag = "2")]
    pub on_reset: bool,
    /// Answers that are tried again.
    #[prost(message, repeated, tag = "3")]
    pub statuses: Vec<StatusRange>,
    /// Codes of gRPC, as bits.
    #[prost(uint32, tag = "4")]
    pub grpc: u32,
    /// Fields of answers that are tried again.
    #[prost(message, repeated, tag = "5")]
    pub headers: Vec<super::resource::Header>,
    /// Every method may have its effect twice.
    #[prost(bool, tag = "6")]
    pub any_method: bool,
    /// These may; empty: the idempotent ones.
    #[prost(string, repeated, tag = "7")]
    pub methods: Vec<String>,
    /// The longest first wait.
    #[prost(uint64, tag = "8")]
    pub backoff_nanos: u64,
    /// The longest wait.
    #[prost(uint64, tag = "9")]
    pub backoff_max_nanos: u64,
    /// The longest wait that an answer may ask for.
    #[prost(uint64, tag = "10")]
    pub asked_wait_max_nanos: u64,
    /// The longest body that is kept.
    #[prost(uint32, tag = "11")]
    pub body_bytes_max: u32,
}

/// `HedgeSpec`. Either a share of the answers or a time; neither: no second attempts.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Hedge {
    /// As long as this share of the answers has taken lately, in percent.
    #[prost(uint32, tag = "1")]
    pub after_quantile: u32,
    /// So long.
    #[prost(uint64, tag = "2")]
    pub after_nanos: u64,
    /// Second attempts for each hundred requests.
    #[prost(uint32, tag = "3")]
    pub percent: u32,
}

/// `StatusRange`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct StatusRange {
    /// 100 to 599.
    #[prost(uint32, tag = "1")]
    pub first: u32,
    /// No less.
    #[prost(uint32, tag = "2")]
    pub last: u32,
}

/// `BudgetSpec`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Budget {
    /// Retries for each hundred requests, at most 100.
    #[prost(uint32, tag = "1")]
    pub percent: u32,
    /// Retries each second.
    #[prost(uint32, tag = "2")]
    pub per_second: u32,
}
