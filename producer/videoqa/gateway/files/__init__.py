"""Files that callers upload: their bytes in a folder or a bucket, and their records in Redis."""
