-- title: What the stock is worth
-- description: Value of the stock of each product at list price, its share of the whole, and the running share.
-- param: category text = null   Only products of this category

WITH worth AS (
    SELECT product.name AS product, product.category,
           sum(variant.stock_qty) AS pieces,
           -- Cents are multiplied as bigint: 50 000 pieces at 500.00 pass the end of an integer.
           sum(variant.stock_qty::bigint * variant.price_cents) AS cents
    FROM harbor.products AS product
    JOIN harbor.variants AS variant ON variant.product_id = product.id
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
