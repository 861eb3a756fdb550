"""The functions that take a row's key, from asyncpg.

It asks the server for the types of parameters: a bare one is a text, and any other type is said with a cast. Run
against a database with the tables of tests/clients.rs; arguments: the socket's directory and the port.
"""

import asyncio
import datetime
import sys
import uuid

import asyncpg


async def main(host, port):
    connection = await asyncpg.connect(host=host, port=int(port), user="postgres", database="postgres")

    async def index(table, holders, *key):
        return await connection.fetchval(f"SELECT leaf_index FROM inclusion_proof_of('{table}', '{table}', {holders})", *key)

    assert await index("orders", "$1", "2") == 1
    assert await index("orders", "$1::bigint", 2) == 1
    assert await index("orders", "$1::int", 2) == 1
    assert await index("codes", "$1", "b") == 1
    assert await index("ids", "$1::uuid", uuid.UUID("00000000-0000-0000-0000-000000000002")) == 1
    assert await index("days", "$1::date", datetime.date(2024, 1, 2)) == 1
    noon = datetime.datetime(2024, 1, 2, 12, tzinfo=datetime.timezone.utc)
    assert await index("moments", "$1::timestamptz", noon) == 1
    assert await index("lines", "$1::bigint, $2::int", 7, 3) == 1
    assert await index("lines", "$1, $2", "7", "3") == 1
    assert await index("named", "$1::int, $2::text", 7, "b") == 1
    # The key of one call as one array of texts.
    assert await index("lines", "VARIADIC $1::text[]", ["7", "3"]) == 1
    await connection.close()


asyncio.run(main(*sys.argv[1:]))
