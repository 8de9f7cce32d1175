-- title: What the stock is worth
-- description: Value of the stock of each product at list price, its share of the whole, and the running share.
-- param: category text = null   Only products of this category

WITH held AS (
    -- Not paid for yet: they belong to the stock, though they are not free.
    SELECT variant_id, sum(quantity) AS quantity
    FROM harbor.stock_reservations
    WHERE state = 'active'
    GROUP BY variant_id
),
worth AS (
    SELECT product.name AS product, product.category,
           sum(variant.stock_qty + coalesce(held.quantity, 0)) AS pieces,
           -- Sums are bigint: 50 000 pieces at 500.00 in cents pass the end of an integer.
           sum((variant.stock_qty + coalesce(held.quantity, 0::bigint)) * variant.price_cents) AS cents
    FROM harbor.products AS product
    JOIN harbor.variants AS variant ON variant.product_id = product.id
    LEFT JOIN held ON held.variant_id = variant.id
    WHERE :category IS NULL OR product.category = :category
    GROUP BY product.id
),
shares AS (
    SELECT worth.*,
           sum(cents) OVER () AS all_cents,
           sum(cents) OVER (ORDER BY cents DESC, product ROWS UNBOUNDED PRECEDING) AS running_cents
    FROM worth
)
SELECT product, category, pieces,
       round(cents / 100.0, 2) AS value,
       round(100.0 * cents / nullif(all_cents, 0), 1) AS share_percent,
       round(100.0 * running_cents / nullif(all_cents, 0), 1) AS running_percent
FROM shares
ORDER BY cents DESC, product;
