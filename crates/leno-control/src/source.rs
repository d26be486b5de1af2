//! Where declarations come from, besides the API.

pub(crate) mod file;
