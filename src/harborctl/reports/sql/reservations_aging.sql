-- title: How old the reservations are
-- description: Active reservations by how long they have been overdue, or have left, most overdue first.
-- param: category text = null   Only variants of products of this category

WITH ages (position, age, starts, ends) AS (
    -- Seconds past the moment that a reservation runs out.
    VALUES (1, 'overdue for more than a week', 604800, NULL),
           (2, 'overdue for more than a day', 86400, 604800),
           (3, 'overdue for up to a day', 0, 86400),
           (4, 'runs out within the hour', -3600, 0),
           (5, 'runs out within a day', -86400, -3600),
           (6, 'runs out later', NULL, -86400)
),
active AS (
    SELECT reservation.*, extract(epoch FROM now() - reservation.expires_at) AS overdue
    FROM harbor.stock_reservations AS reservation
    JOIN harbor.variants AS variant ON variant.id = reservation.variant_id
    JOIN harbor.products AS product ON product.id = variant.product_id
    WHERE reservation.state = 'active' AND (:category IS NULL OR product.category = :category)
)
SELECT ages.age, count(active.id) AS reservations, count(DISTINCT active.order_ref) AS orders,
       coalesce(sum(active.quantity), 0) AS pieces,
       round(100.0 * sum(active.quantity) / nullif(sum(sum(active.quantity)) OVER (), 0), 1) AS share_percent,
       min(active.created_at) AS oldest
FROM ages
LEFT JOIN active ON (ages.starts IS NULL OR active.overdue >= ages.starts)
                AND (ages.ends IS NULL OR active.overdue < ages.ends)
GROUP BY ages.position, ages.age
ORDER BY ages.position;
