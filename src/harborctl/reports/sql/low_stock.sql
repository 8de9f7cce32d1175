-- title: Variants running low
-- description: Variants whose free stock is under a threshold, worst first.
-- param: threshold integer = 5   Stock level below which a variant is listed

-- Free is what stands on the shelf less what orders hold. A reservation that has run out holds nothing, whether or not
-- somebody has already marked it so.
WITH held AS (
    SELECT variant_id, sum(quantity) AS quantity
    FROM harbor.stock_reservations
    WHERE state = 'active' AND expires_at > now()
    GROUP BY variant_id
),
stock AS (
    SELECT variant.id, variant.product_id, variant.sku, variant.color, variant.size, variant.stock_qty,
           coalesce(held.quantity, 0) AS reserved,
           variant.stock_qty - coalesce(held.quantity, 0) AS free
    FROM harbor.variants AS variant
    LEFT JOIN held ON held.variant_id = variant.id
)
SELECT product.name AS product, stock.sku, stock.color, stock.size, stock.stock_qty AS in_stock, stock.reserved, stock.free
FROM stock
JOIN harbor.products AS product ON product.id = stock.product_id
WHERE product.active AND stock.free < :threshold
ORDER BY stock.free, product.name, stock.sku;
