//! Whole-server test harness.
