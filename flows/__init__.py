"""Orchestration: settings, HOME, the stages' chain, Prefect and the command line."""
