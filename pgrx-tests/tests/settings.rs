//! A row has one leaf hash, whatever the session that logs or checks it is set to.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use server_tests::*;

const TABLE: &str = "CREATE TYPE pair AS (a numeric, b timestamptz);
    CREATE TABLE everything (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, b boolean, f4 real, f8 double precision, n numeric, t text,
        v varchar(20), c char(8), by bytea, u uuid, d date, ts timestamp, tz timestamptz, ti time, tt timetz, iv interval,
        j json, jb jsonb, ar numeric[], tza timestamptz[], r tstzrange, mr datemultirange, p pair, m money, pt point,
        ip inet, reg regclass, x xml, bits bit varying, tsv tsvector);
    INSERT INTO everything (b, f4, f8, n, t, v, c, by, u, d, ts, tz, ti, tt, iv, j, jb, ar, tza, r, mr, p, m, pt, ip, reg, x, bits, tsv)
    SELECT i % 2 = 0, i / 3.0, i / 7.0, i / 11.0, 'Grüße 😀 ' || i, 'v' || i, 'c', decode(md5(i::text), 'hex'), md5(i::text)::uuid,
           date '2020-01-01' + i, timestamp '2020-01-01' + i * interval '1 hour', timestamptz '2020-01-01 00:00+00' + i * interval '1 minute',
           time '00:00' + i * interval '1 second', timetz '12:00+03', i * interval '1 day 1 minute', '{\"a\": 1}', jsonb_build_object('k', i / 3.0),
           ARRAY[i / 3.0, NULL], ARRAY[timestamptz '2020-06-01 00:00+00'], tstzrange('2020-01-01 00:00+00', '2021-01-01 00:00+00'),
           '{[2020-01-01,2020-02-01)}', ROW(i / 3.0, timestamptz '2020-01-01 00:00+00')::pair, (i * 1.25)::numeric::money, point(i / 3.0, i),
           '10.0.0.1', 'pg_class', '<a/>', B'101', 'a b'::tsvector
      FROM generate_series(1, 40) i;";

const SETTINGS: &[(&str, &[&str])] = &[
    (
        "DateStyle",
        &["ISO, DMY", "SQL, DMY", "German", "Postgres, MDY"],
    ),
    (
        "TimeZone",
        &["UTC", "America/St_Johns", "Asia/Kathmandu", "Pacific/Apia"],
    ),
    (
        "IntervalStyle",
        &["postgres", "sql_standard", "iso_8601", "postgres_verbose"],
    ),
    ("extra_float_digits", &["-15", "0", "1", "3"]),
    ("bytea_output", &["hex", "escape"]),
    ("client_encoding", &["UTF8", "LATIN1", "SQL_ASCII"]),
    ("lc_monetary", &["C", "C.UTF-8"]),
    (
        "search_path",
        &[
            "public",
            "\"$user\", public, pg_catalog",
            "pg_catalog, public",
        ],
    ),
    ("xmlbinary", &["base64", "hex"]),
    ("quote_all_identifiers", &["on", "off"]),
    ("array_nulls", &["on", "off"]),
    ("row_security", &["on", "off"]),
    ("enable_indexscan", &["on", "off"]),
    ("enable_seqscan", &["on", "off"]),
];

#[test]
fn leaf_hashes_do_not_depend_on_session_settings() {
    let mut rng = StdRng::seed_from_u64(seed());
    let cluster = Cluster::start();
    let mut client = cluster.client("postgres");
    run(&mut client, TABLE);
    run(
        &mut client,
        "SELECT create_log('first'); SELECT add_source('first', 'everything', order_column => 'id')",
    );
    drain(&mut client, "first");
    let expected = oracle::leaves(&mut client, "first");
    assert_eq!(expected.len(), 40);
    for round in 0..100 {
        let mut other = cluster.client("postgres");
        for (name, values) in SETTINGS {
            // client_encoding is part of the connection of this client: set where batches run, in a function.
            let value = values.choose(&mut rng).unwrap();
            match *name {
                "client_encoding" => {}
                "search_path" => run(&mut other, &format!("SET search_path = {value}")),
                _ => run(&mut other, &format!("SET {name} = '{value}'")),
            }
        }
        let encoding = SETTINGS[5].1.choose(&mut rng).unwrap();
        run(
            &mut other,
            &format!(
                "SELECT public.create_log('log {round}'); SELECT public.add_source('log {round}', 'public.everything', order_column => 'id');
                 CREATE OR REPLACE FUNCTION public.run_it() RETURNS void LANGUAGE plpgsql SET client_encoding = '{encoding}' AS
                   $$ BEGIN PERFORM public.process_next_batch('log {round}'); END $$; SELECT public.run_it()"
            ),
        );
        run(&mut other, "RESET ALL");
        assert_eq!(
            oracle::leaves(&mut other, &format!("log {round}")),
            expected,
            "round {round}"
        );
    }
    let mut other = cluster.client("postgres");
    run(
        &mut other,
        "SET DateStyle = 'German'; SET TimeZone = 'Asia/Kathmandu'; SET extra_float_digits = -5; SET IntervalStyle = 'iso_8601'",
    );
    assert_eq!(findings(&mut other, "first"), Vec::<String>::new());
}

#[test]
fn a_database_in_another_encoding_is_refused_clearly() {
    let cluster = Cluster::start();
    for encoding in ["LATIN1", "SQL_ASCII"] {
        cluster.shell(&format!(
            "createdb -E {encoding} --locale=C -T template0 other"
        ));
        let refused = error(&mut cluster.client("other"), "CREATE EXTENSION merkle_log");
        assert!(
            refused.starts_with("0A000") && refused.contains(encoding),
            "{refused}"
        );
        cluster.shell("dropdb other");
    }
}
