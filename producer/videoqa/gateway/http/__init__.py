"""Parts of all routes: errors as problem documents, limits of bodies, headers, streams of events."""
