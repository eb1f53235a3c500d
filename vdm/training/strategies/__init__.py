"""Where training runs, and how processes share its weights: one file a strategy, for conf/strategy."""
