-- title: How large the tables are
-- description: Size of each table with its indexes, TOAST and partitions, its dead rows, and when it was last analyzed.
-- param: schema text = null   Only tables of this schema

WITH RECURSIVE roots AS (
    SELECT class.oid, namespace.nspname AS schema, class.relname AS name
    FROM pg_class AS class
    JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
    WHERE class.relkind IN ('r', 'p', 'm') AND NOT class.relispartition
      AND namespace.nspname NOT IN ('pg_catalog', 'information_schema') AND namespace.nspname NOT LIKE 'pg\_t%'
      AND (:schema IS NULL OR namespace.nspname = :schema)
),
parts AS (
    SELECT oid AS root, oid FROM roots
  UNION
    SELECT parts.root, child.inhrelid
    FROM parts
    JOIN pg_inherits AS child ON child.inhparent = parts.oid
    JOIN pg_class AS class ON class.oid = child.inhrelid AND class.relispartition
),
measured AS (
    SELECT parts.root,
           pg_total_relation_size(class.oid) AS total,
           pg_indexes_size(class.oid) AS indexes,
           coalesce(pg_total_relation_size(nullif(class.reltoastrelid, 0)), 0) AS toast,
           pg_stat_get_live_tuples(class.oid) AS live,
           pg_stat_get_dead_tuples(class.oid) AS dead,
           greatest(pg_stat_get_last_analyze_time(class.oid), pg_stat_get_last_autoanalyze_time(class.oid)) AS analyzed
    FROM parts
    JOIN pg_class AS class ON class.oid = parts.oid AND class.relkind IN ('r', 'm')
),
summed AS (
    SELECT root, sum(total) AS total, sum(indexes) AS indexes, sum(toast) AS toast, sum(live) AS live, sum(dead) AS dead,
           count(*) AS parts, CASE WHEN bool_and(analyzed IS NOT NULL) THEN min(analyzed) END AS analyzed
    FROM measured
    GROUP BY root
)
SELECT roots.schema, roots.name AS "table", summed.total AS bytes, pg_size_pretty(summed.total) AS size,
       pg_size_pretty(summed.total - summed.indexes - summed.toast) AS heap,
       pg_size_pretty(summed.indexes) AS indexes, pg_size_pretty(summed.toast) AS toast,
       summed.live AS live_rows, summed.dead AS dead_rows,
       round(100.0 * summed.dead / nullif(summed.live + summed.dead, 0), 1) AS dead_percent,
       date_trunc('second', summed.analyzed) AS last_analyze
FROM roots
JOIN summed ON summed.root = roots.oid
ORDER BY summed.total DESC, roots.schema, roots.name;
