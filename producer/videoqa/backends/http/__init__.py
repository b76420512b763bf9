"""The jobs behind a gateway: its address, requests, errors, and the events of many jobs on few connections."""
