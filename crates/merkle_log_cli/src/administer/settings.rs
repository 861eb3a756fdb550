//! What can be set of a log and of a source: options of a command, and keys of a file.

use super::call::{Argument, Value};

#[derive(clap::Args, Clone, Debug, Default, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// The most entries of a batch
    #[arg(long)]
    pub batch_size: Option<u32>,
    /// How old a row must be to be logged, such as '5 seconds'
    #[arg(long)]
    pub settle: Option<String>,
    /// How often the background worker runs a batch
    #[arg(long)]
    pub run_interval: Option<String>,
    /// How often the background worker looks for late rows
    #[arg(long)]
    pub reconcile_interval: Option<String>,
    /// Whether leaf hashes can be looked up
    #[arg(long, value_name = "BOOLEAN")]
    pub find_by_hash: Option<bool>,
    /// The log's name in checkpoints, such as example.com/orders
    #[arg(long)]
    pub origin: Option<String>,
    /// How often the background worker signs a checkpoint; 0: never
    #[arg(long)]
    pub checkpoint_interval: Option<String>,
}

impl LogSettings {
    pub fn arguments(&self) -> Vec<Argument> {
        let interval = |name, value: &Option<String>| {
            Some(Argument::text(name, "pg_catalog.interval", value.as_ref()?))
        };
        let all = [
            self.batch_size
                .map(|size| Argument::text("batch_size", "pg_catalog.int4", size)),
            interval("settle", &self.settle),
            interval("run_interval", &self.run_interval),
            interval("reconcile_interval", &self.reconcile_interval),
            self.find_by_hash
                .map(|find| Argument::text("find_by_hash", "pg_catalog.bool", find)),
            self.origin
                .as_ref()
                .map(|origin| Argument::text("origin", "pg_catalog.text", origin)),
            interval("checkpoint_interval", &self.checkpoint_interval),
        ];
        all.into_iter().flatten().collect()
    }
}

#[derive(clap::Args, Clone, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSettings {
    /// The column by which rows are ordered
    #[arg(long)]
    pub order_column: Option<String>,
    /// The columns that identify a row, with commas between them, if not the primary key
    #[arg(long, value_delimiter = ',')]
    pub key_columns: Option<Vec<String>>,
    /// The columns that are logged, with commas between them, if not all
    #[arg(long, value_delimiter = ',')]
    pub columns: Option<Vec<String>>,
    /// The column that holds the hash to log instead of the other columns
    #[arg(long)]
    pub hash_column: Option<String>,
    /// How changes are captured: watermark or trigger
    #[arg(long)]
    pub capture: Option<String>,
    /// Refuse UPDATE and DELETE
    #[arg(long, value_name = "BOOLEAN", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub append_only: Option<bool>,
    /// Let TRUNCATE pass, and log it
    #[arg(long, value_name = "BOOLEAN", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub allow_truncate: Option<bool>,
    /// Keep what was hashed, so that it can be exported whatever becomes of the row
    #[arg(long, value_name = "BOOLEAN", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub store_leaf_data: Option<bool>,
    /// Keep the text of statements with the changes that they made
    #[arg(long, value_name = "BOOLEAN", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub record_statement: Option<bool>,
    /// Hash each row with a salt, so that nobody guesses what was redacted
    #[arg(long, value_name = "BOOLEAN", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub salted: Option<bool>,
    /// Whether the rows that are there already are logged
    #[arg(long, value_name = "BOOLEAN", require_equals = true)]
    pub backfill: Option<bool>,
}

impl SourceSettings {
    /// All but what holds only for the moment at which the source is added.
    pub fn lasting(&self) -> Vec<Argument> {
        let text = |name, value: &Option<String>| {
            Some(Argument::text(name, "pg_catalog.text", value.as_ref()?))
        };
        let texts = |name, value: &Option<Vec<String>>| {
            Some(Argument {
                name,
                sql_type: "pg_catalog.text[]",
                value: Value::Texts(value.clone()?),
            })
        };
        let flag =
            |name, value: Option<bool>| Some(Argument::text(name, "pg_catalog.bool", value?));
        let all = [
            text("order_column", &self.order_column),
            texts("key_columns", &self.key_columns),
            texts("columns", &self.columns),
            text("hash_column", &self.hash_column),
            text("capture", &self.capture),
            flag("append_only", self.append_only),
            flag("allow_truncate", self.allow_truncate),
            flag("store_leaf_data", self.store_leaf_data),
            flag("record_statement", self.record_statement),
            flag("salted", self.salted),
        ];
        all.into_iter().flatten().collect()
    }

    pub fn arguments(&self) -> Vec<Argument> {
        let mut arguments = self.lasting();
        arguments.extend(
            self.backfill
                .map(|backfill| Argument::text("backfill", "pg_catalog.bool", backfill)),
        );
        arguments
    }
}
