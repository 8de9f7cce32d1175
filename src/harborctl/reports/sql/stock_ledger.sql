-- title: Stock that its movements do not account for
-- description: Variants whose movements add up to another stock than they have; none, if all is well.

WITH ledger AS (
    -- Of one variant movements are numbered in the order in which they were made: whoever makes one has locked it.
    SELECT variant_id, delta, reason, at,
           sum(delta) OVER (PARTITION BY variant_id ORDER BY id) AS balance,
           count(*) OVER (PARTITION BY variant_id) AS movements,
           row_number() OVER (PARTITION BY variant_id ORDER BY id DESC) AS from_last
    FROM harbor.stock_movements
),
accounts AS (
    SELECT variant_id, balance, movements, reason, at FROM ledger WHERE from_last = 1
)
SELECT coalesce(variant.id, accounts.variant_id) AS variant_id, variant.sku,
       coalesce(variant.stock_qty, 0) AS stock_qty, coalesce(accounts.balance, 0) AS movements_sum,
       coalesce(variant.stock_qty, 0) - coalesce(accounts.balance, 0) AS difference,
       coalesce(accounts.movements, 0) AS movements, accounts.reason AS last_reason, accounts.at AS last_at
FROM harbor.variants AS variant
FULL JOIN accounts ON accounts.variant_id = variant.id
WHERE coalesce(variant.stock_qty, 0) <> coalesce(accounts.balance, 0)
ORDER BY abs(coalesce(variant.stock_qty, 0) - coalesce(accounts.balance, 0)) DESC, 1;
