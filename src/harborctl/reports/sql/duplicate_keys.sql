-- title: Keys that are there more than once
-- description: Values that stand in several rows of a table, most frequent first, and by how many rows they are too many.
-- param: table table         The table to search
-- param: columns column[]    The columns that should tell its rows apart

WITH keys AS (
    -- A unique constraint would let NULLs through; so does this.
    SELECT :columns FROM :table WHERE ROW(:columns) IS NOT NULL
)
SELECT :columns, count(*) AS times, sum(count(*) - 1) OVER () AS surplus_of_all
FROM keys
GROUP BY :columns
HAVING count(*) > 1
-- As a row, because a column may be called as one of ours is.
ORDER BY count(*) DESC, ROW(:columns);
