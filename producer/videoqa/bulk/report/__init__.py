"""The page of an archive: its answers and pictures, to be looked at in a browser."""
