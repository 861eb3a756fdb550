"""The functions that take a row's key, with the parameter types of psycopg 3.

It sends a number as the smallest integer type that holds it, and a str without a type. Run against a database with
the tables of tests/clients.rs; argument: a connection string.
"""

import datetime
import decimal
import sys
import uuid

import psycopg

PROOF = "SELECT leaf_index FROM inclusion_proof_of('{0}', '{0}', {1})"


def main(conninfo):
    with psycopg.connect(conninfo, autocommit=True) as connection:

        def index(table, *key):
            holders = ", ".join(["%s"] * len(key))
            return connection.execute(PROOF.format(table, holders), key).fetchone()[0]

        for key in (2, decimal.Decimal("2.00"), 2.0, "2"):
            assert index("orders", key) == 1, key
        assert index("codes", "b") == 1
        assert index("ids", uuid.UUID("00000000-0000-0000-0000-000000000002")) == 1
        assert index("ids", "00000000-0000-0000-0000-000000000002") == 1
        assert index("days", datetime.date(2024, 1, 2)) == 1
        noon = datetime.datetime(2024, 1, 2, 12, tzinfo=datetime.timezone.utc)
        assert index("moments", noon) == 1
        # Without a time zone it is the session's that is meant, as in any comparison.
        connection.execute("SET TimeZone = 'Europe/Berlin'")
        assert index("moments", datetime.datetime(2024, 1, 2, 13)) == 1
        assert index("lines", 7, 3) == 1
        assert index("lines", "7", "3") == 1
        # Of a text beside a value with a type the server has to be told the type.
        named = PROOF.format("named", "%s, %s::text")
        assert connection.execute(named, (7, "b")).fetchone()[0] == 1

        def fails(state, table, *key):
            try:
                index(table, *key)
            except psycopg.Error as error:
                assert error.sqlstate == state, (state, error.sqlstate, error)
                assert error.diag.message_hint or state == "22P02", error
            else:
                raise AssertionError(f"{key} was accepted for {table}")

        fails("22004", "orders", None)
        fails("22023", "orders", 2, 3)
        fails("22023", "orders", decimal.Decimal("2.5"))
        fails("42804", "orders", datetime.date(2024, 1, 2))
        fails("42804", "codes", 2)


main(sys.argv[1])
