SELECT 1 AS id, 9223372036854775807 AS big, 12345678901234567890.1200 AS price, 1e20::float8 AS ratio, true AS yes,
       DATE '2026-11-30' AS day, TIMESTAMP '2026-11-30 12:34:56.5' AS at,
       TIMESTAMPTZ '2026-11-30 12:34:56+00' AS at_zone,
       INTERVAL '1 month 2 days 03:04:05' AS age, E'two\nlines, "quoted" | piped' AS note, '' AS empty,
       ARRAY['a,b', NULL, E'c"d\\e', 'NULL', ''] AS tags, ARRAY[[1, 2], [3, NULL]] AS grid, ARRAY[true, false] AS flags,
       ARRAY[TIMESTAMPTZ '2026-11-30 12:34:56+00'] AS moments, '{"a": [1, 2, {"b": null}]}'::jsonb AS document,
       '東京 é' AS city, 'second id' AS id
UNION ALL
SELECT 2, -1, 'NaN', '-Infinity', NULL, 'infinity', '-infinity', '0044-03-15 12:00:00+00 BC', '-1 day', NULL, 'x', NULL,
       '{}', '{}', '{}', NULL, 'Rome', NULL;
