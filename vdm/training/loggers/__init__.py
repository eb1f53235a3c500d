"""Experiment loggers, for conf/logger; each writes into the run's folder."""
