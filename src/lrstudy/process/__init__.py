"""Processes: workers on this machine's cores or a cluster, and stages without start-up."""
