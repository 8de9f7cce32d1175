-- title: What was loaded
-- description: The latest loads with what became of their rows, newest first.
-- param: since date = -30d   Loads from this day on
-- param: target text = null   Only loads into this table, as schema.table

WITH recent AS (
    SELECT load.*, concat_ws('.', load.target_schema, load.target_table) AS target
    FROM harborctl.loads AS load
    WHERE load.started_at >= :since
),
sizes AS (
    SELECT file.load_id, count(*) AS files, sum(file.bytes) AS bytes
    FROM harborctl.files AS file
    JOIN recent ON recent.id = file.load_id
    GROUP BY file.load_id
)
SELECT recent.started_at, recent.target, recent.mode, recent.status, recent.rows_read, recent.inserted, recent.updated,
       recent.unchanged, recent.deleted, recent.skipped, recent.rejected, sizes.files, sizes.bytes,
       round(recent.seconds::numeric, 1) AS seconds, recent.error ->> 'message' AS error
FROM recent
LEFT JOIN sizes ON sizes.load_id = recent.id
WHERE :target IS NULL OR recent.target = :target
ORDER BY recent.started_at DESC, recent.id;
