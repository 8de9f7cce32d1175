-- title: Variants running low
-- description: Variants whose free stock is under a threshold, worst first.
-- param: threshold integer = 5   Stock level below which a variant is listed

-- A variant's stock_qty is what is free: reservations have taken their pieces off it. Those of a reservation whose time
-- is over come back with `harborctl stock release`. What is on the shelf is both together.
WITH held AS (
    SELECT variant_id, sum(quantity) AS quantity
    FROM harbor.stock_reservations
    WHERE state = 'active'
    GROUP BY variant_id
)
SELECT product.name AS product, variant.sku, variant.color, variant.size,
       variant.stock_qty + coalesce(held.quantity, 0) AS in_stock,
       coalesce(held.quantity, 0) AS reserved, variant.stock_qty AS free
FROM harbor.variants AS variant
JOIN harbor.products AS product ON product.id = variant.product_id
LEFT JOIN held ON held.variant_id = variant.id
WHERE product.active AND variant.active AND variant.stock_qty < :threshold
ORDER BY free, product.name, variant.sku;
