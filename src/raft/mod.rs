pub mod log_store;
pub mod runtime;
pub mod types;
