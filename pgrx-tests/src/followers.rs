//! Clusters that are followed from outside: logs with origins and keys of their own, which may be rewritten by whoever
//! rules the server; and the programs that follow them.

use crate::command_line::program;
use crate::gateway::Gateway;
use crate::{Client, Cluster, drain, one, run, until};
use std::process::Command;
use tempfile::TempDir;

/// A cluster with a log `audit` over a table `orders`, under an origin of its own.
pub struct Shop {
    pub cluster: Cluster,
    pub origin: String,
}

impl Shop {
    pub fn open(name: &str, rows: i64) -> Shop {
        let shop = Shop {
            cluster: Cluster::start(),
            origin: format!("example.com/{name}"),
        };
        shop.cluster.sign_with_a_new_key(&shop.origin);
        let mut c = shop.client();
        until(
            &mut c,
            "SELECT current_setting('merkle_log.signing_key_file', true) <> ''",
        );
        run(
            &mut c,
            "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text NOT NULL);
             CREATE ROLE reader LOGIN",
        );
        shop.log(&mut c);
        shop.grow(rows);
        shop
    }

    fn log(&self, c: &mut Client) {
        let origin = &self.origin;
        run(
            c,
            &format!(
                "SELECT create_log('audit', batch_size => 10000, origin => '{origin}');
                 SELECT add_source('audit', 'orders', capture => 'trigger', store_leaf_data => true)"
            ),
        );
    }

    pub fn client(&self) -> Client {
        self.cluster.client("postgres")
    }

    /// More rows, logged and signed; the checkpoint.
    pub fn grow(&self, rows: i64) -> String {
        let mut c = self.client();
        run(
            &mut c,
            &format!(
                "INSERT INTO orders (note) SELECT 'order ' || i FROM generate_series(1, {rows}) i"
            ),
        );
        self.sign(&mut c)
    }

    fn sign(&self, c: &mut Client) -> String {
        drain(c, "audit");
        one(c, "SELECT checkpoint('audit')")
    }

    /// What whoever rules the server can do: one row was always different, every hash follows from it, and all of it is
    /// signed anew by the same key. Nothing in the database contradicts it.
    pub fn rewrite_history(&self) {
        let mut c = self.client();
        run(&mut c, "DROP EXTENSION merkle_log CASCADE");
        run(
            &mut c,
            "UPDATE orders SET note = 'never happened' WHERE id = 2",
        );
        self.cluster.forgets_what_it_signed();
        run(&mut c, "CREATE EXTENSION merkle_log");
        let mut c = self.client();
        self.log(&mut c);
        self.sign(&mut c);
        assert_eq!(crate::findings(&mut c, "audit"), [""; 0]);
    }

    pub fn key(&self) -> String {
        one(&mut self.client(), "SELECT checkpoint_key('audit')")
    }

    /// How it is named in a configuration, for a role.
    pub fn conninfo(&self, user: &str) -> String {
        conninfo(&self.cluster, user)
    }

    /// Its log over HTTP.
    pub fn gateway(&self) -> Gateway {
        Gateway::start(&self.cluster, "public_logs = ['audit']")
    }
}

pub fn conninfo(cluster: &Cluster, user: &str) -> String {
    format!(
        "host={} user={user} dbname=postgres",
        cluster.socket().display()
    )
}

/// A program that follows logs, which runs until it is dropped. `{directory}` in the configuration is its directory.
pub fn follower(command: &str, directory: TempDir, configuration: &str) -> Gateway {
    let path = program().get_program().to_owned();
    let configuration = format!("listen = '127.0.0.1:0'\n{configuration}");
    Gateway::prepare_program(
        directory,
        &configuration,
        path.to_str().unwrap(),
        |process, file| {
            process.args(["--json", command, "--config"]).arg(file);
        },
    )
}

/// The same, once; the exit code and what it printed.
pub fn follow_once(
    command: &str,
    directory: &std::path::Path,
    configuration: &str,
) -> (i32, String) {
    let file = directory.join("once.toml");
    let text = configuration.replace("{directory}", &directory.display().to_string());
    std::fs::write(&file, text).unwrap();
    let mut process: Command = program();
    process.args([command, "--once", "--config"]).arg(file);
    crate::command_line::says(&mut process)
}
