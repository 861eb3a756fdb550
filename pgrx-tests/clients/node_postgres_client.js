// The functions that take a row's key, from node-postgres, which sends every parameter as text and without a type. Run
// against a database with the tables of tests/clients.rs; arguments: the socket's directory and the port.
'use strict'

const assert = require('node:assert')
const { Client } = require('pg')

async function main(host, port) {
  const client = new Client({ host, port: Number(port), user: 'postgres', database: 'postgres' })
  await client.connect()
  const index = async (table, ...key) => {
    const holders = key.map((_, i) => `$${i + 1}`).join(', ')
    const sql = `SELECT leaf_index FROM inclusion_proof_of('${table}', '${table}', ${holders})`
    return (await client.query(sql, key)).rows[0].leaf_index
  }
  for (const key of [2, '2', 2n]) assert.equal(await index('orders', key), '1')
  assert.equal(await index('codes', 'b'), '1')
  assert.equal(await index('ids', '00000000-0000-0000-0000-000000000002'), '1')
  assert.equal(await index('moments', new Date('2024-01-02T12:00:00Z')), '1')
  assert.equal(await index('lines', 7, 3), '1')
  assert.equal(await index('named', 7, 'b'), '1')
  await assert.rejects(index('orders', null), { code: '22004' })
  await client.end()
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error)
  process.exit(1)
})
