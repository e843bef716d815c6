"""The pages: each a table of routes and the plain functions behind them."""
