"""Rows of the fault matrix that break gateways, and Redis under those who listen to one."""
