"""The pages: each module has a table of routes and the functions behind them."""
