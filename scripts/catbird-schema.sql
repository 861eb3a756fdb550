-- The schema reference of catbird_db, in Markdown, from the catalogs of a migrated database.
CREATE TEMP VIEW tables AS
    SELECT oid, relname, obj_description(oid, 'pg_class') AS about
      FROM pg_class
     WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition;

SELECT $$<!-- Generated from the migrations by `make catbird-generate`. -->
# catbird_db: the schema

```mermaid
erDiagram$$;

SELECT format('    %s ||--o{ %s : "%s"', f.relname, t.relname,
              (SELECT string_agg(a.attname, ', ' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attnum = ANY (c.conkey)))
  FROM pg_constraint c JOIN tables t ON t.oid = c.conrelid JOIN tables f ON f.oid = c.confrelid
 WHERE c.contype = 'f'
 ORDER BY t.relname, c.conname;

SELECT format(E'    %s {\n%s\n    }', t.relname,
              string_agg(format('        %s %s%s', regexp_replace(format_type(a.atttypid, NULL), 'timestamp with time zone', 'timestamptz'), a.attname,
                                CASE WHEN a.attnum = ANY (k.conkey[1:k.width]) THEN ' PK' ELSE '' END), E'\n' ORDER BY a.attnum))
  FROM tables t
  JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN LATERAL (SELECT conkey, cardinality(conkey) AS width FROM pg_constraint WHERE conrelid = t.oid AND contype = 'p') k ON true
 GROUP BY t.oid, t.relname
 ORDER BY t.relname;

SELECT '```';

SELECT format(E'\n## %s\n\n%s\n\n| column | type | null | default | |\n| --- | --- | --- | --- | --- |\n%s\n\n%s\n\n%s', t.relname, coalesce(t.about, ''),
    (SELECT string_agg(format('| `%s` | `%s` | %s | %s | %s |', a.attname, format_type(a.atttypid, a.atttypmod),
                              CASE WHEN a.attnotnull THEN 'no' ELSE 'yes' END,
                              CASE WHEN a.attidentity <> '' THEN 'identity'
                                   WHEN a.attgenerated <> '' THEN format('generated: `%s`', pg_get_expr(d.adbin, d.adrelid))
                                   WHEN d.oid IS NOT NULL THEN format('`%s`', pg_get_expr(d.adbin, d.adrelid)) ELSE '' END,
                              coalesce(col_description(a.attrelid, a.attnum), '')), E'\n' ORDER BY a.attnum)
       FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped),
    (SELECT string_agg(format('- `%s`', pg_get_constraintdef(c.oid)), E'\n' ORDER BY c.contype DESC, c.conname)
       FROM pg_constraint c WHERE c.conrelid = t.oid),
    (SELECT coalesce(string_agg(format('- `%s`', regexp_replace(pg_get_indexdef(i.indexrelid), ' ON (ONLY )?public\.\w+ USING btree', '')), E'\n' ORDER BY i.indexrelid), '')
       FROM pg_index i WHERE i.indrelid = t.oid AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid AND c.conrelid = t.oid)))
  FROM tables t
 ORDER BY t.relname;

SELECT E'\n## Functions\n\n| | |\n| --- | --- |';
SELECT format('| `%s(%s)` | %s |', p.proname, pg_get_function_identity_arguments(p.oid), coalesce(obj_description(p.oid, 'pg_proc'), ''))
  FROM pg_proc p
 WHERE p.pronamespace = 'public'::regnamespace AND p.prorettype <> 'trigger'::regtype
 ORDER BY p.proname;
