"""Harbor's stock: reserve, release, confirm, expire and archive, so that nothing is sold twice.

`variants.stock_qty` is what is free to be sold: a reservation takes its pieces off, and whoever ends it gives them
back, unless they are paid for. Every change leaves a row in `stock_movements`, in its transaction.

Whatever locks rows here locks them in one order, so that nobody waits in a circle: reservations before variants, each
by its id. All times are the server's.
"""
