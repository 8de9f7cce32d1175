-- title: Variants that may be sold twice
-- description: Variants of which nearly all, or more than there is, is promised to orders, worst first.
-- param: percent numeric = 80 [0..]     List a variant from this share of its stock on
-- param: days integer = 14 [1..366]     Days from which to tell how fast it goes

WITH promised AS (
    SELECT variant_id,
           sum(quantity) FILTER (WHERE expires_at > now()) AS held,
           -- Run out, but nobody has released it: the order may still come and ask for its pieces.
           sum(quantity) FILTER (WHERE expires_at <= now()) AS overdue
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
           coalesce(promised.held, 0) AS held, coalesce(promised.overdue, 0) AS overdue, going.per_day
    FROM promised
    JOIN harbor.variants AS variant ON variant.id = promised.variant_id
    LEFT JOIN going ON going.variant_id = variant.id
)
SELECT product.name AS product, risks.sku, risks.stock_qty AS in_stock, risks.held, risks.overdue,
       -- Without stock every promise is one too many.
       greatest(risks.held + risks.overdue - risks.stock_qty, 0) AS short,
       round(100.0 * (risks.held + risks.overdue) / nullif(risks.stock_qty, 0), 1) AS promised_percent,
       round(greatest(risks.stock_qty - risks.held, 0) / nullif(risks.per_day, 0), 1) AS days_left
FROM risks
JOIN harbor.products AS product ON product.id = risks.product_id
WHERE product.active AND 100.0 * (risks.held + risks.overdue) >= :percent * risks.stock_qty
ORDER BY short DESC, promised_percent DESC NULLS FIRST, risks.sku;
