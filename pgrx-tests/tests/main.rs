//! Tests with whole servers, one module a hazard, in one program: each would otherwise be linked with all of its
//! dependencies again. To run some of them: `cargo nextest run -p server-tests worker::`.

mod absence;
mod administration;
mod administration_faults;
mod bundles;
mod cache;
mod capture;
mod catbird;
mod checkpoints;
mod clients;
mod command_line;
mod concurrency;
mod continuous;
mod continuous_busy;
mod copies;
mod crash;
mod damaged_files;
mod ddl;
mod deployment;
mod dump_restore;
mod export;
mod export_s3;
mod export_stores;
mod find;
mod gateway;
mod gateway_admin;
mod gateway_faults;
mod gateway_hostile;
mod hammer;
mod harness;
mod hints;
mod hub;
mod identity;
mod isolation_of_logs;
mod keys;
mod ledger;
mod limits;
mod long_rows;
mod many_rows;
mod memory;
mod monitor;
mod monitor_stores;
mod monitoring;
mod openapi;
mod operations;
mod order_columns;
mod out_of_memory;
mod own_transaction;
mod page;
mod parallel;
mod partitions;
mod privileges;
mod promises;
mod proofs;
mod races;
mod random_calls;
mod random_edits;
mod redacted_keys;
mod redaction;
mod removed_sources;
mod retention;
mod retired_rows;
mod roles;
mod schema_changes;
mod schema_names;
mod secrets;
mod sessions;
mod settings;
mod soak;
mod source_state;
mod state_machine;
mod table_at;
mod tamper;
mod terror;
mod top;
mod truncation;
mod turns;
mod upgrade;
mod versions;
mod wal_oracle;
mod who;
mod witness;
mod witness_kills;
mod witness_rules;
mod worker;

/// A module that is not named above would not be run.
#[test]
fn every_file_here_is_part_of_the_program() {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
    for file in std::fs::read_dir(here).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let module = name.strip_suffix(".rs").unwrap_or(&name);
        let named = include_str!("main.rs").contains(&format!("\nmod {module};\n"));
        assert!(named || module == "main", "{name} is not in main.rs");
    }
}
