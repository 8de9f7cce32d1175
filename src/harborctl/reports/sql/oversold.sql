-- title: What a count found to be sold twice
-- description: Variants of which orders had taken more, by the last count, than the count found, worst first.
-- param: hours integer = 24 [1..]   Counts that were applied within so many hours

SELECT stock_count.sku, product.name AS product, stock_count.counted_qty, stock_count.counted_at,
       -- What reservations have taken since the count, and what they have given back.
       -stock_count.moved AS taken_since, stock_count.oversold, stock_count.applied_at
FROM harbor.stock_counts AS stock_count
JOIN harbor.variants AS variant ON variant.sku = stock_count.sku
JOIN harbor.products AS product ON product.id = variant.product_id
WHERE stock_count.oversold > 0 AND stock_count.applied_at > now() - make_interval(hours => :hours)
ORDER BY stock_count.oversold DESC, stock_count.sku;
