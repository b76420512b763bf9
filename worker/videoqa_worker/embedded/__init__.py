"""Private servers for one machine: what `videoqa up`, `make demo` and the tests start."""
