-- title: Variants that may be sold twice
-- description: Variants of which nearly all, or more than there is, is promised to orders, worst first.
-- param: percent numeric = 80 [0..]     List a variant from this share of its stock on
-- param: days integer = 14 [1..366]     Days from which to tell how fast it goes

WITH promised AS (
    SELECT variant_id,
           coalesce(sum(quantity) FILTER (WHERE expires_at > now()), 0) AS held,
           -- Run out, but nobody has released it: the order may still come and ask for its pieces.
           coalesce(sum(quantity) FILTER (WHERE expires_at <= now()), 0) AS overdue
    FROM harbor.stock_reservations
    WHERE state = 'active'
    GROUP BY variant_id
),
going AS (
    SELECT variant_id, sum(quantity)::numeric / :days AS per_day
    FROM harbor.stock_reservations
    WHERE state IN ('active', 'fulfilled') AND created_at > now() - make_interval(days => :days)
    GROUP BY variant_id
),
risks AS (
    SELECT variant.product_id, variant.sku, variant.stock_qty,
           variant.stock_qty + promised.held + promised.overdue AS in_stock,
           promised.held, promised.overdue, going.per_day,
           -- What orders had taken by the last count, and the count says is not there.
           coalesce(stock_count.oversold, 0) AS short
    FROM promised
    JOIN harbor.variants AS variant ON variant.id = promised.variant_id
    LEFT JOIN harbor.stock_counts AS stock_count ON stock_count.sku = variant.sku
    LEFT JOIN going ON going.variant_id = variant.id
)
SELECT product.name AS product, risks.sku, risks.in_stock, risks.held, risks.overdue, risks.short,
       round(100.0 * (risks.held + risks.overdue) / nullif(risks.in_stock - risks.short, 0), 1) AS promised_percent,
       round(risks.stock_qty / nullif(risks.per_day, 0), 1) AS days_left
FROM risks
JOIN harbor.products AS product ON product.id = risks.product_id
WHERE product.active AND 100.0 * (risks.held + risks.overdue) >= :percent * (risks.in_stock - risks.short)
ORDER BY short DESC, promised_percent DESC NULLS FIRST, risks.sku;
