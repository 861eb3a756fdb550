"""Writes the Parquet files of this folder, as users of these libraries would: pip install pandas polars duckdb pyarrow."""

from decimal import Decimal

import duckdb
import pandas
import polars
import pyarrow
import pyarrow.parquet

# The accounts of tests/common: what every file here holds, unless its test says otherwise.
COUNT = 8
key = [(0).to_bytes(8, "big") + n.to_bytes(8, "big") + bytes(16) for n in range(COUNT)]
balance = [n * 10**28 - 10**31 for n in range(COUNT)]
nonce = [2**64 - 1 - n for n in range(COUNT)]
flags = [n % 4 for n in range(COUNT)]
code = [2**32 - 1 - n for n in range(COUNT)]
data = [bytes([n]) * 24 for n in range(COUNT)]

frame = pandas.DataFrame(
    {
        "key": key,
        "balance": [Decimal(b) for b in balance],
        "nonce": pandas.array(nonce, dtype="uint64"),
        "flags": flags,
        "code": code,
        "data": data,
    }
)
frame.to_parquet("pandas.parquet")
# With an index of its own, and text.
text = frame.assign(
    key=[k.hex() for k in key], balance=[str(b) for b in balance], data=[d.hex() for d in data]
)
text.index = [f"row {n}" for n in range(COUNT)]
text.to_parquet("pandas-text.parquet", compression="gzip")
# What becomes of whole numbers with gaps in pandas.
gaps = frame.assign(nonce=[None] + [float(n) for n in range(1, COUNT)])
gaps.to_parquet("pandas-floats.parquet")

polars.DataFrame(
    {"data": data, "code": code, "flags": flags, "nonce": nonce, "key": key, "balance": balance},
    schema={
        "data": polars.Binary,
        "code": polars.UInt32,
        "flags": polars.UInt8,
        "nonce": polars.UInt64,
        "key": polars.Binary,
        "balance": polars.Decimal(38, 0),
    },
).write_parquet("polars.parquet")
polars.DataFrame(
    {"key": [k.hex() for k in key], "balance": [n * 1000 for n in range(COUNT)]}
).with_columns(polars.col("key").cast(polars.Categorical)).write_parquet(
    "polars-two-columns.parquet", compression="lz4"
)

database = duckdb.connect()
database.execute(
    "CREATE TABLE a (key BLOB, balance DECIMAL(38, 0), nonce UBIGINT, flags UTINYINT, code UINTEGER, data BLOB)"
)
database.executemany(
    "INSERT INTO a VALUES (?, ?, ?, ?, ?, ?)",
    [
        [key[n], Decimal(balance[n]), nonce[n], flags[n], code[n], data[n]]
        for n in range(COUNT)
    ],
)
database.execute("COPY a TO 'duckdb.parquet' (FORMAT parquet)")
# Its version 2 writes 32-bit numbers of 2^31 and more as no 32-bit numbers, which others do not read.
database.execute(
    "COPY (SELECT * REPLACE (code::UBIGINT AS code) FROM a)"
    " TO 'duckdb-v2.parquet' (FORMAT parquet, PARQUET_VERSION v2, COMPRESSION zstd)"
)
database.execute("COPY (SELECT key, balance::HUGEINT AS balance FROM a) TO 'duckdb-hugeint.parquet'")

schema = pyarrow.schema(
    [
        ("key", pyarrow.binary(32)),
        ("balance", pyarrow.decimal256(50, 2)),
        ("nonce", pyarrow.uint64()),
        ("flags", pyarrow.int8()),
        ("code", pyarrow.dictionary(pyarrow.int32(), pyarrow.uint32())),
        ("data", pyarrow.large_binary()),
    ]
)
columns = [key, [Decimal(b) for b in balance], nonce, flags, code, data]
table = pyarrow.table(
    [pyarrow.array(values, field.type) if field.name != "code" else pyarrow.array(values, pyarrow.uint32()).dictionary_encode()
     for values, field in zip(columns, schema)],
    schema=schema,
)
pyarrow.parquet.write_table(
    table, "arrow.parquet", data_page_version="2.0", compression="brotli", row_group_size=3
)
table = table.set_column(1, "balance", pyarrow.array([Decimal("1.50")] * COUNT, pyarrow.decimal128(38, 2)))
pyarrow.parquet.write_table(table, "arrow-cents.parquet")
