//! The embedded sources of Redis's commands (being built).
