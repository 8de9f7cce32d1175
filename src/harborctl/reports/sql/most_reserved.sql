-- title: What is reserved most
-- description: Variants by reserved pieces of the last days, with a line from day to day.
-- param: days integer = 14 [1..366]    How many days, today included
-- param: top integer = 20 [1..10000]   How many variants

WITH days AS (
    -- Whole numbers, not moments: where clocks go forward at midnight, the last of these would be in the next hour.
    SELECT CURRENT_DATE - before AS day
    FROM generate_series(0, :days - 1) AS before
),
reserved AS (
    SELECT variant_id, created_at::date AS day, count(*) AS reservations, sum(quantity) AS pieces
    FROM harbor.stock_reservations
    WHERE created_at >= CURRENT_DATE - (:days - 1)
    GROUP BY variant_id, created_at::date
),
leaders AS (
    SELECT variant_id, sum(reservations) AS reservations, sum(pieces) AS pieces, max(pieces) AS most
    FROM reserved
    GROUP BY variant_id
    ORDER BY sum(pieces) DESC, variant_id
    LIMIT :top
),
lines AS (
    -- A block an eighth to eight eighths high for each day, against the variant's own best day.
    SELECT leaders.variant_id,
           string_agg(CASE WHEN reserved.pieces IS NULL THEN '·'
                           ELSE substr('▁▂▃▄▅▆▇█', ceil(8.0 * reserved.pieces / leaders.most)::integer, 1) END,
                      '' ORDER BY days.day) AS line
    FROM leaders
    CROSS JOIN days
    LEFT JOIN reserved ON reserved.variant_id = leaders.variant_id AND reserved.day = days.day
    GROUP BY leaders.variant_id
)
SELECT product.name AS product, variant.sku, leaders.reservations, leaders.pieces, lines.line AS day_by_day
FROM leaders
JOIN lines ON lines.variant_id = leaders.variant_id
JOIN harbor.variants AS variant ON variant.id = leaders.variant_id
JOIN harbor.products AS product ON product.id = variant.product_id
ORDER BY leaders.pieces DESC, variant.sku;
